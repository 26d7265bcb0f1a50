"""Numbered batches through StreamWrite, each applied once, whichever node is lost on the way.

Invariant: a batch leaves `_pending` only when it was acknowledged; until then it is sent again, with the same
producer and sequence, on every new stream. A feeder thread takes batches from the source, so that a sensor
keeps measuring while no node answers (up to `capacity` batches); gRPC's thread of the stream sends them; the
thread that iterates `acknowledgements` reads the answers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from appliance import errors, limits
from appliance.client import failures
from appliance.client.connection import Connection, may_try_elsewhere
from appliance.client.methods import STREAM_WRITE
from raftberry.v1 import reading_pb2

PAUSE_S_MIN: Final = 0.05
PAUSE_S_MAX: Final = 1.0
ANSWER_TIMEOUT_S: Final = 10.0
"""Without an answer for this long the stream is given up and the next endpoint tried."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings that are applied together, under one sequence of the producer."""

    sequence: int
    readings: Sequence[reading_pb2.Readings]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A batch that is on disk on a majority."""

    batch: Batch
    index: int
    endpoint: str
    is_duplicate: bool


class ResumingWriter:
    """Writes every batch of a source. One use only."""

    def __init__(
        self,
        connection: Connection,
        *,
        producer_id: str,
        capacity: int = limits.STREAM_IN_FLIGHT_MAX,
        give_up_s: float | None = None,
        on_trouble: Callable[[str], None],
    ) -> None:
        """give_up_s: how long to go on without any acknowledgement; None: for ever."""
        assert 0 < capacity <= limits.STREAM_IN_FLIGHT_MAX
        self._connection = connection
        self._producer_id = producer_id
        self._capacity = capacity
        self._give_up_s = give_up_s
        self._on_trouble = on_trouble
        self._changed = threading.Condition()
        self._pending: deque[Batch] = deque()
        self._acknowledged_count = 0
        self._is_source_done = False
        self._source_error: Exception | None = None
        self._stream_number = 0

    def acknowledgements(self, source: Iterable[Batch]) -> Generator[Acknowledgement, None, None]:
        """One for each batch, in order. Raises what the source raised, and refusals that will not go away."""
        feeder = threading.Thread(target=self._feed, args=(source,), name="feeder", daemon=True)
        feeder.start()
        pause_s = PAUSE_S_MIN
        progress_s = time.monotonic()
        while not self._is_finished():
            endpoint = self._connection.in_order()[0]
            try:
                for acknowledgement in self._one_stream(endpoint):
                    pause_s, progress_s = PAUSE_S_MIN, time.monotonic()
                    yield acknowledgement
            except errors.RaftberryError as error:
                is_late = self._give_up_s is not None and time.monotonic() - progress_s > self._give_up_s
                if is_late or not may_try_elsewhere(error, is_repeatable=True):
                    raise
                self._on_trouble(str(error))
                self._connection.forget(endpoint)
                self._connection.prefer_after(endpoint)
                time.sleep(pause_s)
                pause_s = min(PAUSE_S_MAX, pause_s * 2)
        if self._source_error is not None:
            raise self._source_error

    def _feed(self, source: Iterable[Batch]) -> None:
        try:
            for batch in source:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._pending) < self._capacity)
                    self._pending.append(batch)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - top of a thread: handed to the reader of acknowledgements
            self._source_error = error
        finally:
            with self._changed:
                self._is_source_done = True
                self._changed.notify_all()

    def _is_finished(self) -> bool:
        with self._changed:
            return self._is_source_done and not self._pending

    def _one_stream(self, endpoint: str) -> Iterator[Acknowledgement]:
        """Acknowledgements until the source is done or the stream fails."""
        channel = self._connection.ready_channel(endpoint)
        open_stream: grpc.StreamStreamMultiCallable[
            reading_pb2.StreamWriteRequest, reading_pb2.StreamWriteResponse
        ] = channel.stream_stream(
            STREAM_WRITE.path, STREAM_WRITE.request.SerializeToString, STREAM_WRITE.response.FromString
        )
        with self._changed:
            self._stream_number += 1
            number = self._stream_number
        call = open_stream(self._requests(number), metadata=self._connection.metadata)
        watchdog = _Watchdog(call.cancel, is_waiting=self._has_pending)
        try:
            for response in call:
                watchdog.feed()
                yield self._take(response, endpoint)
        except grpc.RpcError as error:
            if watchdog.has_bitten:
                raise failures.Unfinished(f"{endpoint}: no answer for {ANSWER_TIMEOUT_S:g} s") from error
            raise failures.from_call(error, endpoint) from error
        finally:
            watchdog.stop()
            with self._changed:
                self._stream_number += 1
                self._changed.notify_all()
            call.cancel()
        if not self._is_finished():
            raise failures.Unfinished(f"{endpoint}: the stream ended early")

    def _has_pending(self) -> bool:
        with self._changed:
            return bool(self._pending)

    def _requests(self, number: int) -> Iterator[reading_pb2.StreamWriteRequest]:
        """What one stream sends: all that is pending, then what comes. Ends when the stream is replaced."""
        with self._changed:
            next_count = self._acknowledged_count
        while True:
            batch = self._await_batch(number, next_count)
            if batch is None:
                return
            next_count += 1
            yield reading_pb2.StreamWriteRequest(
                readings=batch.readings, producer_id=self._producer_id, sequence=batch.sequence
            )

    def _await_batch(self, number: int, position: int) -> Batch | None:
        """The batch at this position of the whole source; None: none will come, or the stream is replaced."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stream_number != number
                    or position < self._acknowledged_count + len(self._pending)
                    or self._is_source_done
                )
            )
            offset = position - self._acknowledged_count
            if self._stream_number != number or offset >= len(self._pending):
                return None
            return self._pending[offset]

    def _take(self, response: reading_pb2.StreamWriteResponse, endpoint: str) -> Acknowledgement:
        if response.status.code:
            raise failures.from_status(response.status, endpoint)
        with self._changed:
            if not self._pending or self._pending[0].sequence != response.sequence:
                raise failures.Unfinished(f"{endpoint}: answered sequence {response.sequence} out of order")
            batch = self._pending.popleft()
            self._acknowledged_count += 1
            self._changed.notify_all()
        return Acknowledgement(batch, response.index, endpoint, response.duplicate)


class _Watchdog:
    """Cancels a stream that leaves batches unanswered: a stopped node keeps its connections open."""

    def __init__(self, bite: Callable[[], object], *, is_waiting: Callable[[], bool]) -> None:
        self.has_bitten = False
        self._bite = bite
        self._is_waiting = is_waiting
        self._fed_s = time.monotonic()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def feed(self) -> None:
        self._fed_s = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(ANSWER_TIMEOUT_S / 10):
            if not self._is_waiting():
                self.feed()
            elif time.monotonic() - self._fed_s > ANSWER_TIMEOUT_S:
                self.has_bitten = True
                self._bite()
                return
