"""Durable blocks of which every time was written again: the new blocks of a checkpoint take their place.

Invariant: a block goes only when each of its times lies in a block that was written later, and that stays or goes for
the same reason. One that was written again in part stays, and a reader merges. What is scattered over long times
(`late`) is left alone. Called by the committer.
A gateway that sends its last day again each hour would fill a card with the same readings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from appliance.state.columns import Times
from appliance.state.layouts import Block, block_key, decode_block
from appliance.state.sweep import TIME_MIN, load_chunk
from appliance.storage.store import StoreReader

OVERLAPPING_MAX: Final = 64
"""Where more lie across a new block they hold times of their own: to look at each takes 0.1 ms."""


class Stored(NamedTuple):
    key: bytes
    size_bytes: int
    block: Block


def superseded_blocks(reader: StoreReader, built: Sequence[Block], *, span_max: int) -> list[Stored]:
    """built: new ones of one series. span_max: of the old ones. Where none overlaps, no column is decoded."""
    found: dict[bytes, Stored] = {}
    for new in built:
        overlapping = _overlapping(reader, new, new.min_time, new.max_time, span_max)
        touched = list(islice(overlapping, OVERLAPPING_MAX + 1))
        if not 0 < len(touched) <= OVERLAPPING_MAX:
            continue
        first = min(old.block.min_time for old in touched)
        last = max(old.block.max_time for old in touched)
        stored = [old.block for old in _overlapping(reader, new, first, last, span_max)]
        among = [*stored, *(one for one in built if one.max_time >= first and one.min_time <= last)]
        times = {block.sequence: _times(block) for block in among}
        for old in touched:
            if old.key not in found and _is_written_again(old.block, times):
                found[old.key] = old
    return list(found.values())


def _overlapping(reader: StoreReader, new: Block, first: int, last: int, span_max: int) -> Iterator[Stored]:
    """Of the series of new, what holds readings about first to last."""
    start = block_key(new.series_id, max(first - span_max, TIME_MIN), 0)
    for key, record in reader.scan("blocks", start, block_key(new.series_id, last + 1, 0)):
        block = decode_block(key, record)
        if block.max_time >= first:
            yield Stored(key, len(record), block)


def _is_written_again(old: Block, times: dict[int, Times]) -> bool:
    """times: by sequence; a greater one was written later."""
    wanted = times[old.sequence]
    for sequence, later in times.items():
        if sequence > old.sequence and len(wanted):
            wanted = wanted[~_are_in(wanted, later)]
    return not len(wanted)


def _are_in(times: Times, among: Times) -> NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(among, times), len(among) - 1)
    found: NDArray[np.bool_] = among[places] == times
    return found


def _times(block: Block) -> Times:
    """Ascending."""
    where = f"blocks of series {block.series_id}"
    return np.concatenate(
        [load_chunk(chunk, integer=block.integer, where=where).times for chunk in block.chunks]
    )
