"""What a disk holds at this moment, read from its records and from nothing else."""

from __future__ import annotations

from collections.abc import Callable

from appliance.storage.batch import JournalState
from appliance.storage.layout import decode_boot_count, peek_term
from appliance.storage.memory import MemoryDisk


class DiskView:
    """What one machine has on its card."""

    def __init__(self, disk: Callable[[], MemoryDisk]) -> None:
        """disk: the one that is in the machine at the moment."""
        self._disk = disk

    @property
    def state(self) -> JournalState:
        return self._disk().journal_state()

    @property
    def boot_count(self) -> int:
        return decode_boot_count(self._disk().boot_count)

    @property
    def checkpoint_index(self) -> int:
        return self._disk().image.position.index

    def term_at(self, index: int) -> int | None:
        """Of the entry in the journal, or of its anchor."""
        record = self._disk().entries.get(index)
        if record is not None:
            return peek_term(record)
        anchor = self.state.anchor
        return anchor.term if index == anchor.index else None

    def holds(self, index: int, term: int) -> bool:
        """The entry itself, or a state that it is part of."""
        if index <= self.checkpoint_index or index < self.state.anchor.index:
            return True
        return self.term_at(index) == term
