"""The two ends of a lane, whatever carries it: our own connections, or gRPC for peers that do not know these yet.

Invariant: a lane carries encoded Frames one way and encoded ExchangeResponses the other.
Frames come one by one on our own connections, and as FrameBatches through gRPC.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import unquote

import grpc
import grpc.aio

from appliance.peers.messages import MessageStream
from appliance.peers.wire import BATCH_BYTES, LANE_KEY, BadFrame, Lane, encode_batch, split_batch
from appliance.rpc import Call
from raftberry.internal.v1 import peer_pb2

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


def origin_of(call: Call) -> str:
    """HOST:PORT of who made a call on the peer port: the relay's end of gRPC's socket is named for it (port.py)."""
    return unquote(call.peer().rpartition("/")[2])


class Outgoing(Protocol):
    """The end that dialled."""

    def send(self, frame: bytes) -> None: ...

    async def read(self) -> Sequence[bytes] | None:
        """Responses; None: it has ended. BadFrame, AioRpcError."""
        ...

    async def why_ended(self) -> str: ...

    async def close(self) -> None: ...


class Incoming(Protocol):
    """The end that was dialled."""

    @property
    def lane(self) -> Lane:
        """BadFrame if it names none."""
        ...

    def peer(self) -> str: ...

    def auth_context(self) -> Mapping[str, Sequence[bytes]]: ...

    async def read(self) -> Sequence[bytes] | None:
        """Frames; None: the peer ended it. BadFrame."""
        ...

    def tell_end(self, tell: Callable[[], None]) -> None:
        """tell is called when the peer has left, though nobody reads."""
        ...

    async def answer(self, response: peer_pb2.ExchangeResponse) -> None: ...

    async def end(self, status: grpc.StatusCode, reason: str) -> None:
        """reason empty: there is nothing to say."""
        ...


class OutgoingMessages:
    """On a connection of our own."""

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream
        self.send, self.read = stream.send, stream.read

    async def why_ended(self) -> str:
        return self._stream.end_reason

    async def close(self) -> None:
        self._stream.close()


class IncomingMessages:
    """On a connection of our own."""

    def __init__(self, stream: MessageStream, lane: Lane) -> None:
        self._stream, self.lane = stream, lane
        self.peer, self.auth_context = stream.peer, stream.auth_context
        self.read, self.tell_end = stream.read, stream.tell_end

    async def answer(self, response: peer_pb2.ExchangeResponse) -> None:
        self._stream.send(response.SerializeToString())

    async def end(self, _status: grpc.StatusCode, reason: str) -> None:
        if reason:
            self._stream.send(peer_pb2.ExchangeResponse(end_reason=reason).SerializeToString())
        self._stream.close()


class OutgoingCall:
    """Through gRPC."""

    def __init__(self, channel: grpc.aio.Channel, stream: Stream) -> None:
        self._channel, self._stream = channel, stream
        self._queue: deque[bytes] = deque()
        self._waiting = asyncio.Event()
        self._writer = asyncio.create_task(self._write())

    def send(self, frame: bytes) -> None:
        self._queue.append(frame)
        self._waiting.set()

    async def read(self) -> Sequence[bytes] | None:
        data = await self._stream.read()
        return (data,) if isinstance(data, bytes) else None

    async def why_ended(self) -> str:
        code, details = await self._stream.code(), await self._stream.details()
        return f"{code.name}: {details}" if details else f"stream ended ({code.name})"

    async def close(self) -> None:
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        await self._channel.close()

    async def _write(self) -> None:
        try:
            while True:
                while not self._queue:
                    self._waiting.clear()
                    await self._waiting.wait()
                await self._stream.write(encode_batch(self._take_batch()))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The stream has ended: the reader sees the same, with the reason.
            self._stream.cancel()

    def _take_batch(self) -> list[bytes]:
        batch = [self._queue.popleft()]
        size_bytes = len(batch[0])
        while self._queue and size_bytes + len(self._queue[0]) <= BATCH_BYTES:
            batch.append(self._queue.popleft())
            size_bytes += len(batch[-1])
        return batch


class IncomingCall:
    """Through gRPC."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.auth_context = call.auth_context

    def peer(self) -> str:
        return origin_of(self._call)

    @property
    def lane(self) -> Lane:
        for key, value in self._call.invocation_metadata() or ():
            if key == LANE_KEY and value in (Lane.LIVE.value, Lane.BULK.value):
                return Lane(value)
        raise BadFrame("a stream that names no lane")

    def tell_end(self, _tell: Callable[[], None]) -> None:
        """The call's task is cancelled then."""

    async def read(self) -> Sequence[bytes] | None:
        data = await self._call.read()
        return split_batch(data) if isinstance(data, bytes) else None

    async def answer(self, response: peer_pb2.ExchangeResponse) -> None:
        await self._call.write(response.SerializeToString())

    async def end(self, status: grpc.StatusCode, reason: str) -> None:
        if reason:
            await self._call.abort(status, reason)
