"""What was written again takes the place of what was there; everything is read as a plain dictionary has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from appliance.model import Position
from appliance.state import QuerySpec, StateMachine, StateOptions, checkpoint, superseded
from appliance.state.checkpoint import CheckpointWork
from appliance.state.columns import Columns
from appliance.state.layouts import Block, decode_block, encode_block
from appliance.state.operations import delete_series, encode_columns, encode_command, write_readings
from appliance.state.purge import Purged
from appliance.state.query import PreparedQuery
from appliance.state.results import QueryChunk
from appliance.state.retention import drop_readings
from appliance.state.superseded import supersede
from appliance.state.sweep import TIME_MAX, TIME_MIN, pack_chunk
from appliance.storage.lmdb_store import LmdbStore
from appliance.storage.memory import MemoryDisk, MemoryStore
from appliance.storage.store import Store, StoreBatch
from raftberry.internal.v1 import command_pb2
from tests.state.fakes import Cluster, FakeReader, write

OPTIONS: Final = StateOptions(page_bytes=512)
SECOND: Final = 10**9
HOUR: Final = 3_600
STEP: Final = 10
SCRIPTS: Final = 12
STEPS: Final = 45
SHAPES: Final = ("on", "on", "again", "again", "all", "partly", "jitter", "sparse", "back", "edge")
SIZES: Final = (1, 3, 100, 300, 700, 1_500, 3_000)
KINDS: Final = (
    *("write",) * 30,
    *("checkpoint",) * 8,
    *("begin",) * 6,
    *("capture", "encode", "commit", "release", "query", "drop") * 3,
    *("restart", "delete"),
)
Readings = dict[int, int]
"""Bits of the value, by time."""


def noisy(count: int) -> list[float]:
    values: list[float] = np.round(np.random.default_rng(count).normal(20, 3, count), 1).tolist()
    return values


def stored_bytes(node: Cluster) -> int:
    with node.store.reader() as reader:
        return sum(len(record) for table in ("blocks", "late") for _, record in reader.scan(table))


def values_read(node: Cluster) -> dict[int, float]:
    query = node.state.prepare_query(QuerySpec("s", "m"), node.store.reader())
    return {
        time: value
        for chunk in query.run()
        for time, value in zip(chunk.times.tolist(), chunk.values.tolist(), strict=True)
    }


def send(node: Cluster, times: list[int], values: list[float], batch: int) -> None:
    for begin in range(0, len(times), batch):
        node.apply(write(times[begin : begin + batch], values[begin : begin + batch]))


@pytest.mark.parametrize("is_corrected", [False, True])
@pytest.mark.parametrize("batch", [100, 700])
def test_what_is_sent_again_lies_there_less_than_twice(batch: int, *, is_corrected: bool) -> None:
    node = Cluster(OPTIONS)
    times = list(range(0, 4_200 * SECOND, SECOND))
    values = noisy(len(times))
    sizes: list[int] = []
    for number in range(12):
        if is_corrected:
            values = [round(value + 0.1, 1) for value in values]
        for begin in range(0, len(times), batch):
            node.apply(write(times[begin : begin + batch], values[begin : begin + batch]))
            if begin // batch % (3 + number % 4) == 2:
                node.checkpoint()
        sizes.append(stored_bytes(node))
    assert max(sizes[2:]) < 2 * sizes[0]
    assert values_read(node) == dict(zip(times, values, strict=True))
    before = node.hash()
    node.restart()
    assert node.hash() == before


@pytest.mark.parametrize("batch", [100, 700])
def test_a_gateway_that_sends_its_last_day_each_hour_fills_no_card(batch: int) -> None:
    again, once = Cluster(OPTIONS), Cluster(OPTIONS)
    times = [place * 20 * SECOND for place in range(3 * 24 * HOUR // 20)]
    values = noisy(len(times))
    an_hour = HOUR // 20
    for hour in range(1, 3 * 24 + 1):
        begin, end = (hour - 1) * an_hour, hour * an_hour
        send(once, times[begin:end], values[begin:end], batch)
        begin = max(end - 24 * an_hour, 0)
        send(again, times[begin:end], values[begin:end], batch)
        once.checkpoint()
        again.checkpoint()
    assert stored_bytes(again) < 1.5 * stored_bytes(once)
    assert values_read(again) == dict(zip(times, values, strict=True))


def test_a_block_of_which_most_was_not_written_again_stays() -> None:
    node = Cluster(OPTIONS)
    times = list(range(0, 4_000 * SECOND, SECOND))
    node.apply(write(times, noisy(len(times))))
    node.checkpoint()
    old, count = values_read(node), node.store.count("blocks")
    again = [time for time in times if time // SECOND % 3 == 0]
    values = [value + 1 for value in noisy(len(again))]
    node.apply(write(again, values))
    node.checkpoint()
    assert node.store.count("blocks") > count
    assert values_read(node) == old | dict(zip(again, values, strict=True))


def test_readings_that_come_in_order_have_no_block_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Block] = []
    monkeypatch.setattr(superseded, "_columns", decoded.append)
    node = Cluster(OPTIONS)
    for begin in range(0, 12_000, 500):
        node.apply(write([time * SECOND for time in range(begin, begin + 500)], noisy(500)))
        node.checkpoint()
    (series,) = node.state._tables.series.by_name.values()
    assert series.next_sequence > 10
    assert decoded == []


def test_what_one_checkpoint_decodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that differ a little each time they are sent: nothing can go, however many blocks lie there."""
    decoded: Counter[int] = Counter()
    columns = superseded._columns

    def count(block: Block) -> Columns:
        decoded[number] += 1
        return columns(block)

    monkeypatch.setattr(superseded, "_columns", count)
    monkeypatch.setattr(superseded, "DECODED_MIN", 8)
    node = Cluster(OPTIONS)
    for number in range(30):
        times = [time * SECOND + number for time in range(1_000)]
        node.apply(write(times, noisy(1_000)))
        node.checkpoint()
    assert 0 < max(decoded.values()) < 8 + 8 * superseded.DECODED_PER_BLOCK
    assert len(values_read(node)) == 30_000


