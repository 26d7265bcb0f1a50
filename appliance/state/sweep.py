"""Readings of one series in order of time, merged from durable blocks and what memory held.

Invariant: each time once, with the value written last; at most the runs that overlap are decoded at
once, so that memory does not grow with the length of the series. Everything here is immutable or owned
by the iterator: a pool thread runs it while apply goes on.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from appliance.errors import CorruptData
from appliance.state.columns import Columns, concatenate, pack, sort_keep_last, unpack
from appliance.state.layouts import block_key, decode_block
from appliance.state.series import Chunk, HeadView, RollUpProgress, Series
from appliance.storage.store import StoreReader

TIME_MIN = -(1 << 63)
TIME_MAX = (1 << 63) - 1
_MEMORY = 1 << 64
"""Above every sequence."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesView:
    """One series at one moment. integer None: nothing was ever written."""

    series_id: int
    sensor: str
    metric: str
    integer: bool | None
    head: HeadView
    reading_count: int
    first_time: int
    last_time: int
    span_max: int
    floor: int | None
    written_from: int
    dropped_before: int
    roll_up: RollUpProgress | None


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """order: later writes compare greater. floor: readings below it don't count."""

    order: tuple[int, int]
    chunk: Chunk
    floor: int = TIME_MIN


def view_series(series: Series) -> SeriesView:
    return SeriesView(
        series_id=series.series_id,
        sensor=series.sensor,
        metric=series.metric,
        integer=series.integer,
        head=series.view(),
        reading_count=series.reading_count,
        first_time=series.first_time,
        last_time=series.last_time,
        span_max=series.span_max,
        floor=series.floor,
        written_from=series.written_from,
        dropped_before=series.dropped_before,
        roll_up=series.roll_up,
    )


def load_chunk(chunk: Chunk, *, integer: bool, where: str) -> Columns:
    """The chunk's readings, ascending, each time once."""
    try:
        return sort_keep_last(
            unpack(
                codec=chunk.codec,
                count=chunk.count,
                integer=integer,
                times=chunk.times,
                values=chunk.values,
            )
        )
    except ValueError as error:
        raise CorruptData(where, f"{error}; rebuild this node from its peers") from error


def check_block(key: bytes, record: bytes) -> None:
    """Raises CorruptData unless every column of the block holds what its header says."""
    block = decode_block(key, record)
    for chunk in block.chunks:
        load_chunk(chunk, integer=block.integer, where=f"store blocks {key.hex()}")


def chunk_from(chunk: Chunk, first: int, series: Series) -> Chunk | None:
    """What of a chunk of series is not older than first; None: nothing."""
    columns = load_chunk(chunk, integer=bool(series.integer), where=f"readings of {series.name}")
    columns = clip(columns, first, TIME_MAX)
    return pack_chunk(columns) if len(columns.times) else None


def pack_chunk(columns: Columns) -> Chunk:
    """columns ascend and are not empty."""
    codec, times, values = pack(columns.times, columns.values)
    return Chunk(codec, len(columns.times), times, values, int(columns.times[0]), int(columns.times[-1]))


def read_ascending(
    view: SeriesView, reader: StoreReader, *, first: int, last: int, check: Callable[[], None] = lambda: None
) -> Iterator[Columns]:
    """Readings with first <= time <= last, in pieces of any length above 0.

    check: called before each run is decoded or left out, some milliseconds apart; what it raises ends the read.
    """
    integer = bool(view.integer)
    where = f"series {view.sensor}/{view.metric}"
    opened: list[tuple[tuple[int, int], Columns]] = []
    runs = heapq.merge(
        _durable_runs(view, reader, first, last), _memory_runs(view), key=lambda run: run.chunk.min_time
    )
    for run in runs:
        check()
        if run.chunk.max_time < first or run.chunk.min_time > last:
            continue
        # Nothing that is still to come lies before this run: all below it is complete.
        if opened and run.chunk.min_time > first:
            complete, opened = _split(opened, run.chunk.min_time - 1)
            if complete:
                yield _merge(complete)
        columns = load_chunk(run.chunk, integer=integer, where=where)
        opened.append((run.order, clip(columns, max(first, run.floor), last)))
    complete, _ = _split(opened, TIME_MAX)
    if complete:
        yield _merge(complete)


def rechunk(pieces: Iterator[Columns], size: int) -> Iterator[Columns]:
    """The same readings in pieces of exactly size, but the last."""
    waiting: list[Columns] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece.times)
        while count >= size:
            joined = concatenate(waiting)
            yield Columns(joined.times[:size], joined.values[:size])
            count -= size
            waiting = [Columns(joined.times[size:], joined.values[size:])]
    if count:
        yield concatenate(waiting)


def key_behind(series_id: int, last: int) -> bytes:
    """What follows, in the store, all blocks of the series that begin at last or before."""
    return block_key(series_id, last + 1, 0) if last < TIME_MAX else block_key(series_id + 1, TIME_MIN, 0)


def _durable_runs(view: SeriesView, reader: StoreReader, first: int, last: int) -> Iterator[_Run]:
    if not view.head.next_sequence:
        return
    stop = key_behind(view.series_id, last)
    starts = (("blocks", max(first - view.span_max, TIME_MIN)), ("late", TIME_MIN))
    scans = (reader.scan(table, block_key(view.series_id, start, 0), stop) for table, start in starts)
    floor = TIME_MIN if view.floor is None else view.floor
    yield from heapq.merge(*(_block_runs(scan, floor) for scan in scans), key=lambda run: run.chunk.min_time)


def _block_runs(records: Iterator[tuple[bytes, bytes]], floor: int) -> Iterator[_Run]:
    """The chunks of blocks, by min_time: those of one block may lie behind the beginning of the next."""
    waiting: list[tuple[int, tuple[int, int], _Run]] = []
    for key, record in records:
        block = decode_block(key, record)
        while waiting and waiting[0][0] <= block.min_time:
            yield heapq.heappop(waiting)[2]
        for place, chunk in enumerate(block.chunks):
            order = (block.sequence, place)
            heapq.heappush(waiting, (chunk.min_time, order, _Run(order, chunk, floor)))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _memory_runs(view: SeriesView) -> list[_Run]:
    """Later than every durable block, but for those that a checkpoint just wrote from these very chunks."""
    runs = [_Run((_MEMORY, place), chunk) for place, chunk in enumerate(view.head.chunks())]
    return sorted(runs, key=lambda run: run.chunk.min_time)


def clip(columns: Columns, first: int, last: int) -> Columns:
    times = columns.times
    if first <= int(times[0]) and int(times[-1]) <= last:
        return columns
    begin = int(np.searchsorted(times, first, side="left"))
    end = int(np.searchsorted(times, last, side="right"))
    return Columns(times[begin:end], columns.values[begin:end])


Opened = list[tuple[tuple[int, int], Columns]]


def _split(opened: Opened, horizon: int) -> tuple[Opened, Opened]:
    """(what is at or below horizon, what is above), without empty parts."""
    below: Opened = []
    above: Opened = []
    for order, columns in opened:
        cut = int(np.searchsorted(columns.times, horizon, side="right"))
        if cut:
            below.append((order, Columns(columns.times[:cut], columns.values[:cut])))
        if cut < len(columns.times):
            above.append((order, Columns(columns.times[cut:], columns.values[cut:])))
    return below, above


def _merge(parts: Opened) -> Columns:
    parts.sort(key=lambda part: part[0])
    return sort_keep_last(concatenate([columns for _, columns in parts]))
