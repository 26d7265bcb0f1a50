"""One round of roll-ups: some series' windows, from the state behind their mark to the operations that hold them.

Invariant: windows are computed from one state, at or behind the mark, and written only while the mark is the series'
last: what was written since counts as new. `prepare` on the loop, `compute` in the pool.
What stands as it was written before is not written again: a late reading has all windows behind it computed anew.
A window whose values were all corrected to NaN gets count 0 and NaN, if it has been written before (state/emptied.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from appliance.limits import KIB
from appliance.node.refusals import RollUpName, RollUpRefusals
from appliance.state import Aggregation, QuerySpec, StateMachine
from appliance.state.changed import changed_windows, only_windows
from appliance.state.columns import Columns, concatenate
from appliance.state.emptied import emptied_windows, windows_before, with_emptied
from appliance.state.operations import encode_columns
from appliance.state.query import PreparedQuery
from appliance.state.retention import ROLL_UP_FIGURES, roll_up_metric
from appliance.state.sweep import TIME_MIN, SeriesView, view_series
from appliance.storage.store import Store, StoreReader
from raftberry.internal.v1 import command_pb2

WINDOWS_READ_MAX: Final = 64_000
"""Computed of one series and width in a round; what is left follows in the next."""

WINDOWS_MAX: Final = 4_000
"""Written of them."""

RESULT_BYTES_PER_ENTRY: Final = 128 * KIB
"""Some 40,000 windows, decoded when the entry is applied."""

_AGGREGATIONS: Final = tuple(Aggregation[figure.upper()] for figure in ROLL_UP_FIGURES)


@dataclass(slots=True)
class RollUpJob:
    """names: sensor and metric. limit_ns: windows that end by then are over. results None: not computed."""

    names: list[tuple[str, str]]
    limit_ns: int
    is_running: bool = False
    results: list[command_pb2.Operation] | None = None
    again: list[tuple[str, str]] = field(default_factory=list)
    """Series with more windows than one round computes, of which all were written."""
    reader: StoreReader | None = None
    """For what `prepare` found, beside its queries."""

    def take(self) -> list[command_pb2.Operation]:
        """Results for one entry."""
        assert self.results
        taken, size = 0, 0
        while taken < len(self.results) and (not taken or size < RESULT_BYTES_PER_ENTRY):
            size += self.results[taken].ByteSize()
            taken += 1
        operations, self.results = self.results[:taken], self.results[taken:]
        return operations

    def give_up(self, refused: command_pb2.RollUpReadings) -> None:
        """What is refused once would be refused again at once, without end."""
        self.again = [name for name in self.again if name != (refused.sensor, refused.metric)]


@dataclass(slots=True)
class Prepared:
    """One width of one series. raw: the series, if windows may have to be emptied. written: its windows so far."""

    rolled: command_pb2.RollUpReadings
    query: PreparedQuery
    ahead: PreparedQuery | None
    """Finds the first reading from end on, where there is one."""

    start: int
    end: int
    raw: SeriesView | None = None
    written: dict[Aggregation, SeriesView] = field(default_factory=dict)
    columns: dict[Aggregation, Columns] = field(default_factory=dict)

    @property
    def name(self) -> tuple[str, str]:
        return self.rolled.sensor, self.rolled.metric


def prepare(job: RollUpJob, state: StateMachine, store: Store, refusals: RollUpRefusals) -> list[Prepared]:
    """Series that were deleted, or lost their policy, since they were found are left out."""
    prepared: list[Prepared] = []
    job.reader = store.snapshot()
    for sensor, metric in job.names:
        series = state.find_series(sensor, metric)
        if series is None or series.roll_up is None:
            continue
        for width, start in series.roll_up.rolled_from:
            end = job.limit_ns // width * width
            start = max(start, _kept_from(state, sensor, metric, width, end) // width * width)
            if start >= end or refusals.holds(RollUpName(sensor, metric, width)):
                continue
            rolled = command_pb2.RollUpReadings(
                sensor=sensor,
                metric=metric,
                width_nano=width,
                mark_index=series.roll_up.marked_index,
                rolled_to_unix_nano=end,
            )
            spec = QuerySpec(
                sensor, metric, start, end, WINDOWS_READ_MAX, aggregations=_AGGREGATIONS, step_ns=width
            )
            query, ahead = state.prepare_query(spec, store.snapshot()), None
            if series.last_time >= end:
                first = QuerySpec(sensor, metric, end, limit=1)
                ahead = state.prepare_query(first, store.snapshot())
            one = Prepared(rolled, query, ahead, start, end)
            for figure, aggregation in zip(ROLL_UP_FIGURES, _AGGREGATIONS, strict=True):
                windows = state.find_series(sensor, roll_up_metric(metric, width, figure))
                if windows is not None:
                    one.written[aggregation] = view_series(windows)
            if not series.integer:
                one.raw = view_series(series)
            prepared.append(one)
    return prepared


def _kept_from(state: StateMachine, sensor: str, metric: str, width: int, end: int) -> int:
    """Earlier windows would be dropped as soon as they were written; at least the last one is none of them."""
    policy = state.retention.policies.find(sensor, metric)
    keep_ns = policy.keep_ns_of(width) if policy is not None else 0
    if not keep_ns:
        return TIME_MIN
    written = state.find_series(sensor, roll_up_metric(metric, width, "count"))
    dropped_before = written.dropped_before if written is not None else TIME_MIN
    return min(max(end - keep_ns, -(-dropped_before // width) * width), end - width)


def compute(job: RollUpJob, prepared: list[Prepared]) -> list[command_pb2.Operation]:
    """One operation a width and series."""
    assert job.reader is not None
    operations: list[command_pb2.Operation] = []
    with job.reader as reader:
        for one in prepared:
            _compute_windows(one)
            _empty_windows(one, reader)
            _leave_unchanged(one, reader)
            for figure, aggregation in zip(ROLL_UP_FIGURES, _AGGREGATIONS, strict=True):
                if aggregation in one.columns:
                    one.rolled.columns.append(_encoded(one.rolled, figure, one.columns[aggregation]))
            if one.rolled.rolled_to_unix_nano == one.end:
                one.rolled.rolled_to_unix_nano = _next_window(one)
            elif one.name not in job.again:
                job.again.append(one.name)
            operations.append(command_pb2.Operation(roll_up=one.rolled))
    return operations


def _compute_windows(one: Prepared) -> None:
    pieces: dict[Aggregation, list[Columns]] = {}
    for chunk in one.query.run():
        pieces.setdefault(chunk.aggregation, []).append(Columns(chunk.times, chunk.values))
    one.columns = {aggregation: concatenate(parts) for aggregation, parts in pieces.items()}
    for columns in one.columns.values():
        if len(columns.times) >= WINDOWS_READ_MAX:
            one.rolled.rolled_to_unix_nano = int(columns.times[-1]) + one.rolled.width_nano


def _empty_windows(one: Prepared, reader: StoreReader) -> None:
    counts = one.written.get(Aggregation.COUNT)
    if one.raw is None or counts is None:
        return
    rolled, width = one.rolled, one.rolled.width_nano
    end = rolled.rolled_to_unix_nano
    emptied, looked_to = emptied_windows(
        one.raw,
        counts,
        reader,
        one.columns,
        start=one.start,
        end=end,
        width_ns=width,
        windows_max=WINDOWS_READ_MAX,
    )
    if looked_to < end:
        rolled.rolled_to_unix_nano = looked_to
        one.columns = windows_before(one.columns, looked_to)
    if len(emptied):
        one.columns = with_emptied(one.columns, emptied, _AGGREGATIONS)


def _leave_unchanged(one: Prepared, reader: StoreReader) -> None:
    changed = changed_windows(one.columns, one.written, reader)
    if len(changed) > WINDOWS_MAX:
        changed = changed[:WINDOWS_MAX]
        one.rolled.rolled_to_unix_nano = int(changed[-1]) + one.rolled.width_nano
    one.columns = only_windows(one.columns, changed)


def _encoded(rolled: command_pb2.RollUpReadings, figure: str, columns: Columns) -> command_pb2.SeriesColumns:
    metric = roll_up_metric(rolled.metric, rolled.width_nano, figure)
    return encode_columns(
        rolled.sensor,
        metric,
        columns.times,
        columns.values,
        integer=columns.values.dtype.kind == "i",
    )


def _next_window(one: Prepared) -> int:
    """Where the next window with readings begins: a reading ahead of time is not looked for until it is over."""
    width = one.rolled.width_nano
    chunks = one.ahead.run() if one.ahead is not None else ()
    return max([one.end, *(int(chunk.times[0]) // width * width for chunk in chunks)])
