"""Links between two nodes of this process, over real loopback sockets."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random

import grpc.aio
import pytest

from appliance.errors import ConfigurationError
from appliance.model import MemberId
from appliance.peers import PeerLinks, PeerServer
from appliance.peers.wire import EXCHANGE, FRAME_BYTES_MAX, LANE_KEY, encode_batch
from raftberry.internal.v1 import peer_pb2
from tests.peers.harness import QUICK, RecordingNode, address, numbered, pair, serve

ONE, TWO = MemberId(1), MemberId(2)


def dial(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """A bare stream of the live lane, as a peer that is not ours would open it."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXCHANGE)
    return method(metadata=((LANE_KEY, "live"),))


async def test_frames_arrive_in_the_order_sent() -> None:
    async with pair() as linked:
        one, two = linked.links
        assert all(one.send(TWO, numbered(1, number)) for number in range(2_000))
        assert all(two.send(ONE, numbered(2, number)) for number in range(500))
        await linked.nodes[1].until(lambda: linked.nodes[1].count("frame") == 2_000)
        await linked.nodes[0].until(lambda: linked.nodes[0].count("frame") == 500)
        assert linked.nodes[1].terms() == list(range(2_000))
        assert linked.nodes[0].terms() == list(range(500))


async def test_a_link_is_up_before_its_first_frame_and_down_after_its_last() -> None:
    async with pair() as linked:
        linked.links[0].send(TWO, numbered(1, 1))
        await linked.nodes[1].until(lambda: linked.nodes[1].count("frame") == 1)
        await linked.stop(0)
        await linked.nodes[1].until(lambda: linked.nodes[1].count("down") == 1)
        assert [event for event, _, _ in linked.nodes[1].log] == ["up", "frame", "down"]


async def test_nothing_is_sent_to_a_peer_that_is_not_up() -> None:
    async with pair(is_started=False) as linked:
        await linked.links[0].start()
        assert not linked.links[0].send(TWO, numbered(1, 1))
        assert not linked.links[0].send(MemberId(99), numbered(1, 1))
        assert linked.links[0].pending_bytes(TWO) == 0


async def test_a_link_comes_back_after_the_peer_restarts() -> None:
    async with pair() as linked:
        for life in range(1, 4):
            await linked.stop(1)
            await linked.nodes[0].until(lambda life=life: linked.nodes[0].count("down") == life)  # type: ignore[misc]
            assert not linked.links[0].send(TWO, numbered(1, 1))
            await linked.restart(1)
            await linked.up()
            assert linked.links[0].send(TWO, numbered(1, 100 + life))
            await linked.nodes[1].until(lambda: linked.nodes[1].count("frame") == 1)
            assert linked.nodes[1].terms() == [100 + life]
        assert linked.nodes[0].states() == ["up"] + ["down", "up"] * 3


async def test_a_large_frame_travels_alone_and_whole() -> None:
    async with pair() as linked:
        size_bytes = FRAME_BYTES_MAX - 100
        assert size_bytes > QUICK.in_flight_bytes_max
        assert linked.links[0].send(TWO, numbered(1, 1, size_bytes))
        assert not linked.links[0].send(TWO, numbered(1, 2))
        await linked.nodes[1].until(lambda: linked.nodes[1].count("frame") == 1)
        frame = linked.nodes[1].log[-1][2]
        assert isinstance(frame, peer_pb2.Frame)
        assert len(frame.snapshot_chunk.data) == size_bytes


async def test_credit_makes_room_again() -> None:
    options = dataclasses.replace(QUICK, in_flight_bytes_max=100_000, credit_bytes=10_000)
    async with pair(options) as linked:
        sent = 0
        while linked.nodes[1].count("frame") < 500:
            while linked.links[0].send(TWO, numbered(1, sent, 5_000)):
                sent += 1
                assert linked.links[0].pending_bytes(TWO) <= 100_000
            await asyncio.sleep(0)
        assert linked.nodes[1].terms()[:500] == list(range(500))


async def test_a_refused_hello_reaches_the_dialler() -> None:
    async with pair(is_started=False) as linked:
        amnesia = peer_pb2.Refusal(reason=peer_pb2.Refusal.REASON_AMNESIA, message="index 9 was acknowledged")
        linked.nodes[1].refuse = amnesia
        await linked.start()
        await linked.nodes[0].until(lambda: linked.nodes[0].count("refused") == 2)
        assert linked.nodes[0].log[0] == ("refused", 2, amnesia)
        assert linked.nodes[0].states() == linked.nodes[1].states() == []
        linked.nodes[1].refuse = None
        await linked.up()


