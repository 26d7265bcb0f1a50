"""Which readings go when there are too many bytes: those before one time, of all series.

Where the bytes lie is read from the blocks' keys, because a first and a last time say little: one reading of a sensor
whose clock was wrong moves them by years. Blocks are of about one size. Pool thread; `bytes_of` on the loop.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from appliance.limits import PAGE_BYTES
from appliance.state.series import Series
from appliance.storage.store import StoreReader

SPANS_MAX: Final = 1 << 16
"""Of a larger store every second block is looked at, every fourth, and so on."""

BLOCK_BYTES: Final = 2 * PAGE_BYTES

_KEY: Final = struct.Struct(">QQ")
"""How a key of blocks and late begins: series id, then the least time with its sign bit flipped."""

_SIGN: Final = 1 << 63


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
    """None: nothing that could go."""
    size_bytes = series.size_bytes or series.head_bytes + 4 * len(series.tail_times)
    if series.integer is None or not size_bytes or series.first_time >= droppable_before:
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


def oldest_time_to_free(
    series: list[SeriesBytes], reader: StoreReader, *, share: float, now: int
) -> int | None:
    """The time before which about that share lies of the bytes that may go; closes reader.

    Readings ahead of now count as of now, or a wrong clock would make all the others old.
    None: no reading is older than another.
    """
    with reader:
        spans = _Spans()
        for one in series:
            if not one.has_blocks:
                spans.add(one.first_time, _end(one.first_time, one.last_time, now), one)
        with_blocks = {one.series_id: one for one in series if one.has_blocks}
        for series_id, start, following in _block_times(reader):
            if (found := with_blocks.get(series_id)) is not None:
                end = found.last_time if following is None else following
                spans.add(start, _end(start, end, now), found)
    return spans.time_of(share)


def _block_times(reader: StoreReader) -> Iterator[tuple[int, int, int | None]]:
    """Series id, least time, and that of the series' next block. Late blocks overlap: they have no next."""
    before: tuple[int, int] | None = None
    for series_id, time in map(_decode_key, reader.keys("blocks")):
        if before is not None:
            yield *before, time if series_id == before[0] else None
        before = series_id, time
    if before is not None:
        yield *before, None
    for series_id, time in map(_decode_key, reader.keys("late")):
        yield series_id, time, None


def _decode_key(key: bytes) -> tuple[int, int]:
    series_id, time = _KEY.unpack_from(key)
    return series_id, time - _SIGN


def _end(start: int, end: int, now: int) -> int:
    return min(end, now) if start < now else max(end, start)


@dataclass(slots=True)
class _Spans:
    """Bytes that are spread evenly from start to end, of which those from limit on stay."""

    starts: array[float] = field(default_factory=lambda: array("d"))
    ends: array[float] = field(default_factory=lambda: array("d"))
    limits: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[float] = field(default_factory=lambda: array("d"))
    stride: int = 1
    passed: int = 0

    def add(self, start: int, end: int, one: SeriesBytes) -> None:
        self.passed += 1
        if self.passed % self.stride:
            return
        self.starts.append(start)
        self.ends.append(end)
        self.limits.append(one.droppable_before)
        self.sizes.append(BLOCK_BYTES if one.has_blocks else one.size_bytes)
        if len(self.starts) >= 2 * SPANS_MAX:
            self.stride *= 2
            for column in (self.starts, self.ends, self.limits, self.sizes):
                del column[::2]

    def time_of(self, share: float) -> int | None:
        if not self.starts:
            return None
        start, end, limit, size = map(np.array, (self.starts, self.ends, self.limits, self.sizes))

        def freed_before(time: float) -> float:
            part = np.clip((np.minimum(time, limit) - start) / np.maximum(end - start, 1), 0, 1)
            return float((part * size).sum())

        low, high = float(start.min()), float(np.minimum(end, limit).max())
        if not low < high:
            return None
        wanted = share * freed_before(high)
        for _ in range(60):
            middle = (low + high) / 2
            if freed_before(middle) < wanted:
                low = middle
            else:
                high = middle
        return int(high)
