"""Why no node answers: each cause has its own words. And what a port that is not a node's client port is called."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.client.reasons import reason_of
from appliance.model import ClusterId, MemberId
from appliance.security.keyring import Authority
from appliance.security.profile import pem_of, pem_of_key
from tests.cli.conftest import Raftberry
from tests.cli.fake_server import FakeNode

CLUSTER = ClusterId(0xAB)


def issued(authority: Authority) -> tuple[bytes, bytes]:
    """A node's key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(
        key.public_key(),
        cluster_id=CLUSTER,
        member_id=MemberId(1),
        name="node-1",
        hosts=["localhost"],
        now=datetime.now(UTC),
    )
    return pem_of_key(key), pem_of(certificate)


@contextmanager
def secured_node(authority: Authority) -> Iterator[str]:
    """The address of a server that speaks TLS and knows no method."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([issued(authority)]))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def web_server() -> Iterator[str]:
    """Answers whatever comes as a web server does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(4_096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=30)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_port_where_nobody_listens_is_said_to_refuse(raftberry: Raftberry) -> None:
    address = f"127.0.0.1:{unused_port()}"
    result = raftberry("latest", "-e", address)
    assert result.status == 3
    assert f"no node answers at {address}: refused: nothing listens there" in result.err
    assert "or name others with --endpoint" in result.err
    assert f"{address}: refused" in raftberry("status", "-e", address).err


def test_each_of_several_endpoints_has_its_own_reason(raftberry: Raftberry, tmp_path: Path) -> None:
    result = raftberry("latest", "-e", f"127.0.0.1:{unused_port()}", "-e", f"unix:{tmp_path}/no.sock")
    assert "refused: nothing listens there" in result.err
    assert f"; at unix:{tmp_path}/no.sock: there is no such socket" in result.err


def test_a_name_that_does_not_resolve_is_said_so(raftberry: Raftberry) -> None:
    assert "the name does not resolve" in raftberry("latest", "-e", "nosuch.invalid:7440").err


def test_plaintext_to_a_secured_node_asks_for_its_ca(raftberry: Raftberry) -> None:
    with secured_node(Authority.create(CLUSTER)) as address:
        result = raftberry("latest", "-e", address)
    assert result.status == 3
    assert "a secured node (give --ca or a token)" in result.err


def test_the_ca_of_another_cluster_is_named_as_the_cause(raftberry: Raftberry, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.create(CLUSTER).pem)
    with secured_node(Authority.create(CLUSTER)) as address:
        result = raftberry("latest", "-e", address, "--ca", str(other))
    assert "its certificate is not of the CA" in result.err


def test_encryption_towards_a_plaintext_node_is_named_as_the_cause(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority.create(CLUSTER).pem)
    result = raftberry("latest", "-e", nodes[0].address, "--ca", str(ca))
    assert "does not speak TLS: a node's web port, a node without encryption" in result.err


def test_a_web_port_is_told_from_a_client_port(raftberry: Raftberry) -> None:
    with web_server() as address:
        assert "speaks no gRPC: a node's web port" in raftberry("latest", "-e", address).err


@pytest.mark.parametrize(
    ("details", "is_encrypted", "words"),
    [
        (
            "last error: FAILED_PRECONDITION: connect failed: error: Permission denied",
            False,
            "permission denied",
        ),
        ("last error: UNKNOWN: ipv4:10.0.0.9:7440: Failed: No route to host", False, "no route to this host"),
        ("DNS resolution failed for pi-9:7440: C-ares status", False, "the name does not resolve"),
        ("last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", True, "a node's peer port"),
        ("Cannot check peer: missing selected ALPN property.", True, "a node's web port"),
        ("failed to connect; last error: something new", False, "something new"),
        ("", False, "no connection"),
    ],
)
def test_what_grpc_says_is_put_in_words(details: str, is_encrypted: bool, words: str) -> None:
    assert words in reason_of(details, is_encrypted=is_encrypted)


@pytest.mark.parametrize(
    "content", [b"timestamp,value\n1,2\n", b"\xff\xfe", b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"]
)
def test_a_ca_that_is_no_certificate_is_refused_before_anything_is_sent(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "garbage.csv"
    file.write_bytes(content)
    result = raftberry("latest", "--ca", str(file))
    assert result.status == 2
    assert f"{file} holds no certificate in PEM" in result.err
    assert nodes[0].calls == []


def test_what_only_the_local_socket_serves_is_to_be_typed_on_the_node(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    for command in (("invite",), ("join", "pi-1.local", "rbj1_x")):
        result = raftberry(*command, "-e", nodes[0].address)
        assert result.status == 1
        assert f"{nodes[0].address}: type this on the node itself" in result.err
        assert "LocalService" not in result.err


def test_a_port_that_knows_no_such_method_is_said_to_be_no_client_port(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    result = raftberry("policy", "list", "-e", nodes[0].address)
    assert result.status == 1
    assert f"{nodes[0].address} is no client port of a node" in result.err


def test_doctor_does_not_tell_to_start_a_node_that_may_run(raftberry: Raftberry) -> None:
    with secured_node(Authority.create(CLUSTER)) as address:
        result = raftberry("doctor", "-e", address, "-o", "json")
    (node,) = [row for row in json.loads(result.out) if row["what"] == "node"]
    assert "a secured node (give --ca or a token)" in node["found"]
    assert node["advice"] == "if it does not run: systemctl start raftberry"
