"""A node for the tests of the API: records what it is asked, answers from plain values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from appliance.api.port import Watcher
from appliance.errors import RaftberryError
from appliance.model import Configuration, Member, MemberId, Position, Role
from appliance.node.scan import ScanRoom, Share
from appliance.state import (
    EntryEffects,
    KeyRecord,
    QueryChunk,
    QuerySpec,
    SeriesInfo,
    SeriesLatest,
    StateOptions,
)
from appliance.state.access import AccessTable
from appliance.state.configuration import founding_configuration
from appliance.state.membership import Change, next_configuration
from appliance.state.names import matcher
from appliance.state.retention import Retention
from appliance.state.series_table import SeriesTable
from raftberry.internal.v1 import command_pb2


@dataclass(frozen=True, slots=True)
class Outcome:
    index: int = 7
    term: int = 2
    duplicate: bool = False
    mod_revision: int = 0
    deleted: bool = False
    series_count: int = 0


@dataclass(frozen=True, slots=True)
class Effects:
    index: int
    effects: EntryEffects


@dataclass(frozen=True, slots=True)
class Event:
    node: str = "node-1"
    kind: str = "became_leader"
    term: int = 2
    index: int = 7
    peer: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_unix_nano: int = 5
    number: int = 1


@dataclass(frozen=True, slots=True)
class PeerFacts:
    name: str = "node-2"
    member_id: str = "0000000000000002"
    number: int = 2
    peer_address: str = "127.0.0.1:7451"
    connected: bool = True
    match_index: int = 6
    heard_ms_ago: int | None = None
    voter: bool = True
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    name: str = "node-1"
    leader: str = "node-1"
    role: Role = Role.LEADER
    term: int = 2
    commit_index: int = 7
    applied_index: int = 7
    durable_index: int = 7
    peers: Sequence[PeerFacts] = (PeerFacts(),)
    cluster_id: str = "00000000000000ff"
    member_id: str = "0000000000000001"
    version: str = "0.1.0"
    checkpoint_index: int = 3
    earliest_index: int = 4
    series_count: int = 1
    reading_count: int = 9
    readings_per_second: float = 1.5
    journal_size_bytes: int = 10
    store_size_bytes: int = 20
    commit_latency_us_median: int = 900
    commit_latency_us_max: int = 5_000
    boot_count: int = 1
    uptime_seconds: int = 60
    alarms: Sequence[str] = ("clock is not set",)
    has_quorum: bool = True
    key_count: int = 2
    last_index: int = 8
    secured: bool = True
    certificate_expires_unix_nano: int = 9
    authority_fingerprint: str = "ab"
    written_bytes: int = 27
    written_bytes_per_day: int = 28
    write_budget_bytes_per_day: int = 29
    card_life_used_percent: int = 30
    disk_free_bytes: int = 31
    scrubbed_unix_nano: int = 32
    scrub_percent: int = 33


class Result:
    """A query result over prepared lists; error is raised behind them."""

    def __init__(self, lists: Sequence[Sequence[QueryChunk]]) -> None:
        self.position = Position(7, 2)
        self.is_closed = False
        self._lists = lists

    async def __aiter__(self) -> AsyncIterator[Sequence[QueryChunk]]:
        for chunks in self._lists:
            yield chunks

    async def aclose(self) -> None:
        self.is_closed = True


class Backup:
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.is_closed = False
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        for piece in self._pieces:
            yield [piece]

    async def aclose(self) -> None:
        self.is_closed = True


@dataclass(frozen=True, slots=True)
class Comparison:
    position: Position = Position(7, 2)  # noqa: RUF009
    own: bytes = b"1"
    hashes: tuple[tuple[str, bytes], ...] = (("node-1", b"1"), ("node-2", b""))
    is_equal: bool = False


class Events:
    def __init__(self, lists: Sequence[Sequence[Event]]) -> None:
        self.missed_count = 3
        self.is_closed = False
        self._lists = lists

    async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        for events in self._lists:
            yield events

    async def aclose(self) -> None:
        self.is_closed = True


Taken = TypeVar("Taken")


class FakeSlices(Generic[Taken]):
    def __init__(self, found: Sequence[Taken]) -> None:
        self._found = found

    @property
    def taken_count(self) -> int:
        return len(self._found)

    def capture_some(self) -> bool:
        return True

    def close(self) -> None: ...

    def results(self) -> Iterator[Taken]:
        return iter(self._found)


class FakeState:
    """Readable parts of a state, set by the test."""

    def __init__(self) -> None:
        self.position = Position(7, 2)
        self.access = AccessTable()
        self.retention = Retention(SeriesTable(StateOptions()))
        self.latest_list: list[SeriesLatest] = []
        self.series_list: list[SeriesInfo] = []
        self.producers: dict[str, int] = {}
        self.records: dict[str, KeyRecord] = {}
        self.member_list = [
            Member(MemberId(1), "node-1", 1, "127.0.0.1:7441"),
            Member(MemberId(2), "node-2", 2, "127.0.0.1:7451"),
        ]

    def latest(self, sensor: str, metric: str) -> Iterable[SeriesLatest]:
        is_sensor, is_metric = matcher(sensor), matcher(metric)
        return (each for each in self.latest_list if is_sensor(each.sensor) and is_metric(each.metric))

    def series(self, sensor: str, metric: str) -> Iterable[SeriesInfo]:
        is_sensor, is_metric = matcher(sensor), matcher(metric)
        return (each for each in self.series_list if is_sensor(each.sensor) and is_metric(each.metric))

    def begin_latest(
        self, sensor: str, metric: str, is_visible: Callable[[str, str], bool] | None = None
    ) -> FakeSlices[SeriesLatest]:
        found = self.latest(sensor, metric)
        return FakeSlices([one for one in found if is_visible is None or is_visible(one.sensor, one.metric)])

    def begin_series(
        self, sensor: str, metric: str, is_visible: Callable[[str, str], bool] | None = None
    ) -> FakeSlices[SeriesInfo]:
        found = self.series(sensor, metric)
        return FakeSlices([one for one in found if is_visible is None or is_visible(one.sensor, one.metric)])

    def producer_highest(self, producer_id: str) -> int:
        return self.producers.get(producer_id, 0)

    def key(self, key: str) -> KeyRecord | None:
        return self.records.get(key)

    def begin_keys(
        self, prefix: str, limit: int, is_visible: Callable[[str], bool] | None = None
    ) -> FakeSlices[KeyRecord]:
        keys = [key for key in sorted(self.records) if key.startswith(prefix)]
        found = [self.records[key] for key in keys if is_visible is None or is_visible(key)]
        return FakeSlices(found[:limit] if limit else found)

    def members(self) -> Sequence[Member]:
        return self.member_list

    @property
    def configuration(self) -> Configuration:
        return founding_configuration(self.member_list)


class FakeNode:
    """outcomes: what each operation gets, in order; the last one again and again."""

    def __init__(self) -> None:
        self.name = "node-1"
        self.state = FakeState()
        self.on_serving_change: list[Callable[[bool], None]] = []
        self.serving = True
        self.operations: list[command_pb2.Operation] = []
        self.deadlines: list[int | None] = []
        self.barriers: list[int] = []
        self.changes: list[Change] = []
        self.specs: list[QuerySpec] = []
        self.outcomes: list[Outcome | Exception] = [Outcome()]
        self.pending: list[asyncio.Future[Outcome]] = []
        self.holds_back = False
        self.barrier_error: RaftberryError | None = None
        self.result = Result([])
        self.backup_result = Backup([])
        self.entries: list[Effects] = []
        self.watch_error: RaftberryError | None = None
        self.watched_after: list[int] = []
        self.watch_ends = asyncio.Event()
        self.watches_open = 0
        self.subscription = Events([])
        self.list_room = ScanRoom(1_000, "others are running")
        self.wall = 1_800_000_000_000_000_000
        self.doubt = ""

    def write(self, operation: command_pb2.Operation, *, deadline_ns: int | None) -> asyncio.Future[Outcome]:
        self.deadlines.append(deadline_ns)
        self.operations.append(operation)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self.holds_back:
            self.pending.append(future)
            return future
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        return future

    def submit(
        self,
        operation: command_pb2.Operation,
        tell: Callable[[Outcome | Exception], None],
        *,
        deadline_ns: int | None,
    ) -> None:
        def done(future: asyncio.Future[Outcome]) -> None:
            error = future.exception()
            tell(error if isinstance(error, Exception) else future.result())

        self.write(operation, deadline_ns=deadline_ns).add_done_callback(done)

    async def read_barrier(self, consistency: int, *, deadline_ns: int | None) -> Position:
        self.barriers.append(consistency)
        self.deadlines.append(deadline_ns)
        if self.barrier_error:
            raise self.barrier_error
        return self.state.position

    async def room_to_list(self, sensor: str, metric: str) -> Share:
        return await self.list_room.take()

    async def query(self, spec: QuerySpec) -> Result:
        self.specs.append(spec)
        return self.result

    async def serve_watch(self, *, after_index: int, watcher: Watcher) -> None:
        self.watched_after.append(after_index)
        if self.watch_error:
            raise self.watch_error
        self.watches_open += 1
        try:
            for entry in self.entries:
                if not watcher.take(entry):
                    await watcher.ready()
            await self.watch_ends.wait()
        finally:
            self.watches_open -= 1

    def status(self) -> Status:
        return Status()

    @property
    def configuration(self) -> Configuration:
        return self.state.configuration

    async def change_members(self, change: Change, *, deadline_ns: int | None) -> Configuration:
        """By the real rules; what is asked is recorded, and counts."""
        self.changes.append(change)
        self.deadlines.append(deadline_ns)
        configuration = next_configuration(self.configuration, change)
        self.state.member_list = list(configuration.members)
        return configuration

    async def transfer_leadership(self, target: str, *, deadline_ns: int | None) -> tuple[str, int]:
        self.deadlines.append(deadline_ns)
        return target or "node-2", 3

    def events(self) -> Events:
        return self.subscription

    async def checkpoint(self) -> Position:
        return self.state.position

    async def backup(self, consistency: int, *, deadline_ns: int | None) -> Backup:
        self.barriers.append(consistency)
        return self.backup_result

    async def verify(self, *, deadline_ns: int | None) -> Comparison:
        return Comparison()

    async def state_hash(self) -> tuple[Position, bytes]:
        return self.state.position, b"\x01" * 32

    def is_serving(self) -> bool:
        return self.serving

    def retention_doubt(self) -> str:
        return self.doubt

    def wall_ns(self) -> int:
        return self.wall
