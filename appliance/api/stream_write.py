"""StreamWrite: many requests in flight on one stream, one response each, in order.

Invariant: at most STREAM_IN_FLIGHT_MAX requests and STREAM_IN_FLIGHT_BYTES_MAX bytes of one stream wait for their
outcome; beyond it nothing is read, so the client's own flow control holds it back. A refused request gets its
status in its response and ends nothing. When the client leaves, what is in flight goes on and nobody waits for it.
No task: a stream goes on when a request has come, an outcome is there, or a response has left. Loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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


@dataclass(slots=True)
class _InFlight:
    """A request and its outcome; None: it is awaited."""

    sequence: int
    size_bytes: int
    outcome: WriteOutcome | Exception | None = None


class StreamWriter:
    """The state of one StreamWrite call. fail ends the call for what is no answer to a request."""

    def __init__(self, node: Node, call: Context, fail: Callable[[Exception], None]) -> None:
        self._node, self._call, self._fail = node, call, fail
        self._caller = present_caller()
        self._in_flight: deque[_InFlight] = deque()
        self._in_flight_bytes = 0
        self._is_reading = self._is_sending = self._is_read = self._has_left = False

    def start(self) -> None:
        self._call.on_abandon = self._leave
        self._read_on()

    def _read_on(self) -> None:
        if not (self._is_reading or self._is_read or self._is_full()):
            self._is_reading = True
            self._call.receive(self._received)

    def _received(self, raw: bytes | None) -> None:
        self._is_reading = False
        if raw is EOF:
            self._is_read = True
            self._answer()
            return
        try:
            request = self._submit(raw)
        except Exception as error:  # noqa: BLE001 the top of a call (style rule 11)
            self._fail(error)
            return
        self._in_flight.append(request)
        self._in_flight_bytes += request.size_bytes
        if request.outcome is not None:
            self._answer()
        self._read_on()

    def _submit(self, raw: bytes) -> _InFlight:
        try:
            operation = write_operation(raw, self._node.wall_ns)
            if self._caller.is_limited:
                self._caller.check()
                check_write(self._caller, operation)
            request = _InFlight(operation.sequence, len(raw))
            self._node.submit(operation, partial(self._told, request), deadline_ns=None)
        except NotApplied as error:
            return _InFlight(sequence_of(raw), len(raw), error)
        return request

    def _told(self, request: _InFlight, outcome: WriteOutcome | Exception) -> None:
        request.outcome = outcome
        if not self._has_left:
            self._answer()
        elif isinstance(outcome, Fatal):
            log.error("write failed after its client left error=%r", outcome)

    def _is_full(self) -> bool:
        return (
            len(self._in_flight) >= limits.STREAM_IN_FLIGHT_MAX
            or self._in_flight_bytes >= STREAM_IN_FLIGHT_BYTES_MAX
        )

    def _answer(self) -> None:
        """The oldest request, once its outcome is there and the response before it has left."""
        if self._is_sending:
            return
        if not self._in_flight:
            if self._is_read:
                self._call.finish()
            return
        request = self._in_flight[0]
        if request.outcome is None:
            return
        self._in_flight.popleft()
        self._in_flight_bytes -= request.size_bytes
        try:
            response = _response(request.sequence, request.outcome)
        except Exception as error:  # noqa: BLE001 the top of a call (style rule 11)
            self._fail(error)
            return
        self._is_sending = True
        self._call.send(response.SerializeToString(), self._sent)
        self._read_on()

    def _sent(self, is_sent: bool) -> None:
        self._is_sending = False
        if is_sent:
            self._answer()
        else:
            self._leave()

    def _leave(self) -> None:
        """The client is gone: what is in flight goes on, and nobody waits for it."""
        self._is_read = self._has_left = True
        self._in_flight.clear()
        self._call.finish()


def _response(sequence: int, outcome: WriteOutcome | Exception) -> reading_pb2.StreamWriteResponse:
    """Raises what is no answer to a request."""
    if isinstance(outcome, NotApplied | OutcomeUnknown):
        return reading_pb2.StreamWriteResponse(sequence=sequence, status=failures.status_of(outcome))
    if isinstance(outcome, Exception):
        raise outcome
    return reading_pb2.StreamWriteResponse(
        sequence=sequence, index=outcome.index, term=outcome.term, duplicate=outcome.duplicate
    )
