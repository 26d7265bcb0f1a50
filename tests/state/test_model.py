"""The whole state machine against a dictionary: random entries, checkpoints and crashes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import limits
from appliance.model import Verdict
from appliance.state import (
    CheckpointWork,
    OperationResult,
    PreparedHash,
    QuerySpec,
    StateMachine,
    StateOptions,
)
from appliance.state.operations import (
    decode_columns,
    delete_key,
    delete_series,
    put_key,
    set_series,
    write_readings,
)
from appliance.state.retention import drop_readings
from raftberry.internal.v1 import command_pb2
from tests.state.fakes import Cluster, columns

OPTIONS = StateOptions(series_max=4, keys_max=3, producers_max=2, page_bytes=96)

Name = tuple[str, str]


@dataclass
class Model:
    """The same rules, the slow and obvious way."""

    readings: dict[Name, dict[int, float]] = field(default_factory=dict)
    counts: dict[Name, int] = field(default_factory=dict)
    firsts: dict[Name, int] = field(default_factory=dict)
    lasts: dict[Name, int] = field(default_factory=dict)
    kinds: dict[Name, bool | None] = field(default_factory=dict)
    attributes: dict[Name, str] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, int, int, int]] = field(default_factory=dict)
    revision: int = 0
    producers: dict[str, set[int]] = field(default_factory=dict)

    def apply(self, operation: command_pb2.Operation) -> Verdict:
        producer, sequence = operation.producer_id, operation.sequence
        seen = self.producers.get(producer, set())
        if sequence and sequence <= max(seen, default=0) - limits.PRODUCER_WINDOW - 1:
            return Verdict.REFUSED
        if sequence and sequence in seen:
            return Verdict.DUPLICATE
        kind = operation.WhichOneof("kind")
        if not getattr(self, f"_{kind}")(getattr(operation, str(kind))):
            return Verdict.REFUSED
        if sequence:
            self.producers.pop(producer, None)
            if len(self.producers) >= OPTIONS.producers_max:
                del self.producers[next(iter(self.producers))]
            self.producers[producer] = seen | {sequence}
        return Verdict.APPLIED

    def _write(self, write: command_pb2.WriteReadings) -> bool:
        kinds = dict(self.kinds)
        for column in write.columns:
            name = column.sensor, column.metric
            if kinds.get(name) is None:
                kinds[name] = column.integer
            if kinds[name] != column.integer:
                return False
        if len(kinds) > OPTIONS.series_max:
            return False
        self.kinds = kinds
        for column in write.columns:
            name = column.sensor, column.metric
            self.readings.setdefault(name, {}).update(column_readings(column))
            self.counts[name] = self.counts.get(name, 0) + column.count
            written = column_readings(column)
            first, last = min(written), max(written)
            self.firsts[name] = min(self.firsts.get(name, first), first)
            self.lasts[name] = max(self.lasts.get(name, last), last)
        return True

    def _set_series(self, attributes: command_pb2.SetSeriesAttributes) -> bool:
        name = attributes.sensor, attributes.metric
        if name not in self.kinds and len(self.kinds) >= OPTIONS.series_max:
            return False
        self.kinds.setdefault(name, None)
        return self.attributes.setdefault(name, attributes.unit) == attributes.unit

    def _delete_series(self, pattern: command_pb2.DeleteMatchingSeries) -> bool:
        for name in list(self.kinds):
            if name[0] == pattern.sensor and pattern.metric == "*":
                for table in (
                    self.kinds,
                    self.readings,
                    self.counts,
                    self.attributes,
                    self.firsts,
                    self.lasts,
                ):
                    table.pop(name, None)
        return True

    def _drop_readings(self, drops: command_pb2.DropReadings) -> bool:
        for drop in drops.series:
            name, before = (drop.sensor, drop.metric), drop.before_unix_nano
            if name in self.lasts and self.lasts[name] < before:
                for table in (
                    self.kinds,
                    self.readings,
                    self.counts,
                    self.attributes,
                    self.firsts,
                    self.lasts,
                ):
                    table.pop(name, None)
            elif name in self.lasts:
                kept = {time: value for time, value in self.readings[name].items() if time >= before}
                self.readings[name] = kept
                self.firsts[name] = max(self.firsts[name], before)
        return True

    def _put(self, put: command_pb2.PutKey) -> bool:
        old = self.keys.get(put.key)
        if put.HasField("if_mod_revision") and put.if_mod_revision != (old[2] if old else 0):
            return False
        if old is None and len(self.keys) >= OPTIONS.keys_max:
            return False
        self.revision += 1
        self.keys[put.key] = (
            put.value, old[1] if old else self.revision, self.revision, old[3] + 1 if old else 1,
        )  # fmt: skip
        return True

    def _delete(self, delete: command_pb2.DeleteKey) -> bool:
        old = self.keys.get(delete.key)
        if delete.HasField("if_mod_revision") and delete.if_mod_revision != (old[2] if old else 0):
            return False
        if old:
            self.revision += 1
            del self.keys[delete.key]
        return True


def column_readings(column: command_pb2.SeriesColumns) -> dict[int, float]:
    """Written one after the other: of equal times the later stays."""
    decoded = decode_columns(column)
    return dict(zip(decoded.times.tolist(), decoded.values.tolist(), strict=True))


sensors = st.sampled_from(["a", "b", "c"])
metrics = st.sampled_from(["x", "y"])
times = st.one_of(
    st.integers(-50, 50), st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([-(1 << 63), (1 << 63) - 1])
)


@st.composite
def some_columns(draw: st.DrawFn) -> command_pb2.SeriesColumns:
    integer = draw(st.sampled_from([False, False, False, True]))
    if draw(st.booleans()):
        count = draw(st.sampled_from([64, 100, 130]))
        start = draw(st.integers(-200, 200))
        step = draw(st.sampled_from([1, 1, 3, -1, 0]))
        stamps = [start + step * place for place in range(count)]
        values: list[float] = [float(start + place) for place in range(count)]
    else:
        stamps = draw(st.lists(times, min_size=1, max_size=5))
        values = draw(st.lists(st.integers(-9, 9).map(float), min_size=len(stamps), max_size=len(stamps)))
    return columns(stamps, values, draw(sensors), draw(metrics), integer=integer)


producer_fields = st.one_of(
    st.just(("", 0)),
    st.tuples(st.sampled_from(["p", "q", "r"]), st.sampled_from([1, 2, 3, 9, 1025, 1030, 5000])),
)


@st.composite
def operations(draw: st.DrawFn) -> command_pb2.Operation:
    producer_id, sequence = draw(producer_fields)
    key = draw(st.sampled_from(["k", "l", "m", "n"]))
    condition = draw(st.one_of(st.none(), st.integers(0, 3)))
    kind = draw(st.sampled_from(["write"] * 6 + ["put", "put", "delete", "set", "drop", "retain", "retain"]))
    if kind == "write":
        return write_readings(
            draw(st.lists(some_columns(), min_size=1, max_size=3)), producer_id=producer_id, sequence=sequence
        )
    if kind == "put":
        value = draw(st.binary(max_size=3))
        return put_key(key, value, if_mod_revision=condition, producer_id=producer_id, sequence=sequence)
    if kind == "delete":
        return delete_key(key, if_mod_revision=condition, producer_id=producer_id, sequence=sequence)
    if kind == "set":
        unit = draw(st.sampled_from(["C", "%"]))
        return set_series(
            draw(sensors), draw(metrics), unit=unit, labels={}, producer_id=producer_id, sequence=sequence
        )
    if kind == "retain":
        operation = drop_readings([(draw(sensors), draw(metrics), draw(st.integers(-60, 60)))])
        operation.producer_id, operation.sequence = producer_id, sequence
        return operation
    return delete_series(draw(sensors), "*", producer_id=producer_id, sequence=sequence)


steps = st.lists(
    st.one_of(
        st.lists(operations(), max_size=4), st.sampled_from(["checkpoint", "restart", "overlap", "look"])
    ),
    max_size=30,
)


def verdicts(results: tuple[OperationResult, ...]) -> list[tuple[Verdict, int]]:
    return [(result.verdict, result.mod_revision) for result in results]


def expected_agrees(result: OperationResult, verdict: Verdict) -> bool:
    """The model knows no fingerprints: a duplicate with other content is refused."""
    return result.verdict is verdict or (
        verdict is Verdict.DUPLICATE and type(result.error).__name__ == "SequenceReused"
    )


class Slices:
    """What is captured one series a step while others are written: it shows the moment at which it began."""

    def __init__(self, node: Cluster, twin: Cluster) -> None:
        self.node, self.twin = node, twin
        self.checkpoint: tuple[CheckpointWork, bytes] | None = None
        self.look: tuple[PreparedHash, bytes] | None = None

    def begin_checkpoint(self) -> None:
        self.checkpoint = self.node.state.begin_checkpoint(), self.twin.hash()

    def begin_look(self) -> None:
        self.end_look()
        self.look = self.node.state.begin_hash(self.node.store.reader()), self.twin.hash()

    def step(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint[0]._series.capture_some(1)
        if self.look is not None:
            self.look[0].series.capture_some(1)

    def end_checkpoint(self) -> None:
        if self.checkpoint is None:
            return
        (work, expected), self.checkpoint = self.checkpoint, None
        while not work.capture_some():
            pass
        self.node.store.commit(work.batch(self.node.store.reader))
        assert (
            StateMachine.restore(self.node.store.reader(), OPTIONS).hash(self.node.store.reader()) == expected
        )
        self.node.state.checkpoint_done(work)

    def end_look(self) -> None:
        if self.look is None:
            return
        (prepared, expected), self.look = self.look, None
        while not prepared.capture_some():
            pass
        assert prepared.run() == expected


@settings(max_examples=120, deadline=None)
@given(steps)
def test_state_follows_the_model_through_checkpoints_and_crashes(
    script: list[list[command_pb2.Operation] | str],
) -> None:
    model = Model()
    node, twin = Cluster(OPTIONS), Cluster(OPTIONS)
    slices = Slices(node, twin)
    for step in script:
        slices.step()
        if step == "look":
            slices.begin_look()
            continue
        if isinstance(step, str):
            slices.end_checkpoint()
            if step == "checkpoint":
                node.checkpoint()
            elif step == "restart":
                node.restart()
            else:
                slices.begin_checkpoint()
            continue
        applied = node.apply(*step)
        assert verdicts(twin.apply(*step).results) == verdicts(applied.results)
        for operation, result in zip(step, applied.results, strict=True):
            assert expected_agrees(result, model.apply(operation)), (operation, result)
    slices.end_look()
    check(node.state, node, model)
    assert node.hash() == twin.hash()
    slices.end_checkpoint()


def check(state: StateMachine, node: Cluster, model: Model) -> None:
    infos = {(info.sensor, info.metric): info for info in state.series("", "")}
    assert {name: info.integer for name, info in infos.items()} == model.kinds
    for name, expected in model.readings.items():
        found: dict[int, float] = {}
        for chunk in state.prepare_query(QuerySpec(*name), node.store.reader()).run():
            found.update(zip(chunk.times.tolist(), chunk.values.tolist(), strict=True))
        assert list(found.items()) == sorted(expected.items())
        assert infos[name].reading_count == model.counts[name]
        assert (infos[name].first_time, infos[name].last_time) == (model.firsts[name], max(expected))
        latest = next(state.latest(*name))
        assert (latest.time, latest.value) == (max(expected), expected[max(expected)])
    records = {
        record.key: (record.value, record.create_revision, record.mod_revision, record.version)
        for record in state.keys("")
    }
    assert records == model.keys
    assert state.revision == model.revision
    for producer, seen in model.producers.items():
        assert state.producer_highest(producer) == max(seen)
