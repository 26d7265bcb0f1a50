"""Clients that hold streams: StreamWrite with many requests in flight, and watches that resume on another node."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import grpc

from raftberry.v1 import key_value_pb2, key_value_pb2_grpc, reading_pb2, reading_pb2_grpc
from tests.cluster.clients import Client, World, readings, verdict_of, verdict_of_status
from tests.cluster.recorder import APPLIED, UNKNOWN, Done, Recorder, Watched, now_ns
from tests.process.writers import Watchdog

IN_FLIGHT: Final = 8
REST_S: Final = 0.05


class StreamProducer(Client):
    """Sends again, on the next stream, what a lost stream left open; stops with all of it acknowledged."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self._open: deque[tuple[int, int, int, reading_pb2.StreamWriteRequest]] = deque()
        """(sequence, identity, begun, request) of what is not acknowledged."""

    def run(self) -> None:
        try:
            while not self.is_stopping or (self._open and time.monotonic() < self._end):
                self.act()
                time.sleep(REST_S)
            for _, identity, begun, _ in self._open:
                self.recorder.done(Done(identity, "stream", "", begun, now_ns(), UNKNOWN))
        except BaseException as failure:  # noqa: BLE001 - raised again by finish()
            self.failure = failure
        finally:
            self.client.close()

    def act(self) -> None:
        slots: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(max(IN_FLIGHT - len(self._open), 0)):
            slots.put(True)
        call = reading_pb2_grpc.ReadingServiceStub(self.client.channel).StreamWrite(
            self._requests(slots, list(self._open))
        )
        watchdog = Watchdog(call)
        try:
            for response in call:
                watchdog.touch()
                if not self._take(response):
                    return
                slots.put(True)
        except grpc.RpcError as error:
            assert verdict_of(error)[1] != "INTERNAL", f"{error}"
        finally:
            watchdog.stop()
            call.cancel()
            slots.put(False)
            self.client.rotate()

    def _take(self, response: reading_pb2.StreamWriteResponse) -> bool:
        sequence, identity, begun, _ = self._open[0]
        assert response.sequence == sequence, (
            f"{self.name}: response {response.sequence}, expected {sequence}"
        )
        if response.status.code:
            reason = verdict_of_status(response.status)[1]
            assert reason not in ("INTERNAL", "SEQUENCE_REUSED", "SEQUENCE_TOO_OLD"), f"{response.status}"
            return False
        self._open.popleft()
        self.recorder.done(
            Done(identity, "stream", "", begun, now_ns(), APPLIED, response.index, response.duplicate)
        )
        return True

    def _requests(
        self, slots: queue.SimpleQueue[bool], again: list[tuple[int, int, int, Any]]
    ) -> Iterator[reading_pb2.StreamWriteRequest]:
        for _, _, _, request in again:
            yield request
        while slots.get() and not self.is_stopping:
            identity = self.recorder.new_identity()
            self.sequence += 1
            self.recorder.names(identity, (self.name, self.sequence))
            request = reading_pb2.StreamWriteRequest(
                readings=readings(self.rng, identity), producer_id=self.name, sequence=self.sequence
            )
            self._open.append((self.sequence, identity, now_ns(), request))
            time.sleep(self.rng.random() * self.world.think_s)
            yield request


class Watcher(Client):
    """Follows all readings, or all keys, from where it began; after a break it resumes behind its last index."""

    def __init__(self, world: World, number: int, kind: str) -> None:
        super().__init__(world, number)
        self.name = f"watcher-{kind}-{number}"
        self.watched = Watched(self.name, kind)
        self._has_begun = False
        self._call: Any = None

    def begin_stop(self) -> None:
        super().begin_stop()

    def stop_at(self, index: int, *, timeout_s: float) -> None:
        """Ends once everything up to index was seen."""
        end = time.monotonic() + timeout_s
        while self.watched.last_index < index and self.failure is None:
            assert time.monotonic() < end, f"{self.name} saw {self.watched.last_index} of {index}"
            time.sleep(0.05)
        self.begin_stop()
        if self._call is not None:
            self._call.cancel()
        self.finish()

    def act(self) -> None:
        after = {"after_index": self.watched.last_index} if self._has_begun else {}
        if self.watched.kind == "readings":
            stub = reading_pb2_grpc.ReadingServiceStub(self.client.channel)
            self._call = stub.Watch(reading_pb2.WatchRequest(**after))
        else:
            keys = key_value_pb2_grpc.KeyValueServiceStub(self.client.channel)
            request = key_value_pb2.KeyValueServiceWatchRequest(is_prefix=True, **after)
            self._call = keys.Watch(request)
        watchdog = PatientWatchdog(self._call)
        self.watched.stream_count += 1
        try:
            self._follow(watchdog)
        except grpc.RpcError as error:
            assert verdict_of(error)[1] != "INTERNAL", f"{error}"
        finally:
            watchdog.stop()
            self._call.cancel()
            self.client.rotate()
        time.sleep(REST_S)

    def _follow(self, watchdog: Watchdog) -> None:
        parts: list[object] = []
        for message in self._call:
            watchdog.touch()
            if not self._has_begun:
                assert message.progress, "the first message of a watch from now says where it begins"
                self._has_begun = True
                self.watched.start_index = self.watched.last_index = message.index
                continue
            parts.extend(_content(message, self.watched.kind))
            if not message.index:
                continue
            if parts:
                self.watched.events.append((message.index, tuple(parts)))
                parts = []
            self.watched.last_index = message.index


class PatientWatchdog(Watchdog):
    """An idle watch says nothing for some seconds, and its node may be stopped: then the clock tells."""

    TIMEOUT_S = 12.0

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            if time.monotonic() - self._touched > self.TIMEOUT_S:
                self._call.cancel()
                return


def _content(message: Any, kind: str) -> list[object]:
    if kind == "readings":
        return [
            (each.sensor, each.metric, tuple(each.time_unix_nano), tuple(each.int_value))
            for each in message.readings
        ]
    return [
        (event.kind, event.key_value.key, event.key_value.mod_revision, event.key_value.value)
        for event in message.events
    ]


def start_streams(world: World, *, producers: int, watchers: int) -> tuple[list[Client], list[Watcher]]:
    writing: list[Client] = [StreamProducer(world, number) for number in range(producers)]
    watching = [Watcher(world, number, kind) for number in range(watchers) for kind in ("readings", "keys")]
    for client in (*writing, *watching):
        client.start()
    return writing, watching


def note_watched(recorder: Recorder, watchers: list[Watcher]) -> None:
    recorder.watched.extend(watcher.watched for watcher in watchers)
