"""The stream of events: what a page gets, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

from starlette.types import Message

from appliance.consensus import EventLog
from appliance.node.observing import Observing
from appliance.web.live import _EventStream, _lines
from tests.node.harness import FakeClock


def observing() -> Observing:
    clock = FakeClock()
    return Observing("node-1", lambda: {"term": 3}, EventLog(clock.wall_ns), clock)


def parse(line: bytes) -> tuple[str, dict[str, object]]:
    """(event, data); a stream may begin with its retry time."""
    fields = dict(each.split(": ", 1) for each in line.decode().strip().split("\n"))
    return fields["event"], json.loads(fields["data"])


async def take(lines: AsyncGenerator[bytes, None]) -> bytes:
    async with asyncio.timeout(60):
        return await anext(lines)


async def test_a_page_hears_whose_page_it_is_and_then_what_the_nodes_say() -> None:
    hub = observing()
    lines = _lines(hub.observe(), "node-1", lambda: True)
    assert parse(await take(lines)) == ("hello", {"node": "node-1"})
    kind, said = parse(await take(lines))
    assert (kind, said["node"], said["status"]) == ("observation", "node-1", {"term": 3})
    hub.close()
    await lines.aclose()


async def test_the_stream_ends_with_the_token_behind_it() -> None:
    hub, answers = observing(), iter([True, False])
    lines = [line async for line in _lines(hub.observe(), "node-1", lambda: next(answers))]
    assert [parse(line)[0] for line in lines] == ["hello", "observation"]
    assert not hub._observers
    hub.close()


async def test_the_stream_ends_with_the_node() -> None:
    hub = observing()
    lines = _lines(hub.observe(), "node-1", lambda: True)
    await take(lines)
    hub.close()
    async with asyncio.timeout(60):
        rest = [line async for line in lines]
    assert len(rest) <= 2
    assert not hub._observers


async def test_the_stream_ends_when_the_page_is_gone() -> None:
    hub, sent, is_gone = observing(), [], asyncio.Event()
    response = _EventStream(_lines(hub.observe(), "node-1", lambda: True))

    async def receive() -> Message:
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:
            is_gone.set()

    async with asyncio.timeout(60):
        await response({"type": "http"}, receive, send)
    assert [message["type"] for message in sent[:3]] == ["http.response.start", *["http.response.body"] * 2]
    assert (b"content-type", b"text/event-stream; charset=utf-8") in sent[0]["headers"]
    assert not [name for name, _ in sent[0]["headers"] if name == b"content-length"]
    assert not hub._observers
    hub.close()
