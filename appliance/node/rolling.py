"""One round of roll-ups: some series' windows, from the state behind their mark to the operations that hold them.

Invariant: windows are computed from one state, at or behind the mark, and written only while the mark is the series'
last: what was written since counts as new. `prepare` on the loop, `compute` in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from appliance.limits import KIB
from appliance.state import Aggregation, QuerySpec, StateMachine
from appliance.state.columns import Columns, concatenate
from appliance.state.operations import encode_columns
from appliance.state.query import PreparedQuery
from appliance.state.retention import ROLL_UP_FIGURES, roll_up_metric
from appliance.storage.store import Store
from raftberry.internal.v1 import command_pb2

WINDOWS_MAX: Final = 4_000
"""Of one series and width in a round; what is left follows in the next."""

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
    """Series with more windows than one round computes."""

    def take(self) -> list[command_pb2.Operation]:
        """Results for one entry."""
        assert self.results
        taken, size = 0, 0
        while taken < len(self.results) and (not taken or size < RESULT_BYTES_PER_ENTRY):
            size += self.results[taken].ByteSize()
            taken += 1
        operations, self.results = self.results[:taken], self.results[taken:]
        return operations


@dataclass(slots=True)
class Prepared:
    """One width of one series."""

    rolled: command_pb2.RollUpReadings
    query: PreparedQuery
    end: int
    columns: dict[Aggregation, list[Columns]] = field(default_factory=dict)

    @property
    def name(self) -> tuple[str, str]:
        return self.rolled.sensor, self.rolled.metric


def prepare(job: RollUpJob, state: StateMachine, store: Store) -> list[Prepared]:
    """Series that were deleted, or lost their policy, since they were found are left out."""
    prepared: list[Prepared] = []
    for sensor, metric in job.names:
        series = state.find_series(sensor, metric)
        if series is None or series.roll_up is None:
            continue
        for width, start in series.roll_up.rolled_from:
            end = job.limit_ns // width * width
            if start >= end:
                continue
            rolled = command_pb2.RollUpReadings(
                sensor=sensor,
                metric=metric,
                width_nano=width,
                mark_index=series.roll_up.marked_index,
                rolled_to_unix_nano=end,
            )
            spec = QuerySpec(
                sensor, metric, start, end, WINDOWS_MAX, aggregations=_AGGREGATIONS, step_ns=width
            )
            prepared.append(Prepared(rolled, state.prepare_query(spec, store.snapshot()), end))
    return prepared


def compute(job: RollUpJob, prepared: list[Prepared]) -> list[command_pb2.Operation]:
    """One operation a width and series."""
    operations: list[command_pb2.Operation] = []
    for one in prepared:
        for chunk in one.query.run():
            one.columns.setdefault(chunk.aggregation, []).append(Columns(chunk.times, chunk.values))
        for figure, aggregation in zip(ROLL_UP_FIGURES, _AGGREGATIONS, strict=True):
            if aggregation not in one.columns:
                continue
            columns = concatenate(one.columns[aggregation])
            metric = roll_up_metric(one.rolled.metric, one.rolled.width_nano, figure)
            integer = columns.values.dtype.kind == "i"
            one.rolled.columns.append(
                encode_columns(one.rolled.sensor, metric, columns.times, columns.values, integer=integer)
            )
            if len(columns.times) >= WINDOWS_MAX:
                one.rolled.rolled_to_unix_nano = int(columns.times[-1]) + one.rolled.width_nano
        if one.rolled.rolled_to_unix_nano < one.end and one.name not in job.again:
            job.again.append(one.name)
        operations.append(command_pb2.Operation(roll_up=one.rolled))
    return operations
