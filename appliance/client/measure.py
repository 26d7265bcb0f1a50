"""How long calls take, and how many a second: closed loops over a connection, each client its own thread.

Invariant: only answered calls count; the first refusal ends a measurement and is raised, for a figure made of errors
would be worse than none. Says too how much of one core the measuring process itself used: near 100% it is the limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import grpc

from appliance import errors, limits
from appliance.client import failures
from appliance.client.connection import Connection
from appliance.client.methods import STREAM_WRITE, WATCH
from raftberry.v1 import reading_pb2

EVENT_TIMEOUT_S: Final = 30.0

IS_LIMIT_SHARE: Final = 0.8
"""Python threads share one core: from this share of it on a figure is the client's, not the cluster's."""


@dataclass(slots=True)
class Measured:
    """latencies_s: of each answered call, in no order. items: what the calls moved (readings, events)."""

    seconds: float = 0.0
    items: int = 0
    cpu_share: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    def per_second(self) -> float:
        return self.items / self.seconds if self.seconds else 0.0

    def quantile_ms(self, quantile: float) -> float:
        """Nearest rank; 0 without calls."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000 if ordered else 0.0

    @property
    def is_client_limited(self) -> bool:
        return self.cpu_share >= IS_LIMIT_SHARE


class _Run:
    """Threads that work until the time is over, and the first of their errors."""

    def __init__(self, seconds: float) -> None:
        self.measured = Measured()
        self._lock = threading.Lock()
        self._error: errors.RaftberryError | None = None
        self._began_s, self._cpu_s = time.perf_counter(), time.process_time()
        self.end_s = self._began_s + seconds

    @property
    def is_over(self) -> bool:
        return self._error is not None or time.perf_counter() >= self.end_s

    def note(self, latencies_s: list[float], items: int) -> None:
        with self._lock:
            self.measured.latencies_s += latencies_s
            self.measured.items += items

    def guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except errors.RaftberryError as error:
            self._error = self._error or error

    def finish(self, threads: list[threading.Thread]) -> Measured:
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            # Interrupted, perhaps while they start: no call may begin after this, behind the cleaning up.
            self.end_s = 0.0
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._error is not None:
            raise self._error
        self.measured.seconds = time.perf_counter() - self._began_s
        self.measured.cpu_share = (time.process_time() - self._cpu_s) / self.measured.seconds
        return self.measured


def measure_calls(call: Callable[[int, int], int], *, clients: int, seconds: float) -> Measured:
    """call(client, number) makes one call and returns how many items it moved; each client calls without pause."""
    run = _Run(seconds)

    def one(client: int) -> None:
        latencies_s: list[float] = []
        items = number = 0
        try:
            while not run.is_over:
                began_s = time.perf_counter()
                items += call(client, number)
                latencies_s.append(time.perf_counter() - began_s)
                number += 1
        finally:
            run.note(latencies_s, items)

    return run.finish(
        [threading.Thread(target=run.guarded, args=(lambda n=client: one(n),)) for client in range(clients)]
    )


def measure_stream(
    connection: Connection,
    endpoint: str,
    message: Callable[[int], reading_pb2.StreamWriteRequest],
    *,
    in_flight: int,
    seconds: float,
    items_per_message: int,
    messages_max: int,
) -> Measured:
    """One StreamWrite with in_flight messages on their way; message(number) makes one."""
    assert 0 < in_flight <= limits.STREAM_IN_FLIGHT_MAX
    run = _Run(seconds)
    slots, sent_s = threading.Semaphore(in_flight), list[float]()

    def requests() -> Iterator[reading_pb2.StreamWriteRequest]:
        number = 0
        while not run.is_over and number < messages_max:
            slots.acquire()
            sent_s.append(time.perf_counter())
            yield message(number)
            number += 1

    method: grpc.StreamStreamMultiCallable[reading_pb2.StreamWriteRequest, reading_pb2.StreamWriteResponse]
    method = connection.ready_channel(endpoint).stream_stream(
        STREAM_WRITE.path, STREAM_WRITE.request.SerializeToString, STREAM_WRITE.response.FromString
    )

    def one() -> None:
        latencies_s: list[float] = []
        call = method(requests(), metadata=connection.metadata)
        try:
            for response in call:
                slots.release()
                if response.status.code:
                    raise failures.from_status(response.status, endpoint)
                latencies_s.append(time.perf_counter() - sent_s[len(latencies_s)])
        except grpc.RpcError as error:
            raise failures.from_call(error, endpoint) from error
        finally:
            call.cancel()
            slots.release()
            run.note(latencies_s, len(latencies_s) * items_per_message)

    return run.finish([threading.Thread(target=run.guarded, args=(one,))])


def measure_watch(
    connection: Connection,
    endpoint: str,
    request: reading_pb2.WatchRequest,
    write: Callable[[int], None],
    *,
    events: int,
) -> Measured:
    """From the begin of each write(number) to its event at one watcher, one after the other."""
    arrived, began_s, subscribed = threading.Semaphore(0), time.perf_counter(), threading.Event()
    measured, cpu_s = Measured(), time.process_time()
    method: grpc.UnaryStreamMultiCallable[reading_pb2.WatchRequest, reading_pb2.WatchResponse]
    method = connection.ready_channel(endpoint).unary_stream(
        WATCH.path, WATCH.request.SerializeToString, WATCH.response.FromString
    )
    call = method(request, metadata=connection.metadata)

    def read() -> None:
        try:
            call.initial_metadata()
            subscribed.set()
            for response in call:
                for _ in response.readings:
                    arrived.release()
        except grpc.RpcError:
            # Cancelled at the end, or the node went: the writer waits in vain and says so.
            return

    threading.Thread(target=read, daemon=True).start()
    subscribed.wait(EVENT_TIMEOUT_S)
    try:
        for number in range(events):
            write_s = time.perf_counter()
            write(number)
            if not arrived.acquire(timeout=EVENT_TIMEOUT_S):
                raise failures.Unfinished(
                    f"{endpoint}: a watch saw nothing of a write for {EVENT_TIMEOUT_S:g} s"
                )
            measured.latencies_s.append(time.perf_counter() - write_s)
    finally:
        call.cancel()
    measured.items, measured.seconds = events, time.perf_counter() - began_s
    measured.cpu_share = (time.process_time() - cpu_s) / measured.seconds
    return measured
