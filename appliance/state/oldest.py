"""Which readings go when there are too many bytes: those before one time, of all series.

Where the bytes lie is read from blocks, because a first and a last time say little: one reading of a sensor whose clock
was wrong moves them by years. Of a large store some blocks speak for all. Pool thread; `bytes_of` on the loop.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from appliance.errors import CorruptData
from appliance.state.layouts import Block, decode_block, decode_id, encode_id
from appliance.state.series import Series
from appliance.storage.store import StoreReader

SAMPLES_MAX: Final = 1_024
"""Blocks that are read, at most twice as many: 16 MB."""


_ID_BYTES: Final = len(encode_id(0))


class SeriesBytes(NamedTuple):
    """size_bytes: of durable blocks, of the head where there is none. droppable_before: later readings must stay."""

    series_id: int
    sensor: str
    metric: str
    first_time: int
    last_time: int
    size_bytes: int
    has_blocks: bool
    droppable_before: int


def bytes_of(series: Series, droppable_before: int) -> SeriesBytes | None:
    """None: it holds nothing."""
    size_bytes = series.size_bytes or series.head_bytes + 4 * len(series.tail_times)
    if series.integer is None or not size_bytes:
        return None
    return SeriesBytes(
        series.series_id,
        series.sensor,
        series.metric,
        series.first_time,
        series.last_time,
        size_bytes,
        bool(series.size_bytes),
        droppable_before,
    )


class Oldest(NamedTuple):
    """What to drop. drops: sensor, metric, and before which time: the same; none: nothing that may go is older.

    size_bytes: of series that go whole. droppable_bytes: of all readings that may go. waiting_bytes: of those that
    must stay until they are rolled up.
    """

    before: int
    drops: list[tuple[str, str, int]]
    size_bytes: int
    droppable_bytes: int
    waiting_bytes: int


def choose_oldest(survey: Iterable[SeriesBytes], reader: StoreReader, *, share: float, now: int) -> Oldest:
    """About that share of the bytes that may go; closes reader."""
    found = list(survey)
    spans = spans_of(found, reader, now=now)
    before = spans.time_of(share)
    total_bytes = sum(one.size_bytes for one in found)
    droppable_bytes = round(spans.droppable_part() * total_bytes)
    waiting_bytes = total_bytes - droppable_bytes
    if before is None:
        return Oldest(0, [], 0, droppable_bytes, waiting_bytes)
    drops = [
        (one.sensor, one.metric, before)
        for one in found
        if one.first_time < min(before, one.droppable_before)
    ]
    size_bytes = sum(one.size_bytes for one in found if one.last_time < min(before, one.droppable_before))
    return Oldest(before, drops, size_bytes, droppable_bytes, waiting_bytes)


def spans_of(series: list[SeriesBytes], reader: StoreReader, *, now: int) -> Spans:
    """Where the bytes lie; closes reader.

    Readings ahead of now count as of now, or a wrong clock would make all the others old.
    """
    spans = Spans()
    for one in series:
        if not one.has_blocks:
            spans.add(one.first_time, one.last_time, one, now=now, size=one.size_bytes)
    with_blocks = {one.series_id: one for one in series if one.has_blocks}
    with reader:
        keys, stride = _sample(reader, with_blocks)
        for block in _read(reader, keys):
            for chunk in block.chunks:
                size = stride * (len(chunk.times) + len(chunk.values))
                one = with_blocks[block.series_id]
                spans.add(chunk.min_time, chunk.max_time, one, now=now, size=size)
    return spans


def _sample(reader: StoreReader, series: dict[int, SeriesBytes]) -> tuple[list[tuple[str, bytes]], int]:
    """Keys of blocks, and how many blocks each stands for."""
    found: list[tuple[str, bytes]] = []
    stride, passed = 1, 0
    for table in ("blocks", "late"):
        for key in reader.keys(table):
            if decode_id(table, key[:_ID_BYTES]) not in series:
                continue
            passed += 1
            if passed % stride == 0:
                found.append((table, key))
            if len(found) >= 2 * SAMPLES_MAX:
                del found[::2]
                stride *= 2
    return found, stride


def _read(reader: StoreReader, keys: list[tuple[str, bytes]]) -> Iterator[Block]:
    """What does not make sense is the scrub's to find and to report."""
    for table, key in keys:
        try:
            record = reader.get(table, key)
            if record is not None:
                yield decode_block(key, record)
        except CorruptData:
            continue


@dataclass(slots=True)
class Spans:
    """Bytes that are spread evenly from start to end, of which those from limit on stay."""

    starts: array[float] = field(default_factory=lambda: array("d"))
    ends: array[float] = field(default_factory=lambda: array("d"))
    limits: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[float] = field(default_factory=lambda: array("d"))

    def add(self, start: int, end: int, one: SeriesBytes, *, now: int, size: int) -> None:
        self.starts.append(start)
        self.ends.append(min(end, now) if start < now else end)
        self.limits.append(one.droppable_before)
        self.sizes.append(size)

    def time_of(self, share: float) -> int | None:
        """Before which about that share lies of the bytes that may go; None: none that may is older than another."""
        if not self.starts:
            return None
        low, high = min(self.starts), max(map(min, self.ends, self.limits))
        wanted = share * self._freed_before(high)
        if not wanted:
            return None
        for _ in range(60):
            middle = (low + high) / 2
            if self._freed_before(middle) < wanted:
                low = middle
            else:
                high = middle
        return int(high)

    def droppable_part(self) -> float:
        """Of the bytes."""
        return self._freed_before(math.inf) / sum(self.sizes) if self.sizes else 1.0

    def _freed_before(self, time: float) -> float:
        start, end, limit, size = map(np.asarray, (self.starts, self.ends, self.limits, self.sizes))
        part = np.clip((np.minimum(time, limit) - start) / np.maximum(end - start, 1), 0, 1)
        return float((part * size).sum())
