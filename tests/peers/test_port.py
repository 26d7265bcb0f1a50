"""The peer port: connections of our own and gRPC's on one port, with and without TLS, and who is not let in."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import socket
import ssl
import struct
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.model import ClusterId, MemberId, TlsMaterial, member_host
from appliance.peers import (
    FoundingDesk,
    PeerCredentials,
    PeerLinks,
    PeerOptions,
    PeerServer,
    dialling,
    port,
    strangers,
)
from appliance.peers.wire import (
    EXCHANGE,
    FRAME_BYTES_MAX,
    LANE_KEY,
    PRELUDE_BYTES,
    Lane,
    encode_batch,
    prelude_of,
)
from appliance.security.keyring import Authority
from appliance.security.profile import BEGIN, pem_of, pem_of_key
from raftberry.internal.v1 import peer_pb2
from tests.peers.harness import QUICK, Pair, RecordingNode, address, framed, numbered, pair, serve

ONE, TWO = MemberId(1), MemberId(2)
CLUSTER = ClusterId(0xC1)
LIVE = prelude_of(Lane.LIVE)
HAS_LOOPBACK_6 = Path("/proc/net/if_inet6").is_file()
"""Some kernels are started without IPv6."""


def material_of(authority: Authority, member_id: int) -> TlsMaterial:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(
        key.public_key(),
        cluster_id=CLUSTER,
        member_id=MemberId(member_id),
        name=f"node-{member_id}",
        hosts=["localhost", "127.0.0.1"],
        now=BEGIN + timedelta(days=20_000),
    )
    return TlsMaterial(authority.pem, pem_of(certificate), pem_of_key(key))


async def serve_secured(member_id: int, credentials: PeerCredentials) -> PeerServer:
    desk = FoundingDesk(f"node-{member_id}", MemberId(member_id), [])
    server = PeerServer("127.0.0.1:0", desk.answer, credentials=credentials, options=QUICK)
    await server.start()
    return server


class Secured:
    """Nodes 1 and 2 with certificates of one CA."""

    def __init__(self) -> None:
        self.authority = Authority.create(CLUSTER)
        self.materials = [material_of(self.authority, 1), material_of(self.authority, 2)]

    def credentials(self, index: int) -> PeerCredentials:
        return PeerCredentials(lambda: self.materials[index], CLUSTER)

    async def linked(self) -> Pair:
        linked = Pair(
            [await serve_secured(1, self.credentials(0)), await serve_secured(2, self.credentials(1))], QUICK
        )
        for node in linked.nodes:
            greet(node)
        await linked.start()
        return linked


def greet(node: RecordingNode) -> None:
    """With the cluster's id in its hello, as a node with certificates."""
    hello = node.hello

    def with_cluster(to_member: MemberId) -> peer_pb2.Frame:
        frame = hello(to_member)
        frame.hello.cluster_id = CLUSTER
        return frame

    node.hello = with_cluster  # type: ignore[method-assign]


