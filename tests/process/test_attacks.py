"""An attacker's list, each tried for real on the open ports of a secured cluster that takes writes meanwhile.

Every test ends with the count of writes that were acknowledged while the attack was under way.
"""

from __future__ import annotations

import os
import pickle
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from appliance import features
from appliance.addresses import split_address
from appliance.client import joining
from appliance.client.authority import WrongAuthority, fetch_authority
from appliance.errors import ConditionFailed, RaftberryError
from appliance.model import ClusterId, MemberId, hex_id, member_host
from appliance.node.tokens import parse_invite
from appliance.security import profile
from appliance.security.keyring import Authority, Keyring
from appliance.security.proof import JoinClaim, invite_public_key, make_request, sign_claim
from raftberry.internal.v1 import peer_pb2
from raftberry.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    join_pb2,
    key_value_pb2,
    key_value_pb2_grpc,
    reading_pb2,
    reading_pb2_grpc,
)
from tests.process.client import write_request
from tests.process.nodes import wait_for
from tests.process.secured import SecuredCluster, SecuredNode, token_of

EXCHANGE = "/raftberry.internal.v1.PeerService/Exchange"
FETCH_AUTHORITY = "/raftberry.internal.v1.PeerService/FetchAuthority"
SERVICE = "raftberry.v1.ReadingService"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    with SecuredCluster(tmp_path_factory.mktemp("secured")) as three:
        three.form()
        yield three


@pytest.fixture(scope="module")
def writer_token(cluster: SecuredCluster) -> str:
    return token_of(cluster.nodes[0], "writer", "--write", "meanwhile/*")


class Meanwhile:
    """Writes through one node after the other, as a sensor would; counts what was acknowledged."""

    def __init__(self, cluster: SecuredCluster, token: str) -> None:
        self.count = 0
        self._token, self._channels = token, [node.remote() for node in cluster.nodes]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            stub = reading_pb2_grpc.ReadingServiceStub(self._channels[number % len(self._channels)])
            request = write_request(
                "meanwhile", "m", [number], [1.0], producer_id="meanwhile", sequence=number
            )
            try:
                stub.Write(request, timeout=30, metadata=bearer(self._token))
            except grpc.RpcError:
                continue
            self.count += 1

    def await_more(self, what: str) -> None:
        """Acknowledged from this moment on."""
        before = self.count
        wait_for(f"acknowledged writes {what}", lambda: self.count >= before + 3, timeout_s=60)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        for channel in self._channels:
            channel.close()


@pytest.fixture
def meanwhile(
    cluster: SecuredCluster, writer_token: str, request: pytest.FixtureRequest
) -> Iterator[Meanwhile]:
    writing = Meanwhile(cluster, writer_token)
    writing.await_more("before the attack")
    began, at_s = writing.count, time.monotonic()
    yield writing
    writing.await_more("after the attack")
    writing.stop()
    seconds = time.monotonic() - at_s
    print(f"{request.node.name}: {writing.count - began} writes acknowledged meanwhile, in {seconds:.1f} s")


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    """How a call ends."""
    try:
        call()
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error.code()
    return grpc.StatusCode.OK


# What an attacker has: certificates of all kinds


def ids_of(node: SecuredNode) -> tuple[ClusterId, MemberId]:
    status = node.status(timeout_s=10)
    assert status is not None
    return ClusterId(int(status.cluster_id, 16)), MemberId(int(status.member_id, 16))


def authority_of(node: SecuredNode) -> Authority:
    authority = node.keyring.authority
    assert authority is not None
    return authority


def own_pem(node: SecuredNode) -> tuple[bytes, bytes]:
    material = node.keyring.material
    return material.key_pem, material.chain_pem


def forged_pem(
    authority: Authority, cluster_id: ClusterId, member_id: MemberId, *, end: datetime
) -> tuple[bytes, bytes]:
    assert authority.key is not None
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = profile.build_node(
        authority.certificate, authority.key, key.public_key(),
        cluster_id=cluster_id, member_id=member_id, name="mallory", hosts=["localhost"], end=end, serial=7,
    )  # fmt: skip
    return profile.pem_of_key(key), profile.pem_of(certificate)


