"""What of durable blocks was written again: the new blocks of a checkpoint take its place.

Invariant: a reading goes only when a block that was written later holds its time, and stays or goes for the same
reason. A block of which nothing is left goes; one that half was written again of is written anew with the rest, under
the sequence that it had; others stay, and a reader merges. What is scattered over long times (`late`) is left alone.
Called by the committer, whose time is bounded: what it does not get to goes when the readings are sent once more.
A gateway that sends its last day again each hour would fill a card with the same readings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from appliance.state.columns import Columns, Times, concatenate, find
from appliance.state.layouts import Block, block_key, decode_block, encode_block
from appliance.state.purge import Purged
from appliance.state.sweep import TIME_MIN, key_behind, load_chunk, pack_chunk
from appliance.storage.store import StoreReader

OVERLAPPING_MAX: Final = 64
"""Blocks that are looked at for a new one, or for one that may go."""

LONGER_MAX: Final = 2
"""A block that began so many times its length before is not found."""

DECODED_PER_BLOCK: Final = 8
DECODED_MIN: Final = 64
"""Blocks of which the times are decoded, some 0.1 ms each, for so many new ones."""

KEPT_MAX: Final = 64
"""Blocks whose times are in memory."""


class _Stored(NamedTuple):
    key: bytes
    size_bytes: int
    block: Block


@dataclass(slots=True)
class _Decoded:
    """Times of blocks, by sequence; room: for so many more."""

    room: int
    kept: OrderedDict[int, Times] = field(default_factory=OrderedDict)

    def times(self, block: Block) -> Times:
        """Ascending."""
        if block.sequence in self.kept:
            self.kept.move_to_end(block.sequence)
            return self.kept[block.sequence]
        self.room -= 1
        times = self.kept[block.sequence] = _columns(block).times
        if len(self.kept) > KEPT_MAX:
            self.kept.popitem(last=False)
        return times


def supersede(reader: StoreReader, built: Sequence[Block], *, purged_before: int | None) -> Purged:
    """built: new ones of one series, no time in two of them. purged_before: older blocks are another's to change.

    Where no old block reaches into a new one, as with readings that come in order, nothing is decoded.
    """
    changed = Purged()
    seen: set[bytes] = set()
    decoded = _Decoded(DECODED_MIN + DECODED_PER_BLOCK * len(built))
    for new in built:
        for old in _across(reader, new):
            is_anothers = purged_before is not None and old.block.min_time < purged_before
            if old.key in seen or is_anothers or decoded.room <= 0:
                continue
            times = decoded.times(old.block)
            if not find(times, decoded.times(new))[1].any():
                continue
            seen.add(old.key)
            left = _left(reader, old.block, times, built, decoded)
            if 2 * int(left.sum()) <= len(times):
                _replace(changed, old, left)
    return changed


def _left(
    reader: StoreReader, old: Block, times: Times, built: Sequence[Block], decoded: _Decoded
) -> NDArray[np.bool_]:
    """Which of the times were not written later."""
    later = [one for one in built if one.min_time <= old.max_time and one.max_time >= old.min_time]
    later += [one.block for one in _across(reader, old) if one.block.sequence > old.sequence]
    is_left = np.ones(len(times), np.bool_)
    for block in sorted(later, key=lambda block: -block.sequence):
        if decoded.room <= 0 or not is_left.any():
            break
        is_left &= ~find(times, decoded.times(block))[1]
    return is_left


def _replace(changed: Purged, old: _Stored, is_left: NDArray[np.bool_]) -> None:
    changed.deletes.append(("blocks", old.key))
    changed.removed_bytes += old.size_bytes
    if is_left.any():
        columns = _columns(old.block)
        chunk = pack_chunk(Columns(columns.times[is_left], columns.values[is_left]))
        key, record = encode_block(
            Block(old.block.series_id, old.block.sequence, old.block.integer, (chunk,))
        )
        changed.puts.append(("blocks", key, record))
        changed.removed_bytes -= len(record)


def _across(reader: StoreReader, block: Block) -> Iterator[_Stored]:
    """Blocks of its series that reach into its time, but for much longer ones: so many are looked at, at most."""
    first, last = block.min_time, block.max_time
    start = max(first - LONGER_MAX * (last - first), TIME_MIN)
    records = reader.scan("blocks", block_key(block.series_id, start, 0), key_behind(block.series_id, last))
    for key, record in islice(records, OVERLAPPING_MAX):
        found = decode_block(key, record)
        if found.max_time >= first:
            yield _Stored(key, len(record), found)


def _columns(block: Block) -> Columns:
    where = f"blocks of series {block.series_id}"
    return concatenate([load_chunk(chunk, integer=block.integer, where=where) for chunk in block.chunks])
