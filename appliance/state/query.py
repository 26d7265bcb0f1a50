"""Queries: captured on the loop, run in a pool thread while apply goes on.

Invariant: every chunk shows the state at `position`, whatever is applied or checkpointed meanwhile.
Memory is bounded by QUERY_CHUNK_READINGS and SEGMENT_READINGS_MAX, not by the range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from appliance.model import Position
from appliance.state.aggregate import Aggregator, Result, has_integer_results
from appliance.state.columns import Columns, concatenate
from appliance.state.moment import Moment
from appliance.state.results import Aggregation, QueryChunk, QuerySpec
from appliance.state.series import Series
from appliance.state.series_table import SeriesTable
from appliance.state.sweep import SeriesView, read_ascending, rechunk, view_series
from appliance.storage.store import StoreReader

QUERY_CHUNK_READINGS: Final = 8_192
SEGMENT_READINGS_MAX: Final = 65_536
"""What a descending query turns round at once."""

Segment = Iterator[Result]


class _Abandoned(Exception):
    """Nobody wants the results any more."""


@dataclass(slots=True, eq=False)
class PreparedQuery:
    """Capture all of it, a slice a turn of the loop; then run it once, or close it. position: of the state it shows."""

    position: Position
    spec: QuerySpec
    views: Moment[Series, SeriesView]
    reader: StoreReader
    _is_abandoned: bool = False

    def capture_some(self) -> bool:
        """True: it can be run."""
        return self.views.capture_some()

    def run(self) -> Iterator[QueryChunk]:
        """Series in order of (sensor, metric), each aggregation's chunks in order of time (or reverse).

        Aggregations of one series take turns. Closes the reader at the end, or when it is closed or abandoned.
        """
        try:
            assert self.views.is_over, "captured in part"
            for view in self.views.results():
                self.check_wanted()
                if view.integer is not None:
                    yield from self._run_series(view, integer=view.integer)
        except _Abandoned:
            return
        finally:
            self.reader.close()

    def abandon(self) -> None:
        """On any thread: run ends soon, in the middle of a series. What it gave is right, and not all."""
        self._is_abandoned = True

    def check_wanted(self) -> None:
        """Called between pieces and series. Raises what run takes."""
        if self._is_abandoned:
            raise _Abandoned

    def close(self) -> None:
        self.views.close()
        self.reader.close()

    def _run_series(self, view: SeriesView, *, integer: bool) -> Iterator[QueryChunk]:
        spec = self.spec
        first = view.first_time if spec.start is None else max(view.first_time, spec.start)
        last = view.last_time if spec.end is None else min(view.last_time, spec.end - 1)
        if first > last:
            return
        read = _Read(view, spec, self.reader, self.check_wanted)
        if spec.descending and (spec.step_ns or not spec.aggregations):
            results = _descending(read, view, first=first, last=last)
        else:
            results = read.ascending(first, last)
        for aggregation, columns in _limited(results, spec):
            yield QueryChunk(
                sensor=view.sensor,
                metric=view.metric,
                integer=has_integer_results(aggregation, integer=integer) if aggregation else integer,
                times=columns.times,
                values=columns.values,
                aggregation=aggregation,
            )


def begin_query(
    table: SeriesTable, spec: QuerySpec, reader: StoreReader, position: Position
) -> PreparedQuery:
    """Looks at no series yet and opens nothing. reader becomes the query's."""
    views = table.begin_matching(spec.sensor, spec.metric, view_series, spec.is_visible)
    return PreparedQuery(position, spec, views, reader)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """Ascending results between two times: raw readings, or windows."""

    view: SeriesView
    spec: QuerySpec
    reader: StoreReader
    check: Callable[[], None]

    def ascending(self, first: int, last: int) -> Segment:
        spec = self.spec
        pieces = read_ascending(self.view, self.reader, first=first, last=last, check=self.check)
        if spec.aggregations:
            aggregator = Aggregator(
                spec.aggregations, step_ns=spec.step_ns, quantile=spec.quantile, label=spec.start
            )
            yield from aggregator.run(self._checked(rechunk(pieces, QUERY_CHUNK_READINGS)))
        else:
            for piece in pieces:
                yield {Aggregation.RAW: piece}

    def _checked(self, pieces: Iterator[Columns]) -> Iterator[Columns]:
        """Runs that overlap are one piece, of any length."""
        for piece in pieces:
            self.check()
            yield piece


def _descending(read: _Read, view: SeriesView, *, first: int, last: int) -> Segment:
    """Segments from the end, each read ascending and turned round.

    The width follows what comes: too much, and the segment is read again at half the width; little, and
    the next is four times as wide. Windows are never cut.
    """
    step = read.spec.step_ns if read.spec.aggregations else 1
    mean_distance = (view.last_time - view.first_time) // view.reading_count + 1
    width = max(mean_distance * QUERY_CHUNK_READINGS // step, 1)
    high = last
    while high >= first:
        low = max((high // step - width + 1) * step, first)
        segment = _bounded(read.ascending(low, high))
        if segment is None and width > 1:
            width = max(width // 2, 1)
            continue
        assert segment is not None, "one window or instant has one result"
        yield _reversed(segment)
        count = max((len(columns.times) for columns in segment.values()), default=0)
        if count < SEGMENT_READINGS_MAX // 8:
            width *= 4
        high = low - 1


def _bounded(results: Segment) -> Result | None:
    """All results joined; None when they are more than SEGMENT_READINGS_MAX."""
    parts: dict[Aggregation, list[Columns]] = {}
    count = 0
    for result in results:
        for aggregation, columns in result.items():
            parts.setdefault(aggregation, []).append(columns)
        count += max(len(columns.times) for columns in result.values())
        if count > SEGMENT_READINGS_MAX:
            return None
    return {aggregation: concatenate(columns) for aggregation, columns in parts.items()}


def _reversed(result: Result) -> Result:
    return {
        aggregation: Columns(columns.times[::-1], columns.values[::-1])
        for aggregation, columns in result.items()
    }


def _limited(results: Segment, spec: QuerySpec) -> Iterator[tuple[Aggregation, Columns]]:
    """Cut into chunks; each aggregation ends at the limit, the whole when all have."""
    wanted = spec.aggregations or (Aggregation.RAW,)
    room = dict.fromkeys(wanted, spec.limit)
    waiting: dict[Aggregation, list[Columns]] = {aggregation: [] for aggregation in wanted}
    for result in results:
        for aggregation, columns in result.items():
            if spec.limit:
                columns = Columns(columns.times[: room[aggregation]], columns.values[: room[aggregation]])
                room[aggregation] -= len(columns.times)
            waiting[aggregation].append(columns)
            if sum(len(part.times) for part in waiting[aggregation]) >= QUERY_CHUNK_READINGS:
                yield from _chunks(aggregation, waiting[aggregation])
                waiting[aggregation] = []
        if spec.limit and not any(room.values()):
            break
    for aggregation, parts in waiting.items():
        yield from _chunks(aggregation, parts)


def _chunks(aggregation: Aggregation, parts: list[Columns]) -> Iterator[tuple[Aggregation, Columns]]:
    if not parts:
        return
    joined = concatenate(parts)
    for begin in range(0, len(joined.times), QUERY_CHUNK_READINGS):
        end = begin + QUERY_CHUNK_READINGS
        yield aggregation, Columns(joined.times[begin:end], joined.values[begin:end])