async def test_a_stranger_is_refused_as_not_a_member() -> None:
    server, stranger_server = await serve(1), await serve(3)
    node, stranger = RecordingNode(1), RecordingNode(3)
    links = PeerLinks(server, [address(2, 1)], node, rng=random.Random(1))
    stranger_links = PeerLinks(stranger_server, [address(1, server.port)], stranger, rng=random.Random(3))
    await links.start()
    await stranger_links.start()
    await stranger.until(lambda: stranger.count("refused") > 0)
    refusal = stranger.log[0][2]
    assert isinstance(refusal, peer_pb2.Refusal)
    assert refusal.reason == peer_pb2.Refusal.REASON_NOT_A_MEMBER
    assert "node-3 with member id 0000000000000003 is not a member" in refusal.message
    assert node.log == []
    for each in (links, stranger_links, server, stranger_server):
        await each.stop()


async def test_a_newer_stream_replaces_the_older_and_nothing_of_the_older_arrives() -> None:
    # The real node 1 must not dial again while the impostor has its say.
    patient = dataclasses.replace(QUICK, reconnect_delay_s_min=600.0, reconnect_delay_s_max=600.0)
    async with (
        pair(patient) as linked,
        grpc.aio.insecure_channel(f"127.0.0.1:{linked.ports[1]}") as channel,
    ):
        impostor = RecordingNode(1, boot_nonce=9)
        stream = dial(channel)
        await stream.write(encode_batch([impostor.hello(TWO).SerializeToString()]))
        node = linked.nodes[1]
        await node.until(lambda: node.count("down") == 1)
        replaced_at = len(node.log)
        assert node.log[-1][2] == "replaced by a newer stream of the peer"
        await stream.write(encode_batch([numbered(1, 7).SerializeToString()]))
        await node.until(lambda: node.count("frame") == 1)
        assert [event for event, _, _ in node.log[replaced_at:]] == ["up", "frame"]


async def test_a_link_whose_peer_cannot_be_dialled_holds_frames_back() -> None:
    server = await serve(2)
    node = RecordingNode(2)
    links = PeerLinks(server, [address(1, 1)], node, rng=random.Random(2))
    await links.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stream = dial(channel)
        await stream.write(encode_batch([RecordingNode(1).hello(TWO).SerializeToString()]))
        assert await stream.read() == b""
        await stream.write(encode_batch([numbered(1, 7).SerializeToString()]))
        await asyncio.sleep(0.05)
        assert node.log == []
    await links.stop()
    await server.stop()


