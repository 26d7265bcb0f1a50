"""The bounds of both ports are in force in gRPC's core as this package drives it: each, made small, ends something.

Names that the core does not know are passed over in silence, so that each is shown to do what it is set for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import grpc
import pytest
from grpc import aio

from appliance.api import server as client_port
from appliance.peers import wire
from appliance.rpc import Call, Server

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
MAX_CONCURRENT_STREAMS: Final = 3
PATIENCE_S: Final = 60.0

PORTS = {"client": client_port._OPTIONS, "peer": tuple(wire.server_options(wire.PeerOptions()))}


async def echo(request: bytes, _call: Call) -> bytes:
    return request


@asynccontextmanager
async def serving(port: str, **small: int) -> AsyncIterator[int]:
    """A port with the options of that of a node, but for those named here; where it listens."""
    options: dict[str, Any] = dict(PORTS[port])
    for name, value in small.items():
        full = next(known for known in options if known.endswith(f".{name}"))
        options[full] = value
    handler = grpc.method_handlers_generic_handler(
        "test", {"call": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = Server((handler,), options=tuple(options.items()))
    where = server.listen("127.0.0.1:0")
    server.start()
    try:
        yield where
    finally:
        await server.stop(None)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of HTTP/2 (RFC 9113, section 4.1), until the other side closes it; TimeoutError."""
    with connection, connection.makefile("rb") as stream:
        try:
            while head := stream.read(9):
                yield head[3], stream.read(int.from_bytes(head[:3], "big"))
        except ConnectionError:
            return


def until_closed(connections: Sequence[socket.socket]) -> list[list[int]]:
    return [[kind for kind, _ in frames(one)] for one in connections]


def greeted(port: int) -> socket.socket:
    connection = connect(port)
    connection.sendall(PREFACE)
    return connection


@pytest.mark.parametrize("port", PORTS)
async def test_who_connects_and_says_nothing_is_gone_after_the_handshakes_time(port: str) -> None:
    async with serving(port, server_handshake_timeout_ms=100) as where:
        assert PREFACE[:24] not in await asyncio.to_thread(lambda: until_closed([connect(where)]))


@pytest.mark.parametrize("port", PORTS)
async def test_one_connection_too_many_is_closed(port: str) -> None:
    async with serving(port, max_allowed_incoming_connections=2) as where:
        held = [await asyncio.to_thread(greeted, where) for _ in range(2)]
        for one in held:
            await asyncio.to_thread(lambda one=one: one.recv(1, socket.MSG_PEEK))
        assert SETTINGS not in (await asyncio.to_thread(lambda: until_closed([greeted(where)])))[0]
        for one in held:
            one.close()


async def test_a_connection_without_a_call_is_told_to_go() -> None:
    async with serving("client", max_connection_idle_ms=100) as where:
        (kinds,) = await asyncio.to_thread(lambda: until_closed([greeted(where)]))
    assert GOAWAY in kinds


async def test_a_client_is_told_how_many_calls_it_may_have_at_once() -> None:
    async with serving("client", max_concurrent_streams=7) as where:
        kind, payload = await asyncio.to_thread(lambda: next(frames(greeted(where))))
    assert kind == SETTINGS
    settings = dict(struct.iter_unpack(">HI", payload))
    assert settings[MAX_CONCURRENT_STREAMS] == 7


async def test_a_quiet_peer_is_asked_whether_it_is_there() -> None:
    async with serving("peer", keepalive_time_ms=100) as where:
        assert await asyncio.to_thread(lambda: PING in (kind for kind, _ in frames(greeted(where))))


@pytest.mark.parametrize("port", PORTS)
async def test_a_machine_that_acknowledges_nothing_is_given_up_by_the_kernel(port: str) -> None:
    """keepalive_timeout is TCP_USER_TIMEOUT; a process that only hangs is given up after gRPC's own minute."""
    async with serving(port, keepalive_timeout_ms=12_345) as where:
        client = await asyncio.to_thread(greeted, where)
        with client:
            await asyncio.to_thread(client.recv, 1)
            accepted = accepted_from(client)
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_345


def accepted_from(client: socket.socket) -> socket.socket:
    """The other end, in this process: a second descriptor of it."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found = socket.socket(fileno=os.dup(int(name)))
            with suppress(OSError):
                if found.getpeername()[1:2] == client.getsockname()[1:2]:
                    return found
            found.close()
    raise AssertionError("the server has no socket of this client")


@pytest.mark.parametrize("port", PORTS)
async def test_a_message_above_the_bound_is_refused_and_one_at_it_is_not(port: str) -> None:
    async with (
        serving(port, max_receive_message_length=1_000) as where,
        aio.insecure_channel(f"127.0.0.1:{where}") as channel,
    ):
        call: Any = channel.unary_unary("/test/call")
        assert len(await call(bytes(1_000))) == 1_000
        with pytest.raises(aio.AioRpcError) as refused:
            await call(bytes(1_001))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
