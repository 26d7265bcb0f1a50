"""One lane we dial: a bounded queue of frames, the stream that carries them, dialling again.

Invariant: the bytes queued or sent that the peer has not reported as taken never exceed
in_flight_bytes_max, but for one larger frame that travels alone. A frame is sent once, on the connection
that was up when it was queued, or never: what a broken connection held is dropped.
Everything runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio

from appliance.peers.credentials import PeerCredentials
from appliance.peers.wire import (
    EXCHANGE,
    FRAME_BYTES_MAX,
    LANE_KEY,
    BadFrame,
    Lane,
    PeerAddress,
    PeerOptions,
    decode_response,
    encode_batch,
    open_channel,
)
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class LaneEvents:
    """What a lane calls. on_down follows each on_connected, never comes alone."""

    hello: Callable[[], peer_pb2.Frame]
    on_connected: Callable[[], None]
    on_down: Callable[[str], None]
    on_refused: Callable[[peer_pb2.Refusal], None]


class OutboundLane:
    """Dials one peer for one lane for as long as `run` runs."""

    def __init__(
        self,
        peer: PeerAddress,
        lane: Lane,
        events: LaneEvents,
        *,
        options: PeerOptions,
        credentials: PeerCredentials | None,
        rng: random.Random,
        gate: asyncio.Event | None = None,
    ) -> None:
        self._peer = peer
        self._lane = lane
        self._events = events
        self._options = options
        self._credentials = credentials
        self._rng = rng
        self._gate = gate
        self._kicked = asyncio.Event()
        self._waiting = asyncio.Event()
        self._queue: deque[bytes] = deque()
        self._pending_bytes = 0
        self._taken_bytes = 0
        self._last_failure = ""
        self._is_stopping = False
        self.connected = asyncio.Event()

    @property
    def pending_bytes(self) -> int:
        """Bytes the peer has not reported as taken: exact to credit_bytes."""
        return self._pending_bytes

    def send(self, frame: bytes) -> bool:
        """Queue an encoded frame; False when there is no connection or no room."""
        assert len(frame) <= FRAME_BYTES_MAX
        if not self.connected.is_set():
            return False
        fits = self._pending_bytes + len(frame) <= self._options.in_flight_bytes_max
        # Up to credit_bytes the peer may have taken without a word: that is an empty lane.
        if not fits and self._pending_bytes > self._options.credit_bytes:
            return False
        self._pending_bytes += len(frame)
        self._queue.append(frame)
        self._waiting.set()
        return True

    def dial_now(self) -> None:
        """The peer is there: cut a pause between two attempts short."""
        self._kicked.set()

    def stop(self) -> None:
        """Call before `run` is cancelled: gRPC may report a failed call where it was cancelled."""
        self._is_stopping = True

    async def run(self) -> None:
        """Dial, carry frames, dial again, until cancelled after `stop`."""
        delay_s = self._options.reconnect_delay_s_min
        while not self._is_stopping:
            if self._gate is not None:
                await self._gate.wait()
            self._kicked.clear()
            was_connected = await self._attempt()
            if self._is_stopping:
                return
            if was_connected:
                delay_s = self._options.reconnect_delay_s_min
            if await self._pause(delay_s * self._rng.uniform(0.5, 1.0)):
                delay_s = self._options.reconnect_delay_s_min
            else:
                delay_s = min(2 * delay_s, self._options.reconnect_delay_s_max)

    async def _pause(self, delay_s: float) -> bool:
        """True when dial_now ended it."""
        try:
            await asyncio.wait_for(self._kicked.wait(), delay_s)
        except TimeoutError:
            return False
        return True

    async def _attempt(self) -> bool:
        """One connection from dial to end; True if the peer accepted us."""
        was_connected = False
        reason = "stopped"
        try:
            channel = await open_channel(
                self._peer.address, self._options, self._credentials, self._peer.member_id
            )
            async with channel:
                stream = await self._introduce(channel)
                if stream is None:
                    return False
                was_connected = True
                self._set_connected()
                reason = await self._carry(stream)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, BadFrame, OSError) as error:
            reason = _describe(error)
        finally:
            if was_connected:
                self._set_down(reason)
        if not was_connected:
            self._log_failure(reason)
        return was_connected

    async def _introduce(self, channel: grpc.aio.Channel) -> Stream | None:
        """The stream once the peer has accepted our Hello; None when it refused."""
        hello = self._events.hello().SerializeToString()
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(EXCHANGE)
        stream = method(metadata=((LANE_KEY, self._lane.value),))
        async with asyncio.timeout(self._options.hello_timeout_s):
            await stream.write(encode_batch([hello]))
            data = await stream.read()
        if not isinstance(data, bytes):
            raise OSError(await _end_of(stream))
        response = decode_response(data)
        if not response.HasField("refusal"):
            return stream
        self._log_failure(f"refused our hello: {response.refusal.message}")
        self._events.on_refused(response.refusal)
        return None

    async def _carry(self, stream: Stream) -> str:
        """Write what is queued and read credit until the stream ends; why it ended."""
        writer = asyncio.create_task(self._write(stream))
        try:
            while True:
                data = await stream.read()
                if not isinstance(data, bytes):
                    return await _end_of(stream)
                self._credit(decode_response(data).taken_bytes)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, stream: Stream) -> None:
        try:
            while True:
                while not self._queue:
                    self._waiting.clear()
                    await self._waiting.wait()
                await stream.write(encode_batch(self._take_batch()))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The stream has ended: the reader sees the same, with the reason.
            stream.cancel()

    def _take_batch(self) -> list[bytes]:
        batch = [self._queue.popleft()]
        size_bytes = len(batch[0])
        while self._queue and size_bytes + len(self._queue[0]) <= self._options.batch_bytes:
            batch.append(self._queue.popleft())
            size_bytes += len(batch[-1])
        return batch

    def _credit(self, taken_bytes: int) -> None:
        newly = taken_bytes - self._taken_bytes
        if not 0 <= newly <= self._pending_bytes:
            raise BadFrame(f"credit for {newly} bytes while {self._pending_bytes} are on their way")
        self._taken_bytes = taken_bytes
        self._pending_bytes -= newly

    def _set_connected(self) -> None:
        self._taken_bytes = 0
        self._last_failure = ""
        self.connected.set()
        peer, lane = self._peer, self._lane.value
        log.info("connected to a peer: peer=%s address=%s lane=%s", peer.name, peer.address, lane)
        self._events.on_connected()

    def _set_down(self, reason: str) -> None:
        self.connected.clear()
        self._queue.clear()
        self._waiting.clear()
        self._pending_bytes = 0
        log.info("lost a peer: peer=%s lane=%s reason=%s", self._peer.name, self._lane.value, reason)
        self._events.on_down(reason)

    def _log_failure(self, reason: str) -> None:
        """Once for each change of the reason: an absent peer is dialled every second for hours."""
        if reason != self._last_failure:
            self._last_failure = reason
            peer, lane = self._peer, self._lane.value
            log.info("no link: peer=%s address=%s lane=%s reason=%s", peer.name, peer.address, lane, reason)


async def _end_of(stream: Stream) -> str:
    code = await stream.code()
    details = await stream.details()
    return f"{code.name}: {details}" if details else f"stream ended ({code.name})"


def _describe(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, TimeoutError):
        return "no answer to our hello in time"
    return str(error) or type(error).__name__