@pytest.fixture
def no_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that would go through gRPC fail."""

    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("dialled through gRPC")

    monkeypatch.setattr(dialling, "open_channel", refuse)


@pytest.mark.usefixtures("no_grpc")
async def test_two_nodes_of_this_version_speak_without_grpc() -> None:
    async with pair() as linked:
        assert linked.links[0].send(TWO, numbered(1, 7))
        while not linked.links[0].send(TWO, numbered(1, 8, 3_000_000), bulk=True):
            await asyncio.sleep(0.01)
        await linked.nodes[1].until(lambda: linked.nodes[1].count("frame") == 2)
        assert sorted(linked.nodes[1].terms()) == [7, 8]


@pytest.mark.usefixtures("no_grpc")
async def test_certificates_of_one_ca_carry_frames_of_every_size() -> None:
    linked = await Secured().linked()
    await linked.up()
    assert linked.links[0].send(TWO, numbered(1, 1, FRAME_BYTES_MAX - 100))
    assert linked.links[1].send(ONE, numbered(2, 2))
    await linked.nodes[1].until(lambda: linked.nodes[1].terms() == [1])
    await linked.nodes[0].until(lambda: linked.nodes[0].terms() == [2])
    for index in (0, 1):
        await linked.stop(index)


async def test_a_peer_that_has_only_grpc_is_spoken_to_through_it_with_the_same_certificates() -> None:
    secured = Secured()
    others = secured.credentials(1)
    old = grpc.aio.server()
    taken: list[bytes] = []

    async def exchange(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        others.check(context.auth_context(), ONE)
        while isinstance(data := await context.read(), bytes):
            taken.append(data)
            await context.write(b"")

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(exchange)
    service, name = EXCHANGE.strip("/").split("/")
    old.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
    old_port = old.add_secure_port("127.0.0.1:0", others.server)
    await old.start()
    node, server = RecordingNode(1), await serve_secured(1, secured.credentials(0))
    greet(node)
    links = PeerLinks(server, [address(2, old_port)], node, rng=random.Random(1))
    await links.start()
    options = [("grpc.ssl_target_name_override", member_host(CLUSTER, ONE))]
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", others.channel(), options) as channel:
        method_to_us: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXCHANGE)
        stream = method_to_us(metadata=((LANE_KEY, "live"),))
        hello = RecordingNode(2).hello(ONE)
        hello.hello.cluster_id = CLUSTER
        await stream.write(encode_batch([hello.SerializeToString()]))
        await node.until(lambda: node.states() == ["up"])
        assert links.send(TWO, numbered(1, 7))
        await stream.write(encode_batch([numbered(2, 8).SerializeToString()]))
        await node.until(lambda: node.terms() == [8])
        while encode_batch([numbered(1, 7).SerializeToString()]) not in taken:
            await asyncio.sleep(0.01)
    await links.stop()
    await server.stop()
    await old.stop(None)


@pytest.mark.usefixtures("no_grpc")
async def test_a_certificate_that_is_renewed_counts_from_the_next_connection_on() -> None:
    secured = Secured()
    linked = await secured.linked()
    await linked.up()
    other = Authority.create(CLUSTER)
    secured.materials[0] = material_of(other, 1)
    linked.links[0].set_peers([])
    linked.links[0].set_peers([address(2, linked.ports[1])])
    await linked.nodes[1].until(lambda: linked.nodes[1].states()[-1:] == ["down"])
    await asyncio.sleep(0.2)
    assert linked.nodes[1].states() == ["up", "down"]
    secured.materials[0] = material_of(secured.authority, 1)
    await linked.up()
    for index in (0, 1):
        await linked.stop(index)


async def test_an_address_that_swallows_packets_does_not_hide_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(is_started=False) as linked:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            place = full.getsockname()
            # Nobody accepts, and the queue takes no more: a connection to it waits.
            held = [socket.socket() for _ in range(4)]
            for one in held:
                one.setblocking(False)
                one.connect_ex(place)

            async def two_addresses(
                host: str, number: int
            ) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
                return [(socket.AF_INET, place), (socket.AF_INET, (host, number))]

            monkeypatch.setattr(dialling, "addresses_of", two_addresses)
            await linked.start()
            await linked.up()
            for one in held:
                one.close()


async def test_an_address_that_leads_to_another_member_is_not_spoken_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secured = Secured()
    server, other = (
        await serve_secured(1, secured.credentials(0)),
        await serve_secured(2, secured.credentials(1)),
    )
    node = RecordingNode(1)
    with caplog.at_level(logging.INFO):
        links = PeerLinks(server, [address(3, other.port)], node, rng=random.Random(1))
        await links.start()
        while "no link: peer=node-3" not in caplog.text:
            await asyncio.sleep(0.01)
    wanted = member_host(CLUSTER, MemberId(3))
    assert f"reason=its certificate is not that of {wanted}" in caplog.text
    assert node.log == []
    await links.stop()
    await server.stop()
    await other.stop()


async def answers(
    place: int, *, context: ssl.SSLContext | None, frames: list[bytes]
) -> list[peer_pb2.ExchangeResponse]:
    """What a connection of our own is answered that sends these, to its end."""
    plain = socket.create_connection(("127.0.0.1", place))
    plain.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(plain, LIVE)
    assert await loop.sock_recv(plain, len(LIVE)) == LIVE
    try:
        host = member_host(CLUSTER, TWO)
        if context is None:
            reader, writer = await asyncio.open_connection(sock=plain)
        else:
            reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname=host)
        for frame in frames:
            writer.write(framed(frame))
        data = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    except OSError:
        return []
    found: list[peer_pb2.ExchangeResponse] = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        found.append(peer_pb2.ExchangeResponse.FromString(data[4 : 4 + size]))
        data = data[4 + size :]
    return found


def dialler(material: TlsMaterial, trusted: bytes, *, is_shown: bool = True) -> ssl.SSLContext:
    """What material shows, to whom trusted has signed for."""
    shown = PeerCredentials(lambda: dataclasses.replace(material, authority_pem=trusted), CLUSTER)
    if is_shown:
        return shown.client_context()
    return ssl.create_default_context(cadata=trusted.decode())


async def test_who_has_no_certificate_of_a_member_is_told_nothing() -> None:
    secured = Secured()
    linked = await secured.linked()
    await linked.up()
    hello = linked.nodes[0].hello(TWO).SerializeToString()
    stranger, pem = material_of(Authority.create(CLUSTER), 1), secured.authority.pem
    without = dialler(stranger, pem, is_shown=False)
    assert await answers(linked.ports[1], context=without, frames=[hello]) == []
    assert await answers(linked.ports[1], context=dialler(stranger, pem), frames=[hello]) == []
    other = dialler(material_of(secured.authority, 9), pem)
    (response,) = await answers(linked.ports[1], context=other, frames=[hello])
    assert response.end_reason.startswith("refused: its certificate is of raftberry://")
    old = dialler(secured.materials[0], pem)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await answers(linked.ports[1], context=old, frames=[hello]) == []
    assert linked.nodes[1].states() == ["up"]
    for index in (0, 1):
        await linked.stop(index)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"\xff\xff\xff"], "that are no Frame"),
        ([b""], "a first frame that is no Hello"),
        ([numbered(1, 1).SerializeToString()], "a first frame that is no Hello"),
        ([RecordingNode(1).hello(TWO).SerializeToString()] * 2, "2 frames where one Hello was expected"),
    ],
    ids=["no frame", "empty", "no hello", "two frames"],
)
async def test_a_connection_that_does_not_begin_with_hello_is_ended_and_told_why(
    frames: list[bytes], reason: str
) -> None:
    async with pair() as linked:
        (response,) = await answers(linked.ports[1], context=None, frames=frames)
        assert response.end_reason.startswith("bad frame: ")
        assert reason in response.end_reason
        assert linked.nodes[1].states() == ["up"]


async def test_a_message_beyond_the_bound_ends_the_connection_and_the_link_recovers() -> None:
    async with pair() as linked:
        hello = RecordingNode(1).hello(TWO).SerializeToString()
        plain = socket.create_connection(("127.0.0.1", linked.ports[1]))
        plain.sendall(LIVE + framed(hello))
        node = linked.nodes[1]
        await node.until(lambda: node.count("down") == 1)
        plain.sendall(struct.pack(">I", FRAME_BYTES_MAX + 1))
        await linked.up()
        plain.close()


async def test_the_dialler_learns_why_it_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    server = await serve(1)
    node, others = RecordingNode(1), RecordingNode(2)
    other = await serve(2)
    with caplog.at_level(logging.INFO):
        links = PeerLinks(server, [address(2, other.port)], node, rng=random.Random(1))
        await links.start()
        while "not joined" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "no link: peer=node-2" in caplog.text
    assert "reason=this node has not joined its cluster yet" in caplog.text
    back = PeerLinks(other, [address(1, server.port)], others, rng=random.Random(2))
    await back.start()
    await node.until(lambda: node.states() == ["up"])
    for each in (links, back, server, other):
        await each.stop()


@pytest.mark.parametrize("is_at_once", [False, True])
async def test_what_a_peer_sent_that_left_before_the_link_was_up_is_not_delivered(is_at_once: bool) -> None:
    server, silent = await serve(1), await serve(2)
    node, other = RecordingNode(1), RecordingNode(2)
    # Nobody serves lanes at the other end: our own is not accepted, so the link is not up.
    links = PeerLinks(server, [address(2, silent.port)], node, rng=random.Random(1))
    await links.start()
    hello = other.hello(ONE).SerializeToString()
    frames = b"".join(framed(numbered(2, number).SerializeToString()) for number in range(3))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(LIVE + framed(hello))
    if not is_at_once:
        assert await asyncio.wait_for(reader.readexactly(len(LIVE) + 4), 60) == LIVE + bytes(4)
    writer.write(frames)
    writer.close()
    await asyncio.sleep(0.2)
    back = PeerLinks(silent, [address(1, server.port)], other, rng=random.Random(2))
    await back.start()
    for each in (node, other):
        await each.until(lambda each=each: each.states()[-1:] == ["up"])  # type: ignore[misc]
    assert back.send(ONE, numbered(2, 9))
    await node.until(lambda: node.terms()[-1:] == [9])
    assert node.terms() == [9]
    for stopping in (links, back, server, silent):
        await stopping.stop()


async def test_a_refused_certificate_is_told_on_both_machines(caplog: pytest.LogCaptureFixture) -> None:
    secured = Secured()
    linked = await secured.linked()
    await linked.up()
    secured.materials[0] = material_of(Authority.create(CLUSTER), 1)
    with caplog.at_level(logging.INFO):
        linked.links[0].set_peers([])
        linked.links[0].set_peers([address(2, linked.ports[1])])
        while "reason=its certificate is not valid here: " not in caplog.text:
            await asyncio.sleep(0.01)
        stranger = dialler(secured.materials[0], secured.authority.pem)
        for _ in range(3):
            hello = linked.nodes[0].hello(TWO).SerializeToString()
            assert await answers(linked.ports[1], context=stranger, frames=[hello]) == []
        while "refused a connection without a certificate of ours: peer=127.0.0.1 reason=" not in caplog.text:
            await asyncio.sleep(0.01)
    for index in (0, 1):
        await linked.stop(index)


@pytest.mark.usefixtures("no_grpc")
async def test_a_host_that_connects_too_often_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secured = Secured()
    monkeypatch.setattr(strangers, "HANDSHAKES_AT_ONCE", 0.0)
    with caplog.at_level(logging.INFO):
        linked = await secured.linked()
        while "no link: peer=node-1" not in caplog.text or "no link: peer=node-2" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "a host connects too often: peer=127.0.0.1" in caplog.text
    assert linked.nodes[0].log == linked.nodes[1].log == []
    monkeypatch.undo()
    await linked.up()
    for index in (0, 1):
        await linked.stop(index)


async def test_what_was_held_of_a_life_before_is_not_delivered_in_the_next() -> None:
    server, silent = await serve(1), await serve(2)
    node, other = RecordingNode(1), RecordingNode(2)
    links = PeerLinks(server, [address(2, silent.port)], node, rng=random.Random(1))
    await links.start()
    hello = other.hello(ONE).SerializeToString()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(prelude_of(Lane.BULK) + framed(hello))
    assert await asyncio.wait_for(reader.readexactly(PRELUDE_BYTES + 4), 60)
    # More than is held: the connection is not read, and its end is not seen.
    writer.write(b"".join(framed(numbered(2, number, 400_000).SerializeToString()) for number in range(5)))
    await asyncio.sleep(0.1)
    writer.transport.abort()
    slow = dataclasses.replace(QUICK, reconnect_delay_s_min=0.3, reconnect_delay_s_max=0.3)
    silent.options = slow
    back = PeerLinks(silent, [address(1, server.port)], other, rng=random.Random(2))
    await back.start()
    await node.until(lambda: node.states()[-1:] == ["up"])
    await asyncio.sleep(0.3)
    assert node.terms() == []
    for stopping in (links, back, server, silent):
        await stopping.stop()


async def test_a_caller_through_grpc_is_known_by_its_address(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as linked, grpc.aio.insecure_channel(f"127.0.0.1:{linked.ports[1]}") as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXCHANGE)
        stream = method(metadata=((LANE_KEY, "live"),))
        await stream.write(b"\xff\xff")
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ended a stream that carried no frame of ours: peer=127.0.0.1:" in caplog.text


@pytest.mark.parametrize("said", [b"", LIVE[:5], b"P", LIVE + struct.pack(">I", 5)], ids=repr)
async def test_who_says_too_little_is_let_go(said: bytes) -> None:
    server = await serve(1, options=dataclasses.replace(QUICK, hello_timeout_s=0.2))
    links = PeerLinks(server, [], RecordingNode(1), rng=random.Random(1))
    await links.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(said)
    with contextlib.suppress(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await links.stop()
    await server.stop()


async def test_of_too_many_connections_the_last_is_closed_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "CONNECTIONS_MAX", 3)
    server = await serve(1, options=dataclasses.replace(QUICK, hello_timeout_s=60.0))
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()
    for _, writer in held:
        writer.close()
    await server.stop()


async def test_a_dial_that_meets_itself_has_met_nobody() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await dialling._connected(one, one.getsockname())


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
async def test_a_wildcard_means_all_addresses_of_both_families(host: str) -> None:
    desk = FoundingDesk("node-1", ONE, [])
    server = PeerServer(f"{host}:0", desk.answer, options=QUICK)
    await server.start()
    for reached in ("127.0.0.1", *(("::1",) if HAS_LOOPBACK_6 else ())):
        reader, writer = await asyncio.open_connection(reached, server.port)
        writer.write(LIVE)
        assert await asyncio.wait_for(reader.readexactly(len(LIVE)), 60) == LIVE
        writer.close()
    await server.stop()


def test_the_options_that_a_test_depends_on_are_the_defaults() -> None:
    """A stream that stands still for so long is dead on a LAN."""
    assert PeerOptions().keepalive_timeout_s == 4.0
