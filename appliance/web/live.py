"""/api/v1/live: server-sent events with what all nodes show of themselves, as it happens.

Invariant: a page costs one bounded queue (node/observing.py), and a slow one loses the oldest and is told so. A line
that says nothing every KEEP_ALIVE_S shows both sides that the other still lives.
Source: HTML Living Standard, section 9.2.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from appliance.node.observing import Observation, Observer
from appliance.web.port import Facts, Node, Observing, describe
from appliance.web.session import Sessions

KEEP_ALIVE_S: Final = 15.0
RETRY_MS: Final = 1_000


async def get_cluster(request: Request) -> Response:
    """This node's own status: what a script wants, and what a page shows before the first event."""
    node: Node = request.app.state.node
    facts: Facts = request.app.state.facts
    return JSONResponse({"node": node.name, "status": describe(node.status(), facts)})


async def get_live(request: Request) -> Response:
    """Ends when its reader's token does: the page then asks who it is, and shows the login."""
    observing: Observing = request.app.state.observing
    sessions: Sessions = request.app.state.sessions
    observer = observing.observe()
    return _EventStream(_lines(observer, request.app.state.node.name, lambda: sessions.still_allows(request)))


class _EventStream(Response):
    """Sends lines until they end or the page is gone. Starlette's own would load anyio's backend: 6 MiB of memory."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
        )
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        try:
            async for line in self._lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._lines.aclose()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        # The end of a request without a body.
        pass


async def _lines(
    observer: Observer, name: str, is_allowed: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    yield f"retry: {RETRY_MS}\n{_event('hello', {'node': name})}".encode()
    observations = aiter(observer)
    upcoming: asyncio.Task[Observation] | None = None
    try:
        while is_allowed():
            upcoming = upcoming or asyncio.ensure_future(anext(observations))
            done, _ = await asyncio.wait({upcoming}, timeout=KEEP_ALIVE_S)
            if not done:
                yield b": still here\n\n"
                continue
            observation, upcoming = upcoming.result(), None
            yield _event("observation", _object(observation, observer.missed_count)).encode()
    except StopAsyncIteration:
        # The node stops.
        return
    finally:
        if upcoming is not None:
            upcoming.cancel()
        await observer.aclose()


def _object(observation: Observation, queue_missed_count: int) -> dict[str, Any]:
    return {
        "node": observation.node,
        "sent_ms": observation.sent_unix_nano / 1e6,
        "received_ms": observation.received_unix_nano / 1e6,
        "status": observation.status,
        "events": list(observation.events),
        "missed_count": observation.missed_count + queue_missed_count,
    }


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
