"""From a head's chunks to blocks that fill the store's pages; the rest stays head. Called by the committer.

Invariant: blocks and what is kept hold the readings given, each time once with the value written last, and no time is
in two of them.
A large value takes whole pages of LMDB: blocks of 1,000 readings of 3.3 bytes took 4.1 bytes each there. So blocks are
cut by encoded size. Chunks that came large enough (batches of a client) are stored as they came, several to a block;
small ones are merged and encoded again. A block does not reach across a gap of several blocks' lengths, so that a range
of time is found in few of them: what lies scattered goes into blocks of its own. They are `late`, unless the series is
made of such bursts: where most of its blocks are as long, a long one costs a search nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance import limits
from appliance.state.columns import CODEC_PCODEC, Columns, Times, concatenate, sort_keep_last
from appliance.state.layouts import Block, HeadFigures, block_bytes
from appliance.state.series import Chunk
from appliance.state.sweep import load_chunk, pack_chunk

AS_IS_READINGS_MIN: Final = 512
"""Below it a chunk gains more from being encoded anew than that costs (3.4 bytes a reading against 4.1)."""

AS_IS_CHUNKS_MAX: Final = 16
WASTE_MAX: Final = 0.02
"""Of a block's pages; a block that is filled better is not tried to be filled more."""

CUT_TRIES_MAX: Final = 5
GAP_BLOCKS: Final = 4
"""A gap this many times as long as a usual block ends a block."""

KEPT_BLOCKS_MAX: Final = 3
"""Blocks' worth of readings that a head keeps for want of neighbours; beyond it they share blocks."""

KEPT_CHUNKS_MAX: Final = 256
"""However small they are: each costs 300 bytes of memory. A head with more is made into blocks (checkpoint.py)."""


@dataclass(slots=True)
class Built:
    """kept: ascending and apart in time. late: blocks that reach over long times."""

    blocks: list[Block] = field(default_factory=list)
    late: list[Block] = field(default_factory=list)
    kept: list[Chunk] = field(default_factory=list)

    def span_max(self) -> int:
        return max((block.max_time - block.min_time for block in self.blocks), default=0)


