"""The log in memory: PySyncObj's journal in front, a queue of operations for the committer behind.

Invariant: `durable_index` never exceeds what a finished commit holds, and falls at once when a truncation
is queued. Nothing here waits for a disk. Loop thread only.

Position 0 of PySyncObj's view is the anchor, a placeholder for the entry before the first retained one;
position p is index anchor.index + p. Slices are capped (PySyncObj only ever works from their start), so that a
long log is never copied. The commit index is a hint: it rides with the next batch.
The log knows the configurations in it (Ongaro's thesis, 4.1): the last one counts from the moment it is appended,
committed or not, on every node and after a restart (H13), and no longer when it is truncated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from appliance.limits import LOG_SLICE_BYTES_MAX, LOG_SLICE_ENTRIES_MAX
from appliance.model import (
    CONFIGURATION,
    NO_OP,
    Configuration,
    Entry,
    HardState,
    MemberId,
    PeerMemory,
    Position,
)
from appliance.state.configuration import decode_configuration
from appliance.storage.batch import (
    Append,
    JournalOperation,
    Reset,
    SetHardState,
    SetPeers,
    TrimTo,
    TruncateFrom,
)

ColdRead = Callable[[int, int, int], list[Entry]]
"""(first index, most entries, most bytes) -> entries of the journal."""


@dataclass(slots=True)
class _InFlight:
    sequence: int
    last_index: int
    term: int


@dataclass(slots=True)
class _Pending:
    """Operations since the last batch was taken, in order."""

    operations: list[JournalOperation] = field(default_factory=list)
    appended: list[Entry] = field(default_factory=list)
    hard_state_changed: bool = False

    def close_append(self) -> None:
        if self.appended:
            self.operations.append(Append(tuple(self.appended)))
            self.appended = []

    def __bool__(self) -> bool:
        return bool(self.operations or self.appended or self.hard_state_changed)


class LogImage:
    """See the module. The camelCase methods are the interface PySyncObj expects of a journal."""

    def __init__(
        self,
        anchor: Position,
        last: Position,
        entries: list[Entry],
        hard_state: HardState,
        cold_read: ColdRead,
        configurations: Sequence[Configuration] = (Configuration(),),
    ) -> None:
        """entries: the tail of the log that starts in memory, up to last; may be empty.

        configurations: the one at a committed index, and those of all entries behind it.
        """
        assert not entries or (entries[0][1] > anchor.index and entries[-1][1:] == (last.index, last.term))
        self.anchor = anchor
        self._entries = entries
        self._hot_first = entries[0][1] if entries else last.index + 1
        self._hot_bytes = sum(len(entry[0]) for entry in entries)
        self._cold_read = cold_read
        self._last = (last.index, last.term)
        self.term, self.vote, self._commit_hint = hard_state.term, hard_state.vote, hard_state.commit_index
        self.high_index = max(hard_state.high_index, self._last[0])
        self.durable_index = self._last[0]
        self.durable_term = self.term
        self._pending = _Pending()
        self._peers: dict[MemberId, PeerMemory] | None = None
        self._in_flight: deque[_InFlight] = deque()
        self._taken = 0
        self._durable = 0
        self.appended_bytes = 0
        self._configurations = list(configurations)
        self.on_configuration: Callable[[], None] = lambda: None
        """Called when another configuration is in effect."""

    # what the rest of consensus asks ---------------------------------------------------------------------

    @property
    def last(self) -> Position:
        return Position(*self._last)

    @property
    def last_index(self) -> int:
        return self._last[0]

    @property
    def configuration(self) -> Configuration:
        """The one in effect."""
        return self._configurations[-1]

    def term_at(self, index: int) -> int | None:
        """Term of the entry at index; the anchor's for the anchor; None outside the log."""
        if index == self._last[0]:
            return self._last[1]
        if index == self.anchor.index:
            return self.anchor.term
        if index < self.anchor.index or index > self._last[0]:
            return None
        if index >= self._hot_first:
            return self._entries[index - self._hot_first][2]
        return self._cold_read(index, 1, 1)[0][2]

    def holds(self, position: Position) -> bool:
        return self.term_at(position.index) == position.term

    def read(
        self, first: int, count_max: int = LOG_SLICE_ENTRIES_MAX, bytes_max: int = LOG_SLICE_BYTES_MAX
    ) -> list[Entry]:
        """Entries from first on, capped by count and bytes; at least one if there is one."""
        if first > self._last[0] or first <= self.anchor.index:
            return []
        count_max = min(count_max, LOG_SLICE_ENTRIES_MAX)
        if first < self._hot_first:
            return self._cold_read(first, min(count_max, self._hot_first - first), bytes_max)
        start = first - self._hot_first
        if count_max == 1:
            return [self._entries[start]]
        return capped(self._entries[start : start + count_max], bytes_max)

    def is_hot(self, index: int) -> bool:
        """The entry is in memory: reading it does not touch the journal."""
        return index >= self._hot_first

    # batches for the committer ---------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        """Something is queued or being committed."""
        return bool(self._pending) or self._durable < self._taken

    @property
    def has_queued(self) -> bool:
        return bool(self._pending)

    @property
    def promise_sequence(self) -> int:
        """A promise about what the log says now may leave once this batch is durable."""
        return self._taken + 1 if self._pending else self._taken

    @property
    def durable_sequence(self) -> int:
        return self._durable

    def remember_peers(self, peers: dict[MemberId, PeerMemory]) -> None:
        """Rides with the next batch, never causes one."""
        self._peers = dict(peers)

    def take_batch(self) -> tuple[int, list[JournalOperation]]:
        """(sequence, operations) of all that is queued; the caller commits it and then calls made_durable."""
        self._pending.close_append()
        operations = self._pending.operations
        operations.append(SetHardState(HardState(self.term, self.vote, self._commit_hint, self.high_index)))
        if self._peers is not None:
            operations.append(SetPeers(self._peers))
            self._peers = None
        self._pending = _Pending()
        self._taken += 1
        self._in_flight.append(_InFlight(self._taken, self._last[0], self.term))
        return self._taken, operations

    def made_durable(self, sequence: int) -> None:
        while self._in_flight and self._in_flight[0].sequence <= sequence:
            batch = self._in_flight.popleft()
            self._durable, self.durable_term = batch.sequence, batch.term
            self.durable_index = max(self.durable_index, batch.last_index)
        self.high_index = max(self.high_index, self.durable_index)

    # changes of our own ----------------------------------------------------------------------------------

    def trim_to(self, index: int) -> None:
        """Forget entries up to index, which becomes the anchor."""
        term = self.term_at(index)
        assert term is not None
        assert index <= self.durable_index
        if index <= self.anchor.index:
            return
        self.anchor = Position(index, term)
        self._pending.close_append()
        self._pending.operations.append(TrimTo(index, term))
        if index >= self._hot_first:
            self._drop_hot(index + 1 - self._hot_first)
        while len(self._configurations) > 1 and self._configurations[1].index <= index:
            del self._configurations[0]

    def reset(self, position: Position, configuration: Configuration) -> None:
        """Forget everything: the log starts behind an installed snapshot, which has this configuration."""
        self.anchor, self._last = position, (position.index, position.term)
        self._entries, self._hot_first, self._hot_bytes = [], position.index + 1, 0
        self._pending.close_append()
        self._pending.operations.append(Reset(position.index, position.term))
        self._cut_in_flight(position.index)
        self.durable_index = position.index
        self.high_index = max(self.high_index, position.index)
        self._configurations = [configuration]
        self.on_configuration()

    def truncate_from(self, index: int) -> None:
        """Drop the entries from index on: they conflict with the leader's."""
        assert self.anchor.index < index <= self._last[0], "truncation outside the log"
        term = self.term_at(index - 1)
        assert term is not None
        if index < self._hot_first:
            self._entries, self._hot_first, self._hot_bytes = [], index, 0
        else:
            gone = self._entries[index - self._hot_first :]
            del self._entries[index - self._hot_first :]
            self._hot_bytes -= sum(len(entry[0]) for entry in gone)
        self._last = (index - 1, term)
        self._pending.close_append()
        self._pending.operations.append(TruncateFrom(index))
        self._cut_in_flight(index - 1)
        self.durable_index = min(self.durable_index, index - 1)
        if self.configuration.index >= index:
            while self.configuration.index >= index:
                del self._configurations[-1]
            self.on_configuration()

    def evict(self, applied_index: int, hot_bytes_max: int) -> None:
        """Release the memory of durable, applied entries beyond hot_bytes_max; they stay in the journal."""
        last_to_go = min(applied_index, self.durable_index)
        count, over = 0, self._hot_bytes - hot_bytes_max
        while over > 0 and count < len(self._entries) and self._entries[count][1] <= last_to_go:
            over -= len(self._entries[count][0])
            count += 1
        if count:
            self._drop_hot(count)

    def _drop_hot(self, count: int) -> None:
        self._hot_bytes -= sum(len(entry[0]) for entry in self._entries[:count])
        del self._entries[:count]
        self._hot_first += count

    def _cut_in_flight(self, last_index: int) -> None:
        for batch in self._in_flight:
            batch.last_index = min(batch.last_index, last_index)

    # PySyncObj's journal ---------------------------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        assert idx == self._last[0] + 1, f"log gap: {self._last[0]} -> {idx}"
        assert term >= self._last[1], f"term fell from {self._last[1]} to {term} at {idx}"
        entry = (command, idx, term)
        self._entries.append(entry)
        self._pending.appended.append(entry)
        self._last = (idx, term)
        self._hot_bytes += len(command)
        self.appended_bytes += len(command)
        if command.startswith(CONFIGURATION):
            self._configurations.append(decode_configuration(idx, command))
            self.on_configuration()

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        raise AssertionError(
            "PySyncObj truncated by itself; the guard does, before it hands entries over (H2)"
        )

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise AssertionError("PySyncObj compacted the log by itself")

    def clear(self) -> None:
        raise AssertionError("PySyncObj cleared the log (H21)")

    def __len__(self) -> int:
        return self._last[0] - self.anchor.index + 1

    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        if isinstance(item, slice):
            return self._slice(item.start or 0, item.stop)
        if item == 0 or len(self) == 1:
            return (NO_OP, self.anchor.index, self.anchor.term)
        if item == -1:
            return self._entries[-1] if self._entries else (NO_OP, *self._last)
        return self.read(self.anchor.index + item, 1)[0]

    def _slice(self, start: int, stop: int | None) -> list[Entry]:
        count = len(self) - start if stop is None else min(stop, len(self)) - start
        if count <= 0:
            return []
        if start > 0:
            return self.read(self.anchor.index + start, count)
        head: list[Entry] = [(NO_OP, self.anchor.index, self.anchor.term)]
        return head if count == 1 else head + self.read(self.anchor.index + 1, count - 1)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        assert term >= self.term, "term fell"
        self.term = term
        self.vote = None if votedForNodeId is None else MemberId(int(votedForNodeId, 16))
        self._pending.hard_state_changed = True

    def getCurrentTerm(self) -> int:
        return self.term

    def getVotedForNodeId(self) -> str | None:
        return None if self.vote is None else f"{self.vote:016x}"

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self._commit_hint = max(self._commit_hint, raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        return self._commit_hint

    def onOneSecondTimer(self) -> None:
        """PySyncObj's own journals use it; ours does not."""

    def _destroy(self) -> None:
        """The journal is closed by its owner."""


def capped(entries: list[Entry], bytes_max: int, size_of: Callable[[bytes], int] = len) -> list[Entry]:
    """The first of them, at least one, up to so many bytes."""
    size = 0
    for position, entry in enumerate(entries):
        size += size_of(entry[0])
        if size > bytes_max and position:
            return entries[:position]
    return entries