def test_a_reading_at_the_end_of_time_is_no_bar() -> None:
    node = Cluster(OPTIONS)
    for number in range(6):
        times = [*range(number * 500, number * 500 + 500), TIME_MAX, TIME_MIN]
        node.apply(write(times, noisy(502)))
        node.checkpoint()
    assert len(values_read(node)) == 3_002


# blocks by themselves ------------------------------------------------------------------------------------


def draw_block(rng: np.random.Generator, sequence: int) -> Block:
    """Of one to three chunks that ascend and are apart."""
    count = int(rng.integers(1, 25))
    times = int(rng.integers(0, 60)) + np.arange(count, dtype=np.int64) * int(rng.integers(1, 4))
    if rng.integers(4) == 0:
        times = times[rng.random(count) < 0.6]
    if not len(times):
        times = np.array([7], np.int64)
    parts = [part for part in np.array_split(times, int(rng.integers(1, 4))) if len(part)]
    chunks = tuple(pack_chunk(Columns(part, rng.normal(size=len(part)))) for part in parts)
    return Block(1, sequence, False, chunks)


def merged(blocks: Iterable[Block]) -> dict[int, tuple[int, float]]:
    """Sequence and value that a reader finds at each time."""
    found: dict[int, tuple[int, float]] = {}
    for block in sorted(blocks, key=lambda block: block.sequence):
        columns = superseded._columns(block)
        for time, value in zip(columns.times.tolist(), columns.values.tolist(), strict=True):
            found[time] = block.sequence, value
    return found


def test_every_time_is_read_as_before() -> None:
    removed = 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        old = [draw_block(rng, number) for number in range(int(rng.integers(0, 12)))]
        new: list[Block] = []
        for number in range(int(rng.integers(1, 5))):
            block = draw_block(rng, len(old) + number)
            if not merged(new).keys() & merged([block]).keys():
                new.append(block)
        tables = {("blocks", key): record for key, record in map(encode_block, old)}
        before_bytes = sum(map(len, tables.values()))
        changed = supersede(FakeReader(Position(1, 0), dict(tables)), new, purged_before=None)
        for key in changed.deletes:
            del tables[key]
        tables |= {(table, key): record for table, key, record in changed.puts}
        assert before_bytes - sum(map(len, tables.values())) == changed.removed_bytes
        left = [decode_block(key, record) for (_, key), record in tables.items()]
        assert merged([*left, *new]) == merged([*old, *new]), seed
        removed += len(changed.deletes)
    assert removed > 200


# the state machine, with checkpoints in pieces -----------------------------------------------------------


