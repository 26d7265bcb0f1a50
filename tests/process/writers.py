"""The four writers of the fault test, each a thread, and the checker of what they were promised.

Invariant: a writer goes on to its next operation only when the present one is acknowledged. What it has
written is therefore known exactly, and check() compares it with what each node holds: nothing missing,
nothing twice, nothing else.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import grpc

from raftberry.v1 import key_value_pb2, reading_pb2, reading_pb2_grpc
from tests.process.client import (
    ATTEMPT_TIMEOUT_S,
    RotatingClient,
    check_retryable,
    key_of,
    readings_of,
    write_request,
)
from tests.process.nodes import Cluster, wait_for

FIRST_TIME: Final = 1_750_000_000_000_000_000
KEYS: Final = 10
STREAM_IN_FLIGHT: Final = 8
WRITES_BETWEEN: Final = 30
LAST_WRITE_TIMEOUT_S: Final = 90.0
"""How long after the end of the test the operation in hand may still take."""


class Writer(threading.Thread, ABC):
    """Writes unique values until stop(); acknowledged counts operations, ack_times are time.monotonic()."""

    def __init__(self, name: str, endpoints: Sequence[str], *, first: int) -> None:
        super().__init__(name=name, daemon=True)
        self.client = RotatingClient(endpoints, first=first)
        self.acknowledged = 0
        self.ack_times: list[float] = []
        self.failure: BaseException | None = None
        self._stopping = threading.Event()
        self._end = float("inf")

    def stop(self) -> None:
        """Ends the writer after the operation in hand; a failure of the thread is raised here."""
        self._end = time.monotonic() + LAST_WRITE_TIMEOUT_S
        self._stopping.set()
        self.join(LAST_WRITE_TIMEOUT_S + 10)
        assert not self.is_alive(), f"{self.name} does not end"
        if self.failure is not None:
            raise AssertionError(f"writer {self.name} failed") from self.failure

    def run(self) -> None:
        try:
            self.write_all()
        except BaseException as failure:  # noqa: BLE001 - raised again by stop()
            self.failure = failure
        finally:
            self.client.close()

    def write_all(self) -> None:
        while not self._stopping.is_set():
            self.write_one(self.acknowledged + 1)
            self.note_acknowledged()

    def note_acknowledged(self) -> None:
        self.acknowledged += 1
        self.ack_times.append(time.monotonic())

    def deadline(self) -> float:
        """When to give up on an operation: far away while the test runs."""
        return min(self._end, time.monotonic() + 120)

    def write_one(self, number: int) -> None:
        """Writes operation `number`, from 1; returns when it is acknowledged. Or override write_all."""
        raise AssertionError(f"{self.name} does not say how to write operation {number}")

    @abstractmethod
    def check(self, channel: grpc.Channel) -> None:
        """Asserts that the node behind channel holds exactly what was acknowledged."""


class TimedWriter(Writer):
    """Readings with times, unary."""

    def write_one(self, number: int) -> None:
        request = write_request(
            "faults", self.name, [FIRST_TIME + number], [number], producer_id=self.name, sequence=number
        )
        self.client.write(request, end=self.deadline())

    def check(self, channel: grpc.Channel) -> None:
        expected = [(FIRST_TIME + number, float(number)) for number in range(1, self.acknowledged + 1)]
        assert readings_of(channel, "faults", self.name, is_local=True) == expected


class UntimedWriter(Writer):
    """Readings without times: a write that counted twice would be there twice."""

    def write_one(self, number: int) -> None:
        request = write_request("faults", self.name, [], [number], producer_id=self.name, sequence=number)
        self.client.write(request, end=self.deadline())

    def check(self, channel: grpc.Channel) -> None:
        found = Counter(value for _, value in readings_of(channel, "faults", self.name, is_local=True))
        assert found == Counter(float(number) for number in range(1, self.acknowledged + 1))


class KeyWriter(Writer):
    """Puts: the version of a key counts them."""

    def key(self, number: int) -> str:
        return f"{self.name}/{number % KEYS}"

    def write_one(self, number: int) -> None:
        request = key_value_pb2.PutRequest(
            key=self.key(number), value=str(number).encode(), producer_id=self.name, sequence=number
        )
        self.client.put(request, end=self.deadline())

    def check(self, channel: grpc.Channel) -> None:
        numbers = range(1, self.acknowledged + 1)
        puts = Counter(self.key(number) for number in numbers)
        last = {self.key(number): str(number).encode() for number in numbers}
        for key, count in puts.items():
            found = key_of(channel, key, is_local=True)
            assert (found.version, found.value) == (count, last[key]), key


class StreamWriter(Writer):
    """Readings with times through StreamWrite, several in flight; sends again what a lost stream left open."""

    _sent = 0

    def write_all(self) -> None:
        while not self._stopping.is_set() or self._sent > self.acknowledged:
            assert time.monotonic() < self._end, "no acknowledgement on any stream"
            try:
                self._write_stream()
            except grpc.RpcError as error:
                check_retryable(error)
                self.client.rotate()
                time.sleep(0.01)

    def _write_stream(self) -> None:
        slots: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(STREAM_IN_FLIGHT):
            slots.put(True)
        stub = reading_pb2_grpc.ReadingServiceStub(self.client.channel)
        call = stub.StreamWrite(self._requests(slots, self.acknowledged + 1))
        watchdog = Watchdog(call)
        try:
            for response in call:
                watchdog.touch()
                if response.status.code in _TRANSIENT_CODES:
                    return
                assert response.status.code == 0, f"sequence {response.sequence} refused: {response.status}"
                assert response.sequence == self.acknowledged + 1, "responses out of order"
                self.note_acknowledged()
                slots.put(True)
        finally:
            watchdog.stop()
            call.cancel()
            slots.put(False)
            self.client.rotate()

    def _requests(
        self, slots: queue.SimpleQueue[bool], first: int
    ) -> Iterator[reading_pb2.StreamWriteRequest]:
        number = first
        while slots.get() and (not self._stopping.is_set() or number <= self._sent):
            self._sent = max(self._sent, number)
            request = write_request(
                "faults", self.name, [FIRST_TIME + number], [number], producer_id=self.name, sequence=number
            )
            yield reading_pb2.StreamWriteRequest(
                readings=request.readings, producer_id=self.name, sequence=number
            )
            number += 1

    def check(self, channel: grpc.Channel) -> None:
        assert self._sent == self.acknowledged
        expected = [(FIRST_TIME + number, float(number)) for number in range(1, self.acknowledged + 1)]
        assert readings_of(channel, "faults", self.name, is_local=True) == expected


_TRANSIENT_CODES: Final = {
    code.value[0]
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
    )
}


class Watchdog:
    """Cancels a stream on which nothing came for ATTEMPT_TIMEOUT_S: its node is stopped."""

    def __init__(self, call: grpc.Call) -> None:
        self._call = call
        self._touched = time.monotonic()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def touch(self) -> None:
        self._touched = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            if time.monotonic() - self._touched > ATTEMPT_TIMEOUT_S:
                self._call.cancel()
                return


def start_writers(endpoints: Sequence[str]) -> list[Writer]:
    """One of each kind, each beginning at another node."""
    writers: list[Writer] = [
        TimedWriter("timed", endpoints, first=0),
        UntimedWriter("untimed", endpoints, first=1),
        KeyWriter("key", endpoints, first=2),
        StreamWriter("stream", endpoints, first=0),
    ]
    for writer in writers:
        writer.start()
    return writers


def wait_more(writers: Sequence[Writer], what: str) -> None:
    """Each writer is acknowledged WRITES_BETWEEN writes from here on."""
    goals = {writer: writer.acknowledged + WRITES_BETWEEN for writer in writers}
    wait_for(f"writes {what}", lambda: all(writer.acknowledged >= goal for writer, goal in goals.items()))


def check_all(cluster: Cluster, writers: Sequence[Writer], *, begun: float) -> str:
    """End the writers: what was acknowledged is on every node, once, and states are equal. For people: how many."""
    ended = time.monotonic()
    for writer in writers:
        writer.stop()
        assert writer.acknowledged > 0, f"{writer.name} wrote nothing"
    cluster.wait_equal_state()
    for node in cluster:
        for writer in writers:
            writer.check(node.channel)
    count = sum(writer.acknowledged for writer in writers)
    gap_s = longest_gap_s(writers, start=begun, end=ended)
    return f"{count} writes acknowledged, each of them once on every node; longest gap {gap_s:.2f} s"


def longest_gap_s(writers: Sequence[Writer], *, start: float, end: float) -> float:
    """The longest time in which no write of any writer was acknowledged."""
    times = sorted([start, end, *(moment for writer in writers for moment in writer.ack_times)])
    inside = [moment for moment in times if start <= moment <= end]
    return max(later - earlier for earlier, later in itertools.pairwise(inside))
