"""The port itself, on loopback: taken, bounded, closed."""

from __future__ import annotations

import asyncio
import signal

import pytest
from starlette.types import Receive, Scope, Send

from appliance.errors import ConfigurationError
from appliance.web import server
from appliance.web.server import WebServer

REQUEST = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_a_port_in_use_is_a_configuration_error_that_says_what_to_do() -> None:
    first = WebServer(hello, "127.0.0.1:0")
    await first.start()
    with pytest.raises(ConfigurationError, match=r"cannot be opened.*choose another with --web-address"):
        await WebServer(hello, f"127.0.0.1:{first.port}").start()
    await first.stop()


async def test_the_nodes_signals_stay_the_nodes() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    web = WebServer(hello, "127.0.0.1:0")
    await web.start()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    await web.stop()


async def test_one_connection_too_many_is_closed_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)
    web = WebServer(hello, "127.0.0.1:0")
    await web.start()
    async with asyncio.timeout(60):
        streams = [await asyncio.open_connection("127.0.0.1", web.port) for _ in range(2)]
        for reader, writer in streams:
            writer.write(REQUEST)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(REQUEST)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readuntil(b"ok")
        streams[0][1].write(REQUEST)
        assert (await streams[0][0].readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    await web.stop()


async def test_a_head_without_end_is_refused() -> None:
    web = WebServer(hello, "127.0.0.1:0")
    await web.start()
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * (server.HEADERS_BYTES_MAX + 1))
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
    await web.stop()


async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_S", 0.05)
    web = WebServer(hello, "127.0.0.1:0")
    await web.start()
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET / HT")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    await web.stop()


async def test_stop_ends_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_S", 0.05)

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.Event().wait()

    web = WebServer(endless, "127.0.0.1:0")
    await web.start()
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(REQUEST)
        await reader.readuntil(b"first")
        await web.stop()
        await reader.read()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", web.port)
