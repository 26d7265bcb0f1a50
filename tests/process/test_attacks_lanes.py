"""The attacker's list once more, on the connections that nodes have among themselves (peers/dialling.py).

Fixtures and helpers are those of test_attacks.py; test_attacks_ablation.py takes the defences out.
"""

from __future__ import annotations

import pickle
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from appliance.addresses import split_address
from appliance.model import member_host
from appliance.peers.wire import FRAME_BYTES_MAX, Lane, prelude_of
from appliance.security import profile
from appliance.security.keyring import Authority
from raftberry.internal.v1 import peer_pb2
from tests.peers.harness import framed
from tests.process import test_attacks as attacks
from tests.process.secured import SecuredCluster, SecuredNode
from tests.process.test_attacks import (
    Bomb,
    Meanwhile,
    authority_of,
    client_pem,
    cluster,
    forged_pem,
    ids_of,
    is_closed,
    meanwhile,
    own_pem,
    writer_token,
)

__all__ = ["cluster", "meanwhile", "writer_token"]

PRELUDE = prelude_of(Lane.LIVE)


def lane_to(node: SecuredNode) -> socket.socket:
    """A connection whose prelude was taken, before TLS."""
    plain = socket.create_connection(split_address(node.peer_address, what="x"), timeout=60)
    plain.sendall(PRELUDE)
    answer = b""
    while len(answer) < len(PRELUDE):
        answer += plain.recv(len(PRELUDE) - len(answer))
    assert answer == PRELUDE
    return plain


def trusting(node: SecuredNode, pem: tuple[bytes, bytes] | None, folder: Path) -> ssl.SSLContext:
    """Of who dials node and shows pem: (key, certificate)."""
    context = ssl.create_default_context(cadata=authority_of(node).pem.decode())
    if pem is not None:
        file = folder / "shown.pem"
        file.write_bytes(b"".join(pem))
        context.load_cert_chain(file)
    return context


def hello_of(node: SecuredNode, claimed: SecuredNode) -> bytes:
    """As that of gRPC's, which is the one frame of a batch."""
    return peer_pb2.FrameBatch.FromString(attacks.hello_of(node, claimed)).frames[0]


def answers(
    node: SecuredNode, context: ssl.SSLContext, *frames: bytes
) -> Sequence[peer_pb2.ExchangeResponse] | None:
    """What the node says until it ends the connection, or to the first frame; None: it does not even take TLS."""
    with lane_to(node) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=member_host(*ids_of(node))) as inside:
                inside.sendall(framed(*frames))
                head = inside.recv(4)
                if len(head) < 4:
                    return ()
                return [peer_pb2.ExchangeResponse.FromString(inside.recv(struct.unpack(">I", head)[0]))]
        except OSError:
            return None


def is_refused(responses: Sequence[peer_pb2.ExchangeResponse] | None) -> bool:
    return responses is not None and [one.end_reason.partition(":")[0] for one in responses] == ["refused"]


def test_without_a_certificate_a_lane_says_nothing(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    for node in cluster.nodes:
        said = answers(node, trusting(node, None, tmp_path), hello_of(node, cluster.nodes[1]))
        assert not said


def test_a_certificate_of_another_ca_opens_no_lane(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    node, victim = cluster.nodes[:2]
    cluster_id, member_id = ids_of(victim)
    pem = forged_pem(Authority.create(cluster_id), cluster_id, member_id, end=profile.NEVER)
    assert not answers(node, trusting(node, pem, tmp_path), hello_of(node, victim))


def test_an_expired_certificate_opens_no_lane(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    node, victim = cluster.nodes[:2]
    pem = forged_pem(authority_of(node), *ids_of(victim), end=datetime(2020, 1, 1, tzinfo=UTC))
    assert not answers(node, trusting(node, pem, tmp_path), hello_of(node, victim))


def test_a_certificate_that_is_no_members_opens_no_lane(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    node, victim = cluster.nodes[:2]
    context = trusting(node, client_pem(authority_of(node)), tmp_path)
    assert is_refused(answers(node, context, hello_of(node, victim)))


def test_a_member_opens_no_lane_in_the_name_of_another(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    node, mallory, victim = cluster.nodes
    context = trusting(node, own_pem(mallory), tmp_path)
    assert is_refused(answers(node, context, hello_of(node, victim)))


def test_tls_below_1_3_opens_no_lane(cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path) -> None:
    node, other = cluster.nodes[:2]
    context = trusting(node, own_pem(other), tmp_path)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not answers(node, context, b"no frame")


def test_a_pickle_in_a_lane_is_never_loaded(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    marker = tmp_path / "loaded"
    payload = pickle.dumps(Bomb(str(marker)))
    node, mallory = cluster.nodes[:2]
    said = answers(node, trusting(node, own_pem(mallory), tmp_path), payload)
    assert said
    assert said[0].end_reason.startswith("bad frame:")
    assert not marker.exists()


def test_a_length_without_its_message_holds_no_memory(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    node, mallory = cluster.nodes[:2]
    context = trusting(node, own_pem(mallory), tmp_path)
    with (
        lane_to(node) as plain,
        context.wrap_socket(plain, server_hostname=member_host(*ids_of(node))) as inside,
    ):
        inside.sendall(struct.pack(">I", FRAME_BYTES_MAX + 1))
        said = inside.recv(1_000)
    assert b"bad frame: a message of" in said


def test_a_byte_a_second_is_no_way_to_hold_a_lane(
    cluster: SecuredCluster, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    """In the prelude, in the handshake of TLS, and in the first frame."""
    node, mallory = cluster.nodes[:2]
    place = split_address(node.peer_address, what="x")
    context, host = trusting(node, own_pem(mallory), tmp_path), member_host(*ids_of(node))
    slow = [
        *(socket.create_connection(place, timeout=60) for _ in range(5)),
        *(lane_to(node) for _ in range(5)),
        *(context.wrap_socket(lane_to(node), server_hostname=host) for _ in range(5)),
    ]
    said = (PRELUDE, b"\x16\x03\x01\x02\x00" + bytes(500), struct.pack(">I", 500) + bytes(500))
    sent = 0

    def all_closed() -> bool:
        nonlocal sent
        for number, connection in enumerate(slow):
            try:
                connection.setblocking(True)
                connection.send(said[number // 5][sent : sent + 1])
            except OSError:
                continue
        sent += 1
        time.sleep(0.5)
        return all(is_closed(one) for one in slow)

    try:
        attacks.wait_for("slow lanes to be closed", all_closed, timeout_s=attacks.CLOSED_WITHIN_S)
    finally:
        for connection in slow:
            connection.close()
