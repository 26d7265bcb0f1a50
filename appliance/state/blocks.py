"""From sealed chunks to blocks: merged, in order of time, packed. Called by the committer.

Invariant: the blocks of one Sealed hold its readings, each time once with the value written last.
"""

from __future__ import annotations

from appliance import limits
from appliance.state.columns import CODEC_PCODEC, Columns, concatenate, pack, sort_keep_last
from appliance.state.layouts import Block
from appliance.state.series import Chunk, Sealed
from appliance.state.sweep import load_chunk


def build_blocks(series_id: int, sealed: Sealed, *, integer: bool) -> list[Block]:
    """At most sealed.sequence_count blocks; one packed chunk becomes a block with the same bytes."""
    only = sealed.chunks[0]
    if len(sealed.chunks) == 1 and only.codec == CODEC_PCODEC and only.count <= limits.BLOCK_READINGS_MAX:
        return [Block(series_id, sealed.sequence, integer, only)]
    where = f"sealed readings of series {series_id}"
    columns = sort_keep_last(
        concatenate([load_chunk(chunk, integer=integer, where=where) for chunk in sealed.chunks])
    )
    count = len(columns.times)
    size = -(-count // -(-count // limits.BLOCK_READINGS_MAX))
    return [
        Block(series_id, sealed.sequence + place, integer, pack_sorted(columns, begin, begin + size))
        for place, begin in enumerate(range(0, count, size))
    ]


def pack_sorted(columns: Columns, begin: int, end: int) -> Chunk:
    times, values = columns.times[begin:end], columns.values[begin:end]
    codec, packed_times, packed_values = pack(times, values)
    return Chunk(codec, len(times), packed_times, packed_values, int(times[0]), int(times[-1]))
