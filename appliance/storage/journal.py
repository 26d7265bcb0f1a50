"""The journal's contract: log entries, hard state, peers' memory and boot count, durable together.

Invariant: `commit` returns only when all its operations are on disk, and a crash leaves all of
them or none. `commit` and `begin_boot` are called by one thread (the committer); `read` and
`size_bytes` may be called by any thread meanwhile. Two implementations pass the same tests:
LmdbJournal for a node, MemoryJournal for the simulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.model import Entry, HardState, MemberId, PeerMemory, Position
from appliance.storage.batch import JournalOperation


@dataclass(frozen=True, slots=True)
class RecoveredJournal:
    """What a journal held when it was opened. boot_count: how often a node started on it before."""

    anchor: Position
    last: Position
    hard_state: HardState
    peers: Mapping[MemberId, PeerMemory]
    boot_count: int
    size_bytes: int


class Journal(Protocol):
    """See the module."""

    def recover(self) -> RecoveredJournal:
        """Verify checksum, contiguity and terms of every retained entry; CorruptData names one."""

    def begin_boot(self) -> int:
        """Count this start, durably; the first one is 1."""

    def commit(self, operations: Sequence[JournalOperation]) -> None:
        """All operations in order, one transaction, one fsync.

        StorageFailed is fatal: what is on disk is unknown, the process must end unanswered.
        """

    def read(self, first_index: int, *, count_max: int, bytes_max: int) -> list[Entry]:
        """Committed entries from first_index on, verified; contiguous, at most count_max.

        Stops before bytes_max of commands would be passed, but gives at least one entry if there
        is one. Empty when first_index is not retained: at or before the anchor, or after last.
        """

    def size_bytes(self) -> int:
        """Bytes in use, without pages that are free to be used again."""

    def close(self) -> None:
        """Idempotent."""
