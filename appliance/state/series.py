"""One series in memory: its head (readings that no block in the store holds yet) and its figures.

Invariant: `chunks`, then the tail hold, in the order they were written, exactly the readings that no durable block
holds yet: where times are equal, a later place means a later write.
Apply appends only; merging and encoding blocks is left to the checkpoint (blocks.py), on another
thread, from what is captured here. Memory: about 1 KiB a series and some KiB of readings.
Loop thread only; Chunk is immutable.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from appliance import limits
from appliance.state.columns import CODEC_RAW, Columns, pack, value_dtype

TAIL_READINGS_MAX: Final = 128
"""16 bytes each until they are packed: 2 to 6."""

NO_READINGS: Final = (0, -1)
"""first and last time of a series that was named but never written."""

NOTHING_DROPPED: Final = -(1 << 63)
NOTHING_WRITTEN: Final = (1 << 63) - 1
"""written_from, when there is nothing; a lone reading at this very time is never rolled up."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Readings as written, packed. The codec is that of SeriesColumns."""

    codec: int
    count: int
    times: bytes
    values: bytes
    min_time: int
    max_time: int


class RollUpProgress(NamedTuple):
    """marked_index: of the last MarkRollUps. rolled_from: by width, the least time whose window waits."""

    marked_index: int
    rolled_from: tuple[tuple[int, int], ...]


class HeadView(NamedTuple):
    """What one series holds in memory at one moment. Durable blocks have sequences below next_sequence.

    A tuple, because one is made for every changed series while a checkpoint is captured.
    """

    packed: tuple[Chunk, ...]
    tail_times: bytes
    tail_values: bytes
    next_sequence: int

    def chunks(self) -> tuple[Chunk, ...]:
        """The head in the order it was written."""
        return (*self.packed, *_tail_chunk(self.tail_times, self.tail_values))


