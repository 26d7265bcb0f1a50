"""Taking readings out of durable blocks: those below a time go, one block a series is written anew.

Invariant: what is not older stays as it is, in blocks of the same sequence. Called by the committer, for a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from appliance.state.layouts import Block, block_key, decode_block, encode_block
from appliance.state.series import Chunk, Series
from appliance.state.sweep import TIME_MIN, chunk_from
from appliance.storage.store import Record, StoreReader

_TABLES: Final = ("blocks", "late")


@dataclass(slots=True)
class Purged:
    """removed_bytes: by which the series' blocks shrink."""

    puts: list[Record] = field(default_factory=list)
    deletes: list[tuple[str, bytes]] = field(default_factory=list)
    removed_bytes: int = 0


def purge(reader: StoreReader, series: Series, before: int) -> Purged:
    """Reads every block that begins before the time. Of series only what never changes is looked at."""
    purged = Purged()
    stop = block_key(series.series_id, before, 0)
    for table in _TABLES:
        for key, record in reader.scan(table, block_key(series.series_id, TIME_MIN, 0), stop):
            block = decode_block(key, record)
            purged.deletes.append((table, key))
            purged.removed_bytes += len(record)
            if chunks := tuple(_left(block, series, before)):
                left = encode_block(Block(block.series_id, block.sequence, block.integer, chunks))
                purged.puts.append((table, *left))
                purged.removed_bytes -= len(left[1])
    return purged


def _left(block: Block, series: Series, before: int) -> Iterator[Chunk]:
    for chunk in block.chunks:
        left = chunk if chunk.min_time >= before else chunk_from(chunk, before, series)
        if left is not None:
            yield left