class SilentPeer:
    """A peer that accepts our streams and takes no frame from those of the named lanes."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.server = grpc.aio.server()
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self.exchange)
        service = EXCHANGE.split("/")[1]
        handler = grpc.method_handlers_generic_handler(service, {"Exchange": method})
        self.server.add_generic_rpc_handlers((handler,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.taken: list[int] = []
        self.stopping = asyncio.Event()

    async def exchange(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.read()
        await context.write(b"")
        lane = str(dict(context.invocation_metadata() or ())[LANE_KEY])
        while lane not in self.silent:
            data = await context.read()
            if not isinstance(data, bytes):
                return
            frames = peer_pb2.FrameBatch.FromString(data).frames
            self.taken += [peer_pb2.Frame.FromString(frame).term for frame in frames]
        await self.stopping.wait()


async def _link_to(peer: SilentPeer, node: RecordingNode) -> tuple[PeerLinks, PeerServer, grpc.aio.Channel]:
    """Our links, up with a peer whose dialling side is a bare stream."""
    await peer.server.start()
    server = await serve(1)
    links = PeerLinks(server, [address(2, peer.port)], node, rng=random.Random(1))
    await links.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
    stream = dial(channel)
    await stream.write(encode_batch([RecordingNode(2).hello(ONE).SerializeToString()]))
    await node.until(lambda: node.count("up") == 1)
    return links, server, channel


async def test_a_peer_that_takes_nothing_is_sent_no_more_than_the_bound() -> None:
    peer, node = SilentPeer("live", "bulk"), RecordingNode(1)
    links, server, channel = await _link_to(peer, node)
    for lane_is_bulk in (False, True):
        sent_bytes = 0
        for round_ in range(200):
            frame = numbered(1, round_, 100_000)
            if links.send(TWO, frame, bulk=lane_is_bulk):
                sent_bytes += frame.ByteSize()
            await asyncio.sleep(0.001)
        assert sent_bytes == links.pending_bytes(TWO, bulk=lane_is_bulk)
        assert QUICK.in_flight_bytes_max - 110_000 < sent_bytes <= QUICK.in_flight_bytes_max
    assert node.states() == ["up"]
    await links.stop()
    peer.stopping.set()
    await channel.close()
    await server.stop()
    await peer.server.stop(None)


async def test_a_blocked_bulk_lane_does_not_hold_up_the_live_lane() -> None:
    peer, node = SilentPeer("bulk"), RecordingNode(1)
    links, server, channel = await _link_to(peer, node)
    async with asyncio.timeout(60):
        while not links.send(TWO, numbered(1, 0, 1_000_000), bulk=True):
            await asyncio.sleep(0.001)
        while links.send(TWO, numbered(1, 0, 1_000_000), bulk=True):
            await asyncio.sleep(0.001)
        for number in range(1, 101):
            assert links.send(TWO, numbered(1, number))
        while len(peer.taken) < 100:
            await asyncio.sleep(0.001)
    assert peer.taken == list(range(1, 101))
    assert links.pending_bytes(TWO, bulk=True) > 3_000_000
    await links.stop()
    peer.stopping.set()
    await channel.close()
    await server.stop()
    await peer.server.stop(None)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff",
        encode_batch([b"\xff\xff\xff"]),
        encode_batch([]),
        encode_batch([numbered(1, 1).SerializeToString()]),
        encode_batch([RecordingNode(1).hello(TWO).SerializeToString()] * 2),
    ],
    ids=["no batch", "no frame", "empty", "no hello", "two frames"],
)
async def test_a_stream_that_does_not_begin_with_hello_is_ended(
    message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as linked, grpc.aio.insecure_channel(f"127.0.0.1:{linked.ports[1]}") as channel:
        stream = dial(channel)
        await stream.write(message)
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "ended a stream that carried no frame of ours" in caplog.text
        assert linked.nodes[1].states() == ["up"]


@pytest.mark.parametrize(
    "bad", [b"\xff\xff", numbered(3, 1).SerializeToString()], ids=["garbage", "other name"]
)
async def test_a_bad_frame_ends_the_stream_and_the_link_recovers(
    bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as linked, grpc.aio.insecure_channel(f"127.0.0.1:{linked.ports[1]}") as channel:
        node = linked.nodes[1]
        stream = dial(channel)
        await stream.write(encode_batch([RecordingNode(1).hello(TWO).SerializeToString()]))
        assert await stream.read() == b""
        await stream.write(encode_batch([numbered(1, 1).SerializeToString(), bad]))
        assert await stream.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED)
        await linked.up()
        assert set(node.terms()) <= {1}


async def test_garbage_on_the_port_harms_nobody() -> None:
    async with pair() as linked:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x80\x04\x95cos\nsystem\n", bytes(100_000)):
            reader, writer = await asyncio.open_connection("127.0.0.1", linked.ports[1])
            try:
                writer.write(garbage)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 60)
            except OSError:
                pass  # A reset is as good an answer as an end.
            writer.close()
        linked.links[0].send(TWO, numbered(1, 5))
        await linked.nodes[1].until(lambda: linked.nodes[1].count("frame") == 1)
        assert linked.nodes[1].states() == ["up"]


async def test_a_peer_that_moves_is_dialled_at_its_new_address() -> None:
    async with pair() as linked:
        await linked.stop(1)
        linked.ports[1] = 0
        await linked.restart(1)
        linked.ports[1] = linked.servers[1].port
        linked.links[0].set_peers([address(2, linked.ports[1])])
        await linked.up()
        linked.links[0].set_peers([])
        assert linked.nodes[0].states()[-1] == "down"
        assert not linked.links[0].is_up(TWO)


async def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    server = await serve(1)
    with pytest.raises(ConfigurationError, match=r"cannot listen for peers on .* set --peer-address"):
        await serve(2, server.port)
    await server.stop()


async def test_an_error_in_the_node_reaches_the_loop_and_does_not_vanish() -> None:
    def fail(member_id: MemberId, frame: peer_pb2.Frame) -> None:
        raise AssertionError("a bug")

    async with pair(is_started=False) as linked:
        reported: list[BaseException] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        linked.nodes[1].on_frame = fail  # type: ignore[method-assign]
        await linked.start()
        await linked.up()
        linked.links[0].send(TWO, numbered(1, 1))
        await linked.nodes[0].until(lambda: linked.nodes[0].count("down") == 1)
        assert str(reported[0]) == "a bug"
        loop.set_exception_handler(None)


async def test_stopping_links_tells_the_node_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with pair() as linked:
            await linked.stop(0)
            assert linked.nodes[0].states() == ["up"]
            await linked.nodes[1].until(lambda: linked.nodes[1].count("down") == 1)
    assert caplog.text == ""
