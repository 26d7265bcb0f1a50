"""One lane we dial: the stream that carries frames, how much may be under way on it, dialling again.

Invariant: the bytes sent that the peer has not reported as taken never exceed
in_flight_bytes_max, but for one larger frame that travels alone. A frame is sent once, on the connection
that was up then, or never: what a broken connection held is dropped.
Everything runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc.aio

from appliance.peers.credentials import PeerCredentials
from appliance.peers.dialling import dial
from appliance.peers.lanes import Outgoing
from appliance.peers.wire import (
    FRAME_BYTES_MAX,
    BadFrame,
    Lane,
    PeerAddress,
    PeerOptions,
    decode_response,
)
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)


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
        self._stream: Outgoing | None = None
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
        """An encoded frame; False when there is no connection or no room."""
        assert len(frame) <= FRAME_BYTES_MAX
        if self._stream is None:
            return False
        fits = self._pending_bytes + len(frame) <= self._options.in_flight_bytes_max
        # Up to credit_bytes the peer may have taken without a word: that is an empty lane.
        if not fits and self._pending_bytes > self._options.credit_bytes:
            return False
        self._pending_bytes += len(frame)
        self._stream.send(frame)
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
        stream: Outgoing | None = None
        try:
            async with asyncio.timeout(self._options.hello_timeout_s):
                stream = await dial(self._peer, self._lane, self._options, self._credentials)
                responses = await self._introduce(stream)
            if responses is None:
                return False
            was_connected = True
            self._set_connected(stream)
            reason = await self._carry(stream, responses)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, BadFrame, OSError) as error:
            reason = _describe(error)
        finally:
            if was_connected:
                self._set_down(reason)
            if stream is not None:
                await stream.close()
        if not was_connected:
            self._log_failure(reason)
        return was_connected

    async def _introduce(self, stream: Outgoing) -> Sequence[bytes] | None:
        """What came behind the verdict, if the peer has accepted our Hello; None: it has not."""
        stream.send(self._events.hello().SerializeToString())
        responses = await stream.read()
        if responses is None:
            raise OSError(await stream.why_ended())
        response = decode_response(responses[0])
        if response.end_reason:
            raise OSError(response.end_reason)
        if not response.HasField("refusal"):
            return responses[1:]
        self._log_failure(f"refused our hello: {response.refusal.message}")
        self._events.on_refused(response.refusal)
        return None

    async def _carry(self, stream: Outgoing, responses: Sequence[bytes] | None) -> str:
        """Read credit until the stream ends, beginning with what has come; why it ended."""
        while responses is not None:
            for data in responses:
                response = decode_response(data)
                if response.end_reason:
                    return response.end_reason
                self._credit(response.taken_bytes)
            responses = await stream.read()
        return await stream.why_ended()

    def _credit(self, taken_bytes: int) -> None:
        newly = taken_bytes - self._taken_bytes
        if not 0 <= newly <= self._pending_bytes:
            raise BadFrame(f"credit for {newly} bytes while {self._pending_bytes} are on their way")
        self._taken_bytes = taken_bytes
        self._pending_bytes -= newly

    def _set_connected(self, stream: Outgoing) -> None:
        self._stream, self._taken_bytes = stream, 0
        self._last_failure = ""
        self.connected.set()
        peer, lane = self._peer, self._lane.value
        log.info("connected to a peer: peer=%s address=%s lane=%s", peer.name, peer.address, lane)
        self._events.on_connected()

    def _set_down(self, reason: str) -> None:
        self._stream = None
        self._kicked.clear()
        self.connected.clear()
        self._pending_bytes = 0
        log.info("lost a peer: peer=%s lane=%s reason=%s", self._peer.name, self._lane.value, reason)
        self._events.on_down(reason)

    def _log_failure(self, reason: str) -> None:
        """Once for each change of the reason: an absent peer is dialled every second for hours."""
        if reason != self._last_failure:
            self._last_failure = reason
            peer, lane = self._peer, self._lane.value
            log.info("no link: peer=%s address=%s lane=%s reason=%s", peer.name, peer.address, lane, reason)


def _describe(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, TimeoutError):
        return "no answer to our hello in time"
    return str(error) or type(error).__name__
