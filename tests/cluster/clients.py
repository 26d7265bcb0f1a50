"""Clients of a run: producers of readings, key-value clients with conditions, readers. They record, and judge nothing.

Invariant: what a client was not told to be void is never sent again without a producer and sequence (simulation's
workload does the same); every value is unique, and is the number of its operation.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from raftberry.v1 import key_value_pb2, key_value_pb2_grpc, reading_pb2, reading_pb2_grpc
from tests.cluster.recorder import APPLIED, NOT_APPLIED, UNKNOWN, Done, LocalRead, Read, Recorder, now_ns
from tests.process.client import RotatingClient

ATTEMPT_TIMEOUT_S: Final = 2.0
LAST_OPERATION_S: Final = 120.0
"""How long after the end of the run the operation in hand may still take."""

REGISTERS: Final = ("r0", "r1", "r2", "r3")
KEYS: Final = ("k0", "k1", "k2", "k3")
SERIES: Final = (("cellar", "temperature"), ("cellar", "humidity"), ("roof", "wind"))
FIRST_TIME: Final = 1_790_000_000_000_000_000

Lives = Callable[[], dict[str, tuple[str, int]]]
"""Which process serves an address now: (node, pid)."""


@dataclass(frozen=True, slots=True)
class World:
    """What the clients of one run share."""

    endpoints: Sequence[str]
    recorder: Recorder
    lives: Lives
    think_s: float


def verdict_of(error: grpc.RpcError) -> tuple[str, str]:
    """(NOT_APPLIED or OUTCOME_UNKNOWN, reason) as the node says; unknown if it says nothing."""
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return verdict_of_status(status_pb2.Status.FromString(raw))


def verdict_of_status(status: status_pb2.Status) -> tuple[str, str]:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.metadata["outcome"], info.reason
    return "OUTCOME_UNKNOWN", ""


class Client(threading.Thread, ABC):
    def __init__(self, world: World, number: int) -> None:
        super().__init__(name=f"{type(self).__name__.lower()}-{number}", daemon=True)
        self.world, self.recorder = world, world.recorder
        self.rng = random.Random(f"{self.name}")
        self.client = RotatingClient(world.endpoints, first=number)
        self.sequence = 0
        self.failure: BaseException | None = None
        self._stopping = threading.Event()
        self._end = float("inf")

    def begin_stop(self) -> None:
        self._end = time.monotonic() + LAST_OPERATION_S
        self._stopping.set()

    def finish(self) -> None:
        self.join(LAST_OPERATION_S + 30)
        assert not self.is_alive(), f"{self.name} does not end"
        if self.failure is not None:
            raise AssertionError(f"client {self.name} failed") from self.failure

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def run(self) -> None:
        try:
            while not self.is_stopping:
                self.act()
                self._stopping.wait(self.rng.random() * self.world.think_s)
        except BaseException as failure:  # noqa: BLE001 - raised again by finish()
            self.failure = failure
        finally:
            self.client.close()

    @abstractmethod
    def act(self) -> None:
        """One operation after the other."""

    def call(self, stub_class: Any, method: str, request: Any) -> Any:
        return getattr(stub_class(self.client.channel), method)(request, timeout=ATTEMPT_TIMEOUT_S)

    def write(self, kind: str, key: str, stub_class: Any, method: str, request: Any, identity: int) -> Any:
        """Bring one operation to its end, over as many attempts as are safe; the response, or None."""
        begun, is_once = now_ns(), bool(request.sequence)
        if is_once:
            self.recorder.names(identity, (request.producer_id, request.sequence))
        is_in_doubt = False
        while True:
            try:
                response = self.call(stub_class, method, request)
            except grpc.RpcError as error:
                outcome, reason = verdict_of(error)
                is_void = outcome == "NOT_APPLIED"
                is_in_doubt |= not is_void
                is_final = reason in ("CONDITION_FAILED", "INVALID_ARGUMENT")
                assert reason not in ("INTERNAL", "SEQUENCE_REUSED", "SEQUENCE_TOO_OLD"), f"{error}"
                if is_final or time.monotonic() > self._end or not (is_void or is_once):
                    outcome = UNKNOWN if is_in_doubt else NOT_APPLIED
                    self.recorder.done(Done(identity, kind, key, begun, now_ns(), outcome))
                    return None
                self.client.rotate()
                time.sleep(0.02 + self.rng.random() * 0.05)
                continue
            self.recorder.done(
                Done(identity, kind, key, begun, now_ns(), APPLIED, response.index, response.duplicate)
            )
            return response


class Producer(Client):
    """Readings with a producer and sequence, some in batches, some without a time of their own."""

    def act(self) -> None:
        identity = self.recorder.new_identity()
        self.sequence += 1
        request = reading_pb2.WriteRequest(
            readings=readings(self.rng, identity), producer_id=self.name, sequence=self.sequence
        )
        self.write("write", "", reading_pb2_grpc.ReadingServiceStub, "Write", request, identity)


class Loner(Client):
    """Readings without a producer: sent again only when they are said to be void."""

    def act(self) -> None:
        identity = self.recorder.new_identity()
        request = reading_pb2.WriteRequest(readings=readings(self.rng, identity))
        self.write("write", "", reading_pb2_grpc.ReadingServiceStub, "Write", request, identity)


class KeyClient(Client):
    """Puts, conditional Puts and Deletes, keys that expire; linearizable and local reads of all of them."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self._revisions: dict[str, int] = {}

    def act(self) -> None:
        kind = self.rng.choices(
            ("put", "register", "conditional", "ttl", "delete", "read", "local"), (10, 20, 12, 4, 6, 30, 18)
        )[0]
        if kind == "read":
            self._read()
        elif kind == "local":
            self._read_locally()
        else:
            self._change(kind)

    def _change(self, kind: str) -> None:
        identity = self.recorder.new_identity()
        key = self.rng.choice(REGISTERS if kind == "register" else KEYS)
        producer: dict[str, Any] = {}
        if kind == "delete" or self.rng.random() < 0.5:
            self.sequence += 1
            producer = {"producer_id": self.name, "sequence": self.sequence}
        condition: dict[str, Any] = {}
        if kind == "conditional" or (kind == "delete" and self.rng.random() < 0.7):
            condition = {"if_mod_revision": self._revisions.get(key, 0)}
        if kind == "delete":
            delete = key_value_pb2.DeleteRequest(key=key, **producer, **condition)
            self.write(kind, key, key_value_pb2_grpc.KeyValueServiceStub, "Delete", delete, identity)
            return
        put = key_value_pb2.PutRequest(
            key=key,
            value=b"%d %s" % (identity, b"." * self.rng.randint(0, 60)),
            ttl_seconds=self.rng.randint(1, 4) if kind == "ttl" else 0,
            **producer,
            **condition,
        )
        response = self.write(kind, key, key_value_pb2_grpc.KeyValueServiceStub, "Put", put, identity)
        if response is not None and response.mod_revision:
            self._revisions[key] = response.mod_revision

    def _read(self) -> None:
        key = self.rng.choice(REGISTERS + KEYS)
        begun = now_ns()
        found = self._get(key, reading_pb2.CONSISTENCY_LINEARIZABLE)
        if found is not None:
            value, revision, index = found
            self._revisions[key] = revision
            self.recorder.read(Read(key, value, revision, index, begun, now_ns()))

    def _read_locally(self) -> None:
        key = self.rng.choice(REGISTERS + KEYS)
        address = self.client.address
        life = self.world.lives().get(address)
        found = self._get(key, reading_pb2.CONSISTENCY_LOCAL)
        if life is None or found is None or self.world.lives().get(address) != life:
            return
        value, revision, index = found
        self.recorder.local_read(LocalRead(self.name, life, key, value, revision, index))

    def _get(self, key: str, consistency: int) -> tuple[bytes | None, int, int] | None:
        """(value, mod_revision, index); None: no answer. Of a key that is not there, the refusal names the index."""
        request = key_value_pb2.GetRequest(key=key, consistency=consistency)
        try:
            answer = self.call(key_value_pb2_grpc.KeyValueServiceStub, "Get", request)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None, 0, int(error.details().rpartition(" ")[2])
            _, reason = verdict_of(error)
            assert reason != "INTERNAL", f"{error}"
            self.client.rotate()
            return None
        return answer.key_value.value, answer.key_value.mod_revision, answer.index


def readings(rng: random.Random, identity: int) -> list[reading_pb2.Readings]:
    """One or two series; the value is the operation's number."""
    made = []
    for sensor, metric in rng.sample(SERIES, rng.randint(1, 2)):
        count = rng.choice((1, 1, 1, 3, 8, 40))
        first = FIRST_TIME + identity * 1_000 if rng.random() < 0.8 else rng.randint(0, 50)
        times = [] if count == 1 and rng.random() < 0.3 else range(first, first + count)
        made.append(
            reading_pb2.Readings(
                sensor=sensor, metric=metric, time_unix_nano=times, int_value=[identity] * count
            )
        )
    return made


def start_clients(world: World, *, producers: int, loners: int, key_clients: int) -> list[Client]:
    kinds: list[tuple[type[Client], int]] = [(Producer, producers), (Loner, loners), (KeyClient, key_clients)]
    clients: list[Client] = [kind(world, number) for kind, count in kinds for number in range(count)]
    for client in clients:
        client.start()
    return clients
