"""StreamWrite: many requests in flight on one stream, one response each, in order.

Invariant: at most STREAM_IN_FLIGHT_MAX requests and STREAM_IN_FLIGHT_BYTES_MAX bytes of one stream wait for their
outcome; beyond it nothing is read, so the client's own flow control holds it back. A refused request gets its
status in its response and ends nothing. When the client leaves, what is in flight goes on and nobody waits for it.
One reader (the call's task) and one writer task a stream, on the loop thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from appliance import limits
from appliance.api import failures
from appliance.api.access import check_write, present_caller
from appliance.api.calls import Context, log
from appliance.api.port import Node
from appliance.api.write_request import sequence_of, write_operation
from appliance.errors import Fatal, NotApplied, OutcomeUnknown
from appliance.node.outcome import WriteOutcome
from appliance.rpc import EOF
from raftberry.v1 import reading_pb2

STREAM_IN_FLIGHT_BYTES_MAX: Final = 2 * limits.MESSAGE_BYTES_MAX
"""A stream holds two messages of the largest size in flight, or many small ones."""


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A request whose outcome is awaited; outcome is the refusal itself if it never went further."""

    sequence: int
    size_bytes: int
    outcome: asyncio.Future[WriteOutcome] | NotApplied


class StreamWriter:
    """The state of one StreamWrite call."""

    def __init__(self, node: Node, context: Context) -> None:
        self._node = node
        self._context = context
        self._caller = present_caller()
        self._in_flight: deque[_InFlight] = deque()
        self._in_flight_bytes = 0
        self._arrived = asyncio.Event()
        self._answered = asyncio.Event()
        self._is_read = False

    async def run(self) -> None:
        writer = asyncio.create_task(self._write_responses(), name="stream-write-responses")
        try:
            await self._read_requests(writer)
            await writer
        finally:
            writer.cancel()
            for request in self._in_flight:
                if isinstance(request.outcome, asyncio.Future):
                    request.outcome.add_done_callback(_forget)

    async def _read_requests(self, writer: asyncio.Task[None]) -> None:
        while not writer.done():
            raw = await self._context.read()
            if raw is EOF:
                break
            request = self._submit(raw)
            self._in_flight.append(request)
            self._in_flight_bytes += request.size_bytes
            self._arrived.set()
            while self._is_full() and not writer.done():
                self._answered.clear()
                await self._answered.wait()
        self._is_read = True
        self._arrived.set()

    def _submit(self, raw: bytes) -> _InFlight:
        try:
            operation = write_operation(raw, self._node.wall_ns)
            if self._caller.is_limited:
                self._caller.check()
                check_write(self._caller, operation)
            return _InFlight(operation.sequence, len(raw), self._node.write(operation, deadline_ns=None))
        except NotApplied as error:
            return _InFlight(sequence_of(raw), len(raw), error)

    def _is_full(self) -> bool:
        return (
            len(self._in_flight) >= limits.STREAM_IN_FLIGHT_MAX
            or self._in_flight_bytes >= STREAM_IN_FLIGHT_BYTES_MAX
        )

    async def _write_responses(self) -> None:
        try:
            while await self._has_next():
                request = self._in_flight[0]
                response = await _response(request)
                self._in_flight.popleft()
                self._in_flight_bytes -= request.size_bytes
                self._answered.set()
                await self._context.write(response)
        finally:
            self._answered.set()

    async def _has_next(self) -> bool:
        while not self._in_flight:
            if self._is_read:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True


async def _response(request: _InFlight) -> reading_pb2.StreamWriteResponse:
    if isinstance(request.outcome, NotApplied):
        return _refusal(request, request.outcome)
    if not request.outcome.done():
        # wait() leaves the future alone when this call is cancelled: it is the node's.
        await asyncio.wait((request.outcome,))
    try:
        outcome = request.outcome.result()
    except (NotApplied, OutcomeUnknown) as error:
        return _refusal(request, error)
    return reading_pb2.StreamWriteResponse(
        sequence=request.sequence, index=outcome.index, term=outcome.term, duplicate=outcome.duplicate
    )


def _refusal(request: _InFlight, error: NotApplied | OutcomeUnknown) -> reading_pb2.StreamWriteResponse:
    return reading_pb2.StreamWriteResponse(sequence=request.sequence, status=failures.status_of(error))


def _forget(outcome: asyncio.Future[WriteOutcome]) -> None:
    """Takes the result of a request whose client has left, so that asyncio does not report it as lost."""
    if not outcome.cancelled() and isinstance(error := outcome.exception(), Fatal):
        log.error("write failed after its client left error=%r", error)