class Node:
    def __init__(self, store: Store) -> None:
        self.store, self.state = store, StateMachine(OPTIONS)
        self.commands: dict[int, bytes] = {}

    def apply(self, operation: command_pb2.Operation) -> None:
        index = self.state.position.index + 1
        self.commands[index] = encode_command((operation,), time_unix_nano=0, elapsed_nano=0)
        self.state.apply(index, 1, self.commands[index])

    def checkpoint(self) -> None:
        work = self.state.capture_checkpoint()
        self.store.commit(work.batch(self.store.snapshot))
        self.state.checkpoint_done(work)

    def restart(self) -> None:
        with self.store.snapshot() as reader:
            self.state = StateMachine.restore(reader, OPTIONS)
        for index, command in self.commands.items():
            self.state.apply(index, 1, command)

    def hash(self) -> bytes:
        return self.state.hash(self.store.snapshot())


class Run:
    """A node, a twin that makes its checkpoints at other times, and a dictionary, given the same."""

    def __init__(self, store: Store, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.node, self.twin = Node(store), Node(MemoryStore(MemoryDisk()))
        self.twin_every, self.applied_count = 1 + seed % 9, 0
        self.model: dict[str, Readings] = {}
        self.ends: Counter[str] = Counter()
        self.work: CheckpointWork | None = None
        self.batch: StoreBatch | None = None
        self.is_committed = False
        self.queries: list[tuple[PreparedQuery, dict[str, Readings]]] = []

    def run(self) -> None:
        steps: dict[str, Callable[[], None]] = {kind: getattr(self, kind) for kind in set(KINDS)}
        for number in range(STEPS):
            steps[KINDS[self.rng.integers(len(KINDS))]]()
            if number % 4 == 3:
                self.check()
        self.end_queries()
        self.checkpoint()
        self.check()
        self.restart()
        self.check()

    def series(self) -> str:
        return "fi"[int(self.rng.random() < 0.25)]

    def write(self) -> None:
        sensor, rng = self.series(), self.rng
        times = self._times(sensor, SHAPES[rng.integers(len(SHAPES))], SIZES[rng.integers(len(SIZES))])
        if sensor == "i":
            values = np.cumsum(rng.integers(-3, 4, len(times)))
        else:
            values = np.round(20 + np.cumsum(rng.normal(0, 0.1, len(times))), 1)
            values[rng.random(len(times)) < 0.05] = np.nan
        written = encode_columns(sensor, "m", times, values, integer=sensor == "i")
        self.apply(write_readings([written]))
        bits = values.view(np.int64).tolist()
        self.model.setdefault(sensor, {}).update(zip(times.tolist(), bits, strict=True))

    def _times(self, sensor: str, shape: str, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        rng, end = self.rng, self.ends[sensor]
        line = np.arange(count, dtype=np.int64) * STEP
        start = max(end - int(rng.integers(0, 40_000)), 0) // STEP * STEP
        match shape:
            case "on":
                self.ends[sensor] = end + count * STEP
                return line + end
            case "all":
                return np.arange(0, max(min(end, 30_000), STEP), STEP, dtype=np.int64)
            case "partly":
                return start + line[np.append(True, rng.random(count - 1) < 0.97)]
            case "jitter":
                return start + line + rng.integers(0, 2, count)
            case "sparse":
                return line // STEP * 997 + int(rng.integers(0, 3)) * STEP
            case "back":
                return start + line[::-1]
            case "edge":
                return np.concatenate([TIME_MIN + line, TIME_MAX - line])
            case _:
                return start + line

    def apply(self, operation: command_pb2.Operation) -> None:
        self.node.apply(operation)
        self.twin.apply(operation)
        self.applied_count += 1
        if self.applied_count % self.twin_every == 0:
            self.twin.checkpoint()

    def drop(self) -> None:
        sensor = self.series()
        if held := self.model.get(sensor):
            before = sorted(held)[int(self.rng.random() ** 2 * len(held))]
            self.apply(drop_readings([(sensor, "m", before)]))
            self.model[sensor] = {time: bits for time, bits in held.items() if time >= before}

    def delete(self) -> None:
        sensor = self.series()
        if self.model.pop(sensor, None) is not None:
            self.apply(delete_series(sensor, "*"))

    def checkpoint(self) -> None:
        self.release()
        self.begin()
        self.release()

    def begin(self) -> None:
        if self.work is None:
            self.work, self.batch, self.is_committed = self.node.state.begin_checkpoint(), None, False
            self.hash_then = self.twin.hash()

    def capture(self) -> None:
        if self.work is not None and self.batch is None:
            self.work._series.capture_some(1)

    def encode(self) -> None:
        if self.work is not None and self.batch is None:
            while not self.work.capture_some():
                pass
            self.batch = self.work.batch(self.node.store.snapshot)

    def commit(self) -> None:
        self.encode()
        if self.batch is not None and not self.is_committed:
            self.node.store.commit(self.batch)
            self.is_committed = True
            with self.node.store.snapshot() as reader:
                restored = StateMachine.restore(reader, OPTIONS)
            assert restored.hash(self.node.store.snapshot()) == self.hash_then

    def release(self) -> None:
        self.commit()
        if self.work is not None:
            self.node.state.checkpoint_done(self.work)
            self.work = self.batch = None

    def restart(self) -> None:
        self.work = self.batch = None
        self.end_queries()
        self.node.restart()

    def query(self) -> None:
        """It is run later, and shows what is there now."""
        prepared = self.node.state.begin_query(QuerySpec("*", "*"), self.node.store.snapshot())
        if self.rng.integers(2):
            prepared.views.capture_all()
        self.queries.append((prepared, {sensor: dict(held) for sensor, held in self.model.items()}))
        if len(self.queries) > 3:
            self.end_queries()

    def end_queries(self) -> None:
        queries, self.queries = self.queries, []
        for prepared, expected in queries:
            prepared.views.capture_all()
            assert_same(prepared.run(), expected)

    def check(self) -> None:
        state, store = self.node.state, self.node.store
        assert_same(state.prepare_query(QuerySpec("*", "*"), store.snapshot()).run(), self.model)
        for sensor, held in self.model.items():
            times = sorted(held)
            first, last = sorted(self.rng.integers(0, len(times), 2).tolist())
            part = {time: held[time] for time in times[first:last]}
            for descending in (False, True):
                spec = QuerySpec(sensor, "m", start=times[first], end=times[last], descending=descending)
                found = state.prepare_query(spec, store.snapshot()).run()
                assert_same(found, {sensor: part} if part else {}, descending=descending)
            (latest,) = state.latest(sensor, "m")
            assert latest.time == times[-1]
        assert self.node.hash() == self.twin.hash()
        if self.work is None:
            self._check_sizes()

    def _check_sizes(self) -> None:
        sizes: Counter[int] = Counter()
        with self.node.store.snapshot() as reader:
            for table in ("blocks", "late"):
                for key, record in reader.scan(table):
                    sizes[int.from_bytes(key[:8], "big")] += len(record)
        for name in self.node.state.series_names():
            series = self.node.state.find_series(*name)
            assert series is not None
            assert series.size_bytes == sizes[series.series_id]


def assert_same(
    chunks: Iterator[QueryChunk], expected: dict[str, Readings], *, descending: bool = False
) -> None:
    found: dict[str, list[tuple[int, int]]] = {}
    for chunk in chunks:
        pairs = zip(chunk.times.tolist(), chunk.values.view(np.int64).tolist(), strict=True)
        found.setdefault(chunk.sensor, []).extend(pairs)
    assert found == {
        sensor: sorted(held.items(), reverse=descending) for sensor, held in expected.items() if held
    }


@pytest.fixture(params=["memory", "lmdb"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[int], Store]:
    def make(number: int) -> Store:
        if request.param == "memory":
            return MemoryStore(MemoryDisk())
        (folder := tmp_path / str(number)).mkdir()
        return LmdbStore.create(folder, map_bytes=1 << 26)

    return make


def test_whatever_is_written_dropped_and_checkpointed_is_read_as_a_dictionary_has_it(
    make_store: Callable[[int], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: Counter[str] = Counter()

    def count(*arguments: object, **names: object) -> Purged:
        found = supersede(*arguments, **names)  # type: ignore[arg-type]
        changed.update(gone=len(found.deletes) - len(found.puts), written_anew=len(found.puts))
        return found

    monkeypatch.setattr(checkpoint, "supersede", count)
    for seed in range(SCRIPTS):
        store = make_store(seed)
        Run(store, seed).run()
        store.close()
    assert changed["gone"] > SCRIPTS
    assert changed["written_anew"] > SCRIPTS
