"""One lane a peer dialled: its Hello, our verdict, its frames.

Invariant: a frame is delivered only while its stream is the newest of its member and lane and the link is
up; until the link is up the stream is not read, so that the sender's bound holds it back.
Everything runs on the loop, in the task of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Final

from appliance.model import MemberId
from appliance.peers.lanes import Incoming
from appliance.peers.wire import BadFrame, decode_frame
from appliance.rpc import CallOver
from raftberry.internal.v1 import peer_pb2

TURN_NS: Final = 2_000_000
"""Frames that came together are handed on for so long, then everything else on the loop has its turn."""

LEFT: Final = "the peer ended the stream"


class InboundLane:
    """The receiving end of one stream, from its Hello on."""

    def __init__(self, stream: Incoming, hello: peer_pb2.Frame, *, credit_bytes: int) -> None:
        self.member_id = MemberId(hello.from_member)
        self.name = hello.hello.name
        self.lane = stream.lane
        self.end_reason = ""
        self._stream = stream
        self._credit_bytes = credit_bytes
        self._taken_bytes = 0
        self._credited_bytes = 0
        self._has_left = False
        """The peer; frames of it may still wait, and are delivered only if the link was up all the time."""

        self._receiver: asyncio.Task[str] | None = None

    async def answer(self, refusal: peer_pb2.Refusal | None) -> None:
        """The first response: the verdict."""
        await self._stream.answer(peer_pb2.ExchangeResponse(refusal=refusal))

    async def receive(self, up: asyncio.Event, on_frame: Callable[[peer_pb2.Frame], None]) -> str:
        """Deliver frames until the stream ends or `end` is called; why it ended."""
        self._stream.tell_end(partial(self._left, up))
        if self.end_reason:
            return self.end_reason
        self._receiver = asyncio.create_task(self._receive(up, on_frame))
        try:
            await asyncio.wait([self._receiver])
        finally:
            self._receiver.cancel()
        if self.end_reason:
            return self.end_reason
        return self._receiver.result()

    def end(self, reason: str) -> None:
        """Nothing is delivered any more from here on."""
        self.end_reason = reason
        if self._receiver is not None:
            self._receiver.cancel()

    def _left(self, up: asyncio.Event) -> None:
        self._has_left = True
        if not up.is_set():
            self.end(LEFT)

    async def _receive(self, up: asyncio.Event, on_frame: Callable[[peer_pb2.Frame], None]) -> str:
        while True:
            if not up.is_set():
                if self._has_left:
                    return LEFT
                await up.wait()
            frames = await self._stream.read()
            if frames is None:
                return LEFT
            turn_ends_ns = monotonic_ns() + TURN_NS
            for encoded in frames:
                frame = decode_frame(encoded, sender=self.member_id)
                if not up.is_set():
                    if self._has_left:
                        return LEFT
                    await up.wait()
                if self.end_reason:
                    return self.end_reason
                on_frame(frame)
                self._taken_bytes += len(encoded)
                if monotonic_ns() > turn_ends_ns:
                    await asyncio.sleep(0)
                    turn_ends_ns = monotonic_ns() + TURN_NS
            if self._taken_bytes - self._credited_bytes >= self._credit_bytes:
                self._credited_bytes = self._taken_bytes
                await self._stream.answer(peer_pb2.ExchangeResponse(taken_bytes=self._taken_bytes))


async def read_hello(stream: Incoming, *, timeout_s: float) -> peer_pb2.Frame:
    """The first frame of a stream; BadFrame when it is none, or does not come, CallOver when the peer has left."""
    try:
        async with asyncio.timeout(timeout_s):
            frames = await stream.read()
    except TimeoutError as error:
        raise BadFrame("no Hello in time") from error
    if frames is None:
        raise CallOver
    if len(frames) != 1:
        raise BadFrame(f"{len(frames)} frames where one Hello was expected")
    hello = decode_frame(frames[0], sender=None)
    if hello.WhichOneof("kind") != "hello" or not hello.from_member:
        raise BadFrame("a first frame that is no Hello")
    return hello