class Series:
    """integer: None until the first reading. labels: None until SetSeries.

    last_value is the value at last_time. size_bytes: of durable blocks. span_max: the greatest
    max_time - min_time of any block but late ones: where a search by min_time must begin.
    head_bytes: of chunks, about.
    captured_count: how many of chunks a checkpoint under way has captured to make blocks of.
    purge_before: readings of durable blocks below it are gone; the next checkpoint takes them out, purging while it
    is under way. What was written since lies in the head and may be older.
    dropped_before: greatest time that readings were ever dropped before. roll_up: None until the series is first
    rolled up (retention.py). written_from: least time written since then.
    """

    __slots__ = (
        "captured_count", "chunks", "dropped_before", "first_time", "head_bytes", "head_count", "integer",
        "labels", "last_time", "last_value", "metric", "next_sequence", "purge_before", "purging",
        "reading_count", "roll_up", "sensor", "series_id", "size_bytes", "span_max", "tail_times",
        "tail_values", "unit", "written_from",
    )  # fmt: skip

    def __init__(self, series_id: int, sensor: str, metric: str) -> None:
        self.series_id = series_id
        self.sensor = sensor
        self.metric = metric
        self.integer: bool | None = None
        self.unit = ""
        self.labels: Mapping[str, str] | None = None
        self.reading_count = 0
        self.first_time, self.last_time = NO_READINGS
        self.last_value: float | int = 0
        self.size_bytes = 0
        self.next_sequence = 0
        self.span_max = 0
        self.chunks: list[Chunk] = []
        self.captured_count = 0
        self.purge_before: int | None = None
        self.purging: int | None = None
        self.dropped_before = NOTHING_DROPPED
        self.written_from = NOTHING_WRITTEN
        self.roll_up: RollUpProgress | None = None
        self.head_count = self.head_bytes = 0
        self.tail_times = array("q")
        self.tail_values: array[float] | array[int] = array("d")

    @property
    def name(self) -> str:
        return f"{self.sensor}/{self.metric}"

    def set_kind(self, *, integer: bool) -> None:
        assert self.integer is None
        self.integer = integer
        if integer:
            self.tail_values = array("q")

    def append_one(self, time: int, value: float | int) -> None:
        """One reading: the cheap way."""
        self.tail_times.append(time)
        self.tail_values.append(value)  # type: ignore[arg-type]
        if not self.reading_count:
            self.first_time = self.last_time = time
            self.last_value = value
        elif time >= self.last_time:
            self.last_time = time
            self.last_value = value
        elif time < self.first_time:
            self.first_time = time
        self.reading_count += 1
        self.head_count += 1
        if time < self.written_from:
            self.written_from = time
        if len(self.tail_times) >= TAIL_READINGS_MAX:
            self._pack_tail()

    def append(self, columns: Columns, codec: int, times: bytes, values: bytes) -> None:
        """Many readings; times and values are columns' bytes in codec."""
        count = len(columns.times)
        if codec == CODEC_RAW and count <= TAIL_READINGS_MAX:
            few = array("q", times)  # numpy takes several times as long for so few
            min_time, max_time = min(few), max(few)
        else:
            min_time, max_time = int(columns.times.min()), int(columns.times.max())
        place = count - 1
        if columns.times[place] != max_time:
            place -= int(np.argmax(columns.times[::-1]))
        if not self.reading_count:
            self.first_time, self.last_time = min_time, max_time
            self.last_value = columns.values[place].item()
        else:
            self.first_time = min(self.first_time, min_time)
            if max_time >= self.last_time:
                self.last_time, self.last_value = max_time, columns.values[place].item()
        self.reading_count += count
        self.head_count += count
        self.written_from = min(self.written_from, min_time)
        if codec == CODEC_RAW and len(self.tail_times) + count <= TAIL_READINGS_MAX:
            self.tail_times.frombytes(times)
            self.tail_values.frombytes(values)
        else:
            self._pack_tail()
            self._add_chunk(Chunk(codec, count, times, values, min_time, max_time))

    def view(self) -> HeadView:
        """Immutable; costs references and a copy of the tail."""
        return HeadView(
            tuple(self.chunks),
            self.tail_times.tobytes(),
            self.tail_values.tobytes(),
            self.next_sequence,
        )

    def freeze_tail(self) -> None:
        """The tail becomes a chunk, as it is: what is captured now can be told from what comes later."""
        for chunk in _tail_chunk(self.tail_times.tobytes(), self.tail_values.tobytes()):
            self._add_chunk(chunk)
            self._clear_tail()

    @property
    def floor(self) -> int | None:
        """Readings of durable blocks below it don't count any more."""
        floors = [floor for floor in (self.purge_before, self.purging) if floor is not None]
        return max(floors, default=None)

    def replace_captured(self, kept: list[Chunk], without: Callable[[Chunk, int], Chunk | None]) -> None:
        """The captured chunks are durable in blocks, but for what is kept. without: as in drop_before."""
        if self.purge_before is not None:
            before = self.purge_before
            rests = [chunk if chunk.min_time >= before else without(chunk, before) for chunk in kept]
            kept = [chunk for chunk in rests if chunk is not None]
        self.chunks[: self.captured_count] = kept
        self.captured_count = 0
        self._count_head()

    def drop_before(self, before: int, without: Callable[[Chunk, int], Chunk | None]) -> None:
        """All readings written so far that are older. without: the chunk from a time on, None: nothing is left."""
        self.freeze_tail()
        left: list[Chunk] = []
        captured_count = 0
        for place, chunk in enumerate(self.chunks):
            rest = chunk if chunk.min_time >= before else without(chunk, before)
            if rest is not None:
                left.append(rest)
                captured_count += place < self.captured_count
        self.chunks, self.captured_count = left, captured_count
        self._count_head()
        self.purge_before = before if self.purge_before is None else max(self.purge_before, before)
        self.first_time = max(self.first_time, before)
        self.dropped_before = max(self.dropped_before, before)

    def _count_head(self) -> None:
        self.head_count = sum(chunk.count for chunk in self.chunks) + len(self.tail_times)
        self.head_bytes = sum(map(_size, self.chunks))

    def load_chunk(self, chunk: Chunk) -> None:
        """Of a checkpoint."""
        self.head_count += chunk.count
        self._add_chunk(chunk)

    def _pack_tail(self) -> None:
        """Shrinks what waits for its block; the encoder is called once in TAIL_READINGS_MAX readings."""
        for chunk in _tail_chunk(self.tail_times.tobytes(), self.tail_values.tobytes()):
            if chunk.count >= limits.ENCODE_READINGS_MIN:
                dtype = value_dtype(integer=bool(self.integer))
                codec, times, values = pack(
                    np.frombuffer(chunk.times, np.int64), np.frombuffer(chunk.values, dtype), is_quick=True
                )
                chunk = Chunk(codec, chunk.count, times, values, chunk.min_time, chunk.max_time)
            self._add_chunk(chunk)
        self._clear_tail()

    def _clear_tail(self) -> None:
        self.tail_times = array("q")
        self.tail_values = array(self.tail_values.typecode)

    def _add_chunk(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.head_bytes += _size(chunk)


def _size(chunk: Chunk) -> int:
    """What the chunk's readings will take in a block: those that are encoded anew some 4 bytes each."""
    return (
        4 * chunk.count
        if chunk.codec == CODEC_RAW
        else min(len(chunk.times) + len(chunk.values), 4 * chunk.count)
    )


def _tail_chunk(times: bytes, values: bytes) -> tuple[Chunk, ...]:
    """One raw chunk, none of an empty tail."""
    if not times:
        return ()
    column = array("q", times)
    return (Chunk(CODEC_RAW, len(column), times, values, min(column), max(column)),)
