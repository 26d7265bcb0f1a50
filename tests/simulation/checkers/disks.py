"""What a disk holds at this moment, read from its records and from nothing else."""

from __future__ import annotations

from contextlib import suppress

from appliance.errors import CorruptData
from appliance.storage.batch import JournalState
from appliance.storage.layout import decode_boot_count, peek_term
from appliance.storage.memory import MemoryDisk
from tests.simulation.node import Machine


class DiskView:
    """What one machine has on its card. A bit that flipped at rest does not take back what was written."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._boot: tuple[bytes | None, int] = (None, 0)

    @property
    def state(self) -> JournalState:
        return self._machine.disk.journal_state()

    @property
    def boot_count(self) -> int:
        """Decoded once for each version of its record."""
        record = self._machine.disk.boot_count
        if record is not self._boot[0]:
            self._boot = (record, decode_boot_count(record))
        return self._boot[1]

    @property
    def checkpoint_index(self) -> int:
        return self._machine.disk.image.position.index

    def term_at(self, index: int) -> int | None:
        """Of the entry in the journal, or of its anchor."""
        record = self._machine.disk.entries.get(index)
        if record is not None:
            spoiled = self._machine.flipped.get(index)
            return peek_term(spoiled[1] if spoiled is not None and spoiled[0] is record else record)
        anchor = self.state.anchor
        return anchor.term if index == anchor.index else None

    def holds(self, index: int, term: int) -> bool:
        """The entry itself, or a state that it is part of."""
        if index <= self.checkpoint_index or index < self.state.anchor.index:
            return True
        return self.term_at(index) == term

    def ever_held(self, index: int, term: int) -> bool:
        """Or it did, before it was damaged or an older image took its place: its peers shut it out for that."""
        with suppress(CorruptData):
            if self.holds(index, term):
                return True
        lost = self._machine.lost_disk
        return lost is not None and _holds(lost, index, term)


def _holds(disk: MemoryDisk, index: int, term: int) -> bool:
    anchor = disk.journal_state().anchor
    if index <= disk.image.position.index or index < anchor.index:
        return True
    record = disk.entries.get(index)
    held = None if record is None else peek_term(record)
    return term == (anchor.term if index == anchor.index else held)