class BlockBuilder:
    """For the blocks of one series at one checkpoint."""

    def __init__(self, series_id: int, figures: HeadFigures, *, page_bytes: int) -> None:
        self._series_id, self._figures = series_id, figures
        self._sequence = figures.next_sequence
        self._page_bytes = page_bytes
        self._target = block_target(page_bytes)
        self._built = Built()
        self._bytes_per_reading = 4.0

    def build(self, chunks: Sequence[Chunk]) -> Built:
        """chunks in the order they were written."""
        as_is, others = _sift(chunks)
        rests = [rest for run in _runs(as_is) if (rest := self._store_as_is(run))]
        if others:
            where = f"readings of series {self._series_id}"
            columns = [load_chunk(chunk, integer=self._figures.integer, where=where) for chunk in others]
            self._encode(sort_keep_last(concatenate(columns)))
        self._keep_or_share(rests)
        self._built.kept.sort(key=lambda chunk: chunk.min_time)
        assert len(self._built.kept) <= KEPT_CHUNKS_MAX + 2 * AS_IS_CHUNKS_MAX
        return self._built

    @property
    def next_sequence(self) -> int:
        return self._sequence

    def _store_as_is(self, chunks: list[Chunk]) -> list[Chunk]:
        """Chunks of one stretch of time; returns those that are left."""
        groups, rest = self._group(chunks)
        for group in groups:
            self._add(self._built.blocks, group)
        return rest

    def _group(self, chunks: list[Chunk]) -> tuple[list[list[Chunk]], list[Chunk]]:
        """(as many to a block as fill its pages best; what is left and fills none)."""
        groups: list[list[Chunk]] = []
        while chunks:
            sizes = [
                block_bytes(chunks[:count]) for count in range(1, min(len(chunks), AS_IS_CHUNKS_MAX) + 1)
            ]
            wastes = [self._waste(size) for size in sizes]
            place = next((place for place, waste in enumerate(wastes) if waste <= WASTE_MAX), None)
            if place is None:
                if len(chunks) < AS_IS_CHUNKS_MAX and sizes[-1] < self._target:
                    break
                place = wastes.index(min(wastes))
            groups.append(chunks[: place + 1])
            chunks = chunks[place + 1 :]
        return groups, chunks

    def _keep_or_share(self, runs: list[list[Chunk]]) -> None:
        """Runs that fill no block each; beyond what a head keeps all but the last, which may go on, share blocks."""
        chunks = [chunk for run in runs for chunk in run]
        if len(runs) > 1 and self._is_too_much([*self._built.kept, *chunks]):
            groups, rest = self._group(chunks[: -len(runs[-1])])
            span_max = self._shared_span_max([*groups, runs[-1]])
            for group in groups:
                is_usual = group[-1].max_time - group[0].min_time <= span_max
                self._add(self._built.blocks if is_usual else self._built.late, group)
            chunks = [*rest, *runs[-1]]
        self._built.kept.extend(chunks)

    def _shared_span_max(self, groups: list[list[Chunk]]) -> float:
        """A longer block is late: it would have every search look at more than some blocks in vain."""
        figures = self._figures
        block_size = max(self._target, sum(map(block_bytes, groups)) / len(groups))
        distance = (figures.last_time - figures.first_time) / (figures.size_bytes / block_size + len(groups))
        begins = [group[0].min_time for group in groups]
        usual = median([after - before for before, after in pairwise(begins)] or [0])
        return max(figures.span_max, GAP_BLOCKS * min(distance, usual))

    def _is_too_much(self, kept: list[Chunk]) -> bool:
        return block_bytes(kept) > KEPT_BLOCKS_MAX * self._target or len(kept) > KEPT_CHUNKS_MAX

    def _encode(self, columns: Columns) -> None:
        remainders: list[Columns] = []
        for segment in self._segments(columns):
            begin = self._cut(segment, self._built.blocks)
            if begin < len(segment.times):
                remainders.append(Columns(segment.times[begin:], segment.values[begin:]))
        kept = [pack_chunk(remainder) for remainder in remainders]
        if len(kept) > 1 and self._is_too_much(kept):
            scattered = concatenate(remainders[:-1])
            begin = self._cut(scattered, self._built.late)
            kept = kept[-1:]
            if begin < len(scattered.times):
                kept.append(pack_chunk(Columns(scattered.times[begin:], scattered.values[begin:])))
        self._built.kept.extend(kept)

    def _segments(self, columns: Columns) -> list[Columns]:
        times = columns.times
        if len(times) < 2:
            return [columns]
        gaps = _gaps(times)
        usual = float(np.median(gaps)) * self._target / self._bytes_per_reading
        cuts = np.flatnonzero(gaps > GAP_BLOCKS * usual) + 1
        bounds = [0, *cuts.tolist(), len(times)]
        return [Columns(times[begin:end], columns.values[begin:end]) for begin, end in pairwise(bounds)]

    def _cut(self, columns: Columns, blocks: list[Block]) -> int:
        """Full blocks from the front; where what is left begins."""
        begin = 0
        while (chunk := self._full(columns, begin)) is not None:
            self._add(blocks, [chunk])
            begin += chunk.count
        return begin

    def _full(self, columns: Columns, begin: int) -> Chunk | None:
        """The longest chunk from begin on that fits into a block, as far as few tries find it; None: no full one."""
        left = min(len(columns.times) - begin, limits.BLOCK_READINGS_MAX)
        found: Chunk | None = None
        count, above = min(int(self._target / self._bytes_per_reading) + 1, left), left + 1
        for _ in range(CUT_TRIES_MAX):
            if count < 1:
                break
            chunk = pack_chunk(
                Columns(columns.times[begin : begin + count], columns.values[begin : begin + count])
            )
            size = block_bytes([chunk])
            self._bytes_per_reading = max(size / count, 0.05)
            if size <= self._target:
                if found is None or count > found.count:
                    found = chunk
                if count == left or self._waste(size) <= WASTE_MAX:
                    break
                # Half a percent below the proportion: one step too far costs another try.
                count = max(min(int(count * self._target / size * 0.995), above - 1, left), count + 1)
            else:
                above = min(above, count)
                count = min(int(count * self._target / size * 0.995), count - 1)
            if found is not None and not found.count < count < above:
                break
        if found is None:
            return None
        is_full = self._waste(block_bytes([found])) <= 4 * WASTE_MAX or found.count < left
        return found if is_full or found.count == limits.BLOCK_READINGS_MAX else None

    def _waste(self, size: int) -> float:
        """Share of the pages that a record of such a block leaves empty."""
        stored = size + limits.BLOCK_RECORD_OVERHEAD
        pages = -(-stored // self._page_bytes)
        return 1 - stored / (pages * self._page_bytes)

    def _add(self, blocks: list[Block], chunks: Sequence[Chunk]) -> None:
        blocks.append(Block(self._series_id, self._sequence, self._figures.integer, tuple(chunks)))
        self._sequence += 1


def block_target(page_bytes: int) -> int:
    """Bytes of a block's value: with what LMDB and the record's envelope add, whole pages, 8 KiB or one page."""
    pages = max(1, 2 * limits.PAGE_BYTES // page_bytes) if page_bytes >= limits.PAGE_BYTES else 2
    return pages * page_bytes - limits.BLOCK_RECORD_OVERHEAD


def _sift(chunks: Sequence[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """(those that may be stored as they came, ascending; the others as written)."""
    order = sorted(range(len(chunks)), key=lambda place: chunks[place].min_time)
    as_is: set[int] = set()
    reach: int | None = None
    for rank, place in enumerate(order):
        chunk = chunks[place]
        following = chunks[order[rank + 1]].min_time if rank + 1 < len(order) else None
        is_apart = (reach is None or reach < chunk.min_time) and (
            following is None or chunk.max_time < following
        )
        is_large = AS_IS_READINGS_MIN <= chunk.count <= limits.BLOCK_READINGS_MAX
        if is_apart and is_large and chunk.codec == CODEC_PCODEC:
            as_is.add(place)
        reach = chunk.max_time if reach is None else max(reach, chunk.max_time)
    return [chunks[place] for place in order if place in as_is], [
        chunk for place, chunk in enumerate(chunks) if place not in as_is
    ]


def _runs(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Cut where a gap is many times as long as the chunks beside it."""
    runs: list[list[Chunk]] = []
    for chunk in chunks:
        if runs:
            before = runs[-1][-1]
            span = max(chunk.max_time - chunk.min_time, before.max_time - before.min_time)
            if chunk.min_time - before.max_time <= GAP_BLOCKS * AS_IS_CHUNKS_MAX * span:
                runs[-1].append(chunk)
                continue
        runs.append([chunk])
    return runs


def _gaps(times: Times) -> NDArray[np.float64]:
    """As floats: the distance of two int64 may not fit one."""
    return np.diff(times).view(np.uint64).astype(np.float64)