def client_pem(authority: Authority) -> tuple[bytes, bytes]:
    """Of the cluster's CA, but of no member."""
    assert authority.key is not None
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(8)
        .not_valid_before(profile.BEGIN)
        .not_valid_after(profile.NEVER)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("raftberry://x/client/sensor")]),
            critical=True,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return profile.pem_of_key(key), profile.pem_of(certificate)


def peer_channel(node: SecuredNode, pem: tuple[bytes, bytes] | None) -> grpc.Channel:
    """To the peer port of node."""
    cluster_id, member_id = ids_of(node)
    key_pem, chain_pem = pem or (None, None)
    credentials = grpc.ssl_channel_credentials(authority_of(node).pem, key_pem, chain_pem)
    options = [
        ("grpc.ssl_target_name_override", member_host(cluster_id, member_id)),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    return grpc.secure_channel(node.peer_address, credentials, options=options)


def hello_of(node: SecuredNode, claimed: SecuredNode) -> bytes:
    """The first message of a stream to node, in the name of another member."""
    (cluster_id, to_member), (_, from_member) = ids_of(node), ids_of(claimed)
    frame = peer_pb2.Frame(from_member=from_member, boot_count=1 << 40, term=1, high_index=1 << 50)
    frame.hello.protocol, frame.hello.cluster_id, frame.hello.to_member = 1, cluster_id, to_member
    frame.hello.name, frame.hello.boot_nonce = claimed.name, 12_345
    frame.hello.feature_level = features.LEVEL
    return peer_pb2.FrameBatch(frames=[frame.SerializeToString()]).SerializeToString()


def exchange_code(
    node: SecuredNode, pem: tuple[bytes, bytes] | None, *messages: bytes
) -> tuple[grpc.StatusCode, bytes]:
    """How a stream to the peer port ends that sends these messages; and its first response."""
    with peer_channel(node, pem) as channel:
        stream: Any = channel.stream_stream(EXCHANGE)(
            iter(messages), timeout=20, metadata=(("lane", "live"),)
        )
        first = b""
        try:
            for response in stream:
                first = first or response
                if not peer_pb2.ExchangeResponse.FromString(response).HasField("refusal"):
                    stream.cancel()
                    return grpc.StatusCode.OK, first
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return error.code(), first
        return grpc.StatusCode.OK, first


# The peer port


def test_without_a_certificate_the_peer_port_says_nothing(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    for node in cluster.nodes:
        code, response = exchange_code(node, None, hello_of(node, cluster.nodes[1]))
        assert (code, response) == (grpc.StatusCode.UNAVAILABLE, b"")
        with grpc.insecure_channel(node.peer_address) as channel:
            assert code_of(lambda channel=channel: channel.unary_unary(FETCH_AUTHORITY)(b"", timeout=10)) in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )


def test_a_certificate_of_another_ca_is_refused(cluster: SecuredCluster, meanwhile: Meanwhile) -> None:
    node, victim = cluster.nodes[:2]
    cluster_id, member_id = ids_of(victim)
    pem = forged_pem(Authority.create(cluster_id), cluster_id, member_id, end=profile.NEVER)
    assert exchange_code(node, pem, hello_of(node, victim)) == (grpc.StatusCode.UNAVAILABLE, b"")


def test_an_expired_certificate_is_refused(cluster: SecuredCluster, meanwhile: Meanwhile) -> None:
    node, victim = cluster.nodes[:2]
    pem = forged_pem(authority_of(node), *ids_of(victim), end=datetime(2020, 1, 1, tzinfo=UTC))
    assert exchange_code(node, pem, hello_of(node, victim)) == (grpc.StatusCode.UNAVAILABLE, b"")


def test_a_certificate_that_is_no_members_is_refused_on_the_peer_port(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    node, victim = cluster.nodes[:2]
    pem = client_pem(authority_of(node))
    assert exchange_code(node, pem, hello_of(node, victim)) == (grpc.StatusCode.UNAUTHENTICATED, b"")
    with peer_channel(node, pem) as channel:
        code = code_of(lambda: channel.unary_unary(FETCH_AUTHORITY)(b"", timeout=10))
    assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a_member_cannot_speak_in_the_name_of_another(cluster: SecuredCluster, meanwhile: Meanwhile) -> None:
    node, mallory, victim = cluster.nodes
    code = exchange_code(node, own_pem(mallory), hello_of(node, victim))
    assert code == (grpc.StatusCode.UNAUTHENTICATED, b"")


def test_a_removed_member_that_comes_back_is_refused_and_given_no_key(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    first, fourth = cluster.nodes[0], SecuredNode(name="n4", data=tmp_path / "n4")
    try:
        fourth.start()
        fourth.wait_serving()
        joined = fourth.join(first, first.invite())
        assert joined.returncode == 0, joined.stderr
        pem, hello = own_pem(fourth), hello_of(first, fourth)
        _, member_id = ids_of(fourth)
        fourth.kill()
        stub = cluster_pb2_grpc.ClusterServiceStub(first.channel)
        stub.RemoveMember(cluster_pb2.RemoveMemberRequest(member=hex_id(member_id)), timeout=60)
        code, response = exchange_code(first, pem, hello)
        assert code is grpc.StatusCode.OK
        refusal = peer_pb2.ExchangeResponse.FromString(response).refusal
        assert refusal.reason in (peer_pb2.Refusal.REASON_REMOVED, peer_pb2.Refusal.REASON_NOT_A_MEMBER)
        with peer_channel(first, pem) as channel:
            denied = code_of(lambda: channel.unary_unary(FETCH_AUTHORITY)(b"", timeout=10))
        assert denied is grpc.StatusCode.PERMISSION_DENIED
        fourth.start()
        meanwhile.await_more("while the removed node is back")
        wait_for(
            "n4 to know that it was removed",
            lambda: (status := fourth.status()) is not None and status.role == cluster_pb2.ROLE_REMOVED,
            timeout_s=60,
        )
    finally:
        fourth.kill()
    wait_for("three voters", lambda: first.is_voter_of(3), timeout_s=60)


def test_tls_below_1_3_is_refused_on_both_ports(cluster: SecuredCluster, meanwhile: Meanwhile) -> None:
    node = cluster.nodes[0]
    for address in (node.peer_address, node.client_address):
        for version, is_refused in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, False)):
            context = tls_context()
            context.minimum_version = context.maximum_version = version
            try:
                with socket.create_connection(split_address(address, what="x")) as plain:
                    context.wrap_socket(plain).close()
            except (ssl.SSLError, OSError):
                assert is_refused
            else:
                assert not is_refused


def test_a_pickle_on_the_peer_port_is_never_loaded(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    marker = tmp_path / "loaded"
    payload = pickle.dumps(Bomb(str(marker)))
    assert b"mkdir" in payload
    node, mallory = cluster.nodes[:2]
    send_raw(node.peer_address, payload)
    send_raw(node.peer_address, len(payload).to_bytes(4, "big") + payload)
    code, _ = exchange_code(node, own_pem(mallory), payload)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    in_frame = peer_pb2.FrameBatch(frames=[payload]).SerializeToString()
    assert exchange_code(node, own_pem(mallory), in_frame)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert not marker.exists()


class Bomb:
    """Makes a directory where it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self._path,)


# Tokens


def write_with(node: SecuredNode, token: str, sensor: str) -> grpc.StatusCode:
    with node.remote() as channel:
        stub = reading_pb2_grpc.ReadingServiceStub(channel)
        request = write_request(sensor, "m", [1], [1.0])
        return code_of(lambda: stub.Write(request, timeout=30, metadata=bearer(token)))


def test_a_stolen_token_is_worth_nothing_once_it_is_revoked(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    first = cluster.nodes[0]
    stolen = token_of(first, "stolen", "--write", "greenhouse/*")
    assert {write_with(node, stolen, "greenhouse") for node in cluster.nodes} == {grpc.StatusCode.OK}
    assert first.command("token", "revoke", "stolen").returncode == 0
    for node in cluster.nodes:
        wait_for(
            f"the revocation on {node.name}",
            lambda node=node: write_with(node, stolen, "greenhouse") is grpc.StatusCode.UNAUTHENTICATED,
            timeout_s=60,
        )


def test_a_token_does_nothing_outside_its_scope(
    cluster: SecuredCluster, meanwhile: Meanwhile, writer_token: str
) -> None:
    for node in cluster.nodes:
        assert write_with(node, writer_token, "kitchen") is grpc.StatusCode.PERMISSION_DENIED
        assert write_with(node, "guessed", "kitchen") is grpc.StatusCode.UNAUTHENTICATED
    with cluster.nodes[0].remote() as channel:
        metadata = bearer(writer_token)
        keys = key_value_pb2_grpc.KeyValueServiceStub(channel)
        members = cluster_pb2_grpc.ClusterServiceStub(channel)
        readings = reading_pb2_grpc.ReadingServiceStub(channel)
        refused = [
            lambda: keys.Put(key_value_pb2.PutRequest(key="k", value=b"v"), timeout=10, metadata=metadata),
            lambda: members.RemoveMember(
                cluster_pb2.RemoveMemberRequest(member="n2"), timeout=10, metadata=metadata
            ),
            lambda: members.TransferLeadership(
                cluster_pb2.TransferLeadershipRequest(), timeout=10, metadata=metadata
            ),
            lambda: list(readings.Query(reading_pb2.QueryRequest(), timeout=10, metadata=metadata)),
        ]
        assert {code_of(call) for call in refused} == {grpc.StatusCode.PERMISSION_DENIED}


# Joining


def test_a_replayed_or_changed_join_is_refused_by_every_node(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    invite = parse_invite(cluster.invite)
    _, request_der = make_request()
    member_id = MemberId(0xBAD)
    for node in cluster.nodes:
        authority = authority_of(node)
        claim = JoinClaim(authority.fingerprint, member_id, "mallory", "127.0.0.1:1", request_der)
        request = join_pb2.JoinRequest(
            member_id=hex_id(member_id),
            name=claim.name,
            peer_address=claim.peer_address,
            certificate_request=request_der,
            invite_public_key=invite_public_key(invite.secret),
            signature=sign_claim(invite.secret, claim),
        )
        with pytest.raises(ConditionFailed, match="used up"):
            joining.join(node.client_address, authority.pem, request)
        request.peer_address = "127.0.0.1:2"
        with pytest.raises(RaftberryError, match="proof"):
            joining.join(node.client_address, authority.pem, request)
    status = cluster.nodes[0].status(timeout_s=10)
    assert status is not None
    assert sorted(peer.name for peer in status.peers) == ["n1", "n2", "n3"]


def test_somebody_in_the_middle_is_noticed_by_the_fingerprint(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    fingerprint = parse_invite(cluster.invite).fingerprint
    false = Authority.create(ids_of(cluster.nodes[0])[0])
    real_pem = authority_of(cluster.nodes[0]).pem
    for shown_pem in (false.pem, real_pem):
        with man_in_the_middle(false, shown_pem) as (address, joined):
            try:
                authority_pem = fetch_authority(address, fingerprint)
            except WrongAuthority:
                assert shown_pem == false.pem
            else:
                # It passed the real CA on; but it has no certificate of it.
                assert authority_pem == real_pem
                with pytest.raises(RaftberryError):
                    joining.join(address, authority_pem, join_pb2.JoinRequest(name="victim"))
            assert joined == []


@contextmanager
def man_in_the_middle(authority: Authority, shown_pem: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answers as a node would, with certificates of its own CA; collects the joins it is sent."""
    joined: list[bytes] = []

    def take(request: bytes, _context: grpc.ServicerContext) -> bytes:
        joined.append(request)
        return b""

    def show(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return join_pb2.GetAuthorityResponse(authority_pem=shown_pem).SerializeToString()

    handlers = {
        "GetAuthority": grpc.unary_unary_rpc_method_handler(show),
        "Join": grpc.unary_unary_rpc_method_handler(take),
    }
    key_pem, certificate_pem = forged_pem(authority, ClusterId(1), MemberId(1), end=profile.NEVER)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("raftberry.v1.JoinService", handlers),)
    )
    credentials = grpc.ssl_server_credentials([(key_pem, certificate_pem + authority.pem)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}", joined
    finally:
        server.stop(None)


# Load


def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def send_raw(address: str, payload: bytes) -> None:
    """Bytes on a connection without TLS, and what comes until the other side closes it."""
    with socket.create_connection(split_address(address, what="x"), timeout=60) as raw:
        try:
            raw.sendall(payload)
            while raw.recv(65_536):
                pass
        except (ConnectionError, BrokenPipeError):
            # It was closed while we were speaking: that is what we want to see.
            return


def is_closed(connection: socket.socket) -> bool:
    """The other side has ended it."""
    connection.setblocking(False)
    try:
        while True:
            if connection.recv(65_536) == b"":
                return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


CONNECTIONS = int(os.environ.get("RAFTBERRY_ATTACK_CONNECTIONS", "3000"))
"""The longer form, by hand, takes 10,000."""

CLOSED_WITHIN_S = 100.0
"""Twenty times the nodes' own bound, for a machine that is busy; gRPC's default would be 120 s."""


def test_thousands_of_idle_connections_are_closed_and_hold_up_no_write(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    node = cluster.nodes[0]
    places = [split_address(node.client_address, what="x"), split_address(node.peer_address, what="x")]
    held = [socket.create_connection(places[number % 8 == 0], timeout=60) for number in range(CONNECTIONS)]
    try:
        meanwhile.await_more("while the connections are held")
        wait_for(
            f"{CONNECTIONS} idle connections to be closed",
            lambda: all(is_closed(one) for one in held),
            timeout_s=CLOSED_WITHIN_S,
        )
    finally:
        for connection in held:
            connection.close()


def test_a_byte_a_second_is_no_way_to_hold_a_connection(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    node = cluster.nodes[0]
    context = tls_context()
    context.load_cert_chain(cluster.nodes[1].keyring.node_file)
    slow = [
        context.wrap_socket(socket.create_connection(split_address(address, what="x"), timeout=60))
        for address in (node.client_address, node.peer_address)
        for _ in range(10)
    ]
    sent = 0

    def all_closed() -> bool:
        nonlocal sent
        sent += 1
        for connection in slow:
            try:
                connection.setblocking(True)
                connection.send(preface[sent - 1 : sent] if sent < len(preface) else b"\x00")
            except OSError:
                continue
        time.sleep(0.5)
        return all(is_closed(one) for one in slow)

    try:
        wait_for("slow connections to be closed", all_closed, timeout_s=CLOSED_WITHIN_S)
    finally:
        for connection in slow:
            connection.close()


def test_a_message_of_100_mb_is_refused_and_one_without_a_token_is_not_even_read(
    cluster: SecuredCluster, meanwhile: Meanwhile, writer_token: str
) -> None:
    message = bytes(100_000_000)
    with cluster.nodes[0].remote(send_bytes_max=200_000_000) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Write")
        # The client itself would send it: it is the node that refuses.
        with_token = code_of(lambda: call(message, timeout=120, metadata=bearer(writer_token)))
        without = code_of(lambda: call(message, timeout=120))
        small = code_of(lambda: call(message[:3_000_000], timeout=120))
    assert with_token is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (without, small) == (grpc.StatusCode.UNAUTHENTICATED,) * 2


def test_garbage_on_each_port_ends_the_connection_and_nothing_else(
    cluster: SecuredCluster, meanwhile: Meanwhile
) -> None:
    rng = random.Random(5)
    logged = {node.name: len(node.log) for node in cluster.nodes}
    context = tls_context()
    context.load_cert_chain(cluster.nodes[1].keyring.node_file)
    for node in cluster.nodes:
        for address in (node.client_address, node.peer_address, node.web_address):
            for size in (1, 100, 100_000):
                send_raw(address, rng.randbytes(size) + b"\r\n\r\n")
        for address in (node.client_address, node.peer_address):
            plain = socket.create_connection(split_address(address, what="x"), timeout=60)
            with context.wrap_socket(plain) as inside:
                try:
                    inside.sendall(rng.randbytes(100_000))
                    while inside.recv(65_536):
                        pass
                except OSError:
                    # Closed while we were speaking.
                    continue
    assert all(node.is_running for node in cluster.nodes)
    for node in cluster.nodes:
        said = node.log[logged[node.name] :]
        assert "Traceback" not in said
        assert " ERROR " not in said


def test_keys_of_a_node_are_readable_for_its_owner_alone(cluster: SecuredCluster) -> None:
    for node in cluster.nodes:
        folder = Keyring(node.data).path
        assert {file.stat().st_mode & 0o077 for file in [node.data, folder, *folder.iterdir()]} == {0}
        assert Path(node.socket.removeprefix("unix:")).stat().st_mode & 0o007 == 0
