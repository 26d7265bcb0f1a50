"""What can be done to the journal, as values. A commit takes a sequence of them, in order.

Invariant: entries are contiguous above the anchor, their terms never fall; `JournalState` is what
the operations leave behind, and `advance` the one place that says how. A breach is a bug of the
caller, so it is asserted; but a term that was read back and does not fit is CorruptData, as the disk
may have changed it. Made on the loop, committed on the committer's thread.
Raft paper, figure 2 (state that must survive a crash).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from appliance.errors import CorruptData
from appliance.model import Entry, HardState, MemberId, PeerMemory, Position
from appliance.storage.records import REBUILD_HINT

LOG_START = Position(index=1, term=0)
"""The anchor of a log that never held an entry: PySyncObj counts from 1."""

_NO_HARD_STATE = HardState()


@dataclass(frozen=True, slots=True)
class Append:
    """Add entries; the first follows the last index of the log."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class TruncateFrom:
    """Drop entries from index on: they conflict with the leader's. high_index stays."""

    index: int


@dataclass(frozen=True, slots=True)
class TrimTo:
    """Drop entries up to index, which becomes the anchor; term is that entry's term."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Drop all entries and start over after (index, term): a snapshot was installed."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class SetHardState:
    """Replace term, vote and commit hint. high_index is raised to what the journal knows."""

    hard_state: HardState


@dataclass(frozen=True, slots=True)
class SetPeers:
    """Replace what is remembered of the peers."""

    peers: Mapping[MemberId, PeerMemory]


JournalOperation = Append | TruncateFrom | TrimTo | Reset | SetHardState | SetPeers


@dataclass(frozen=True, slots=True)
class JournalState:
    """The journal without its entries: anchor < retained entries <= last, and the hard state."""

    anchor: Position = LOG_START
    last: Position = LOG_START
    hard_state: HardState = _NO_HARD_STATE


def advance(
    state: JournalState, operation: JournalOperation, *, term_at: Callable[[int], int]
) -> JournalState:
    """The state after the operation. Raises CorruptData.

    term_at reads the term of an entry above the anchor, 0 where there is none.
    """
    match operation:
        case Append(entries):
            return _append(state, entries)
        case TruncateFrom(index):
            assert index > state.anchor.index, f"truncation from {index} passes {state.anchor}"
            if index > state.last.index:
                return state
            return replace(state, last=Position(index - 1, _held_term(state, index - 1, term_at)))
        case TrimTo(index, term):
            assert state.anchor.index <= index <= state.last.index, f"trim to {index}: {state}"
            held = _held_term(state, index, term_at)
            if term != held:
                raise _unlike(index, held, f"trimmed as of term {term}")
            return replace(state, anchor=Position(index, term))
        case Reset(index, term):
            position = Position(index, term)
            return _raise_high(replace(state, anchor=position, last=position), index)
        case SetHardState(hard_state):
            high_index = max(hard_state.high_index, state.hard_state.high_index)
            return replace(state, hard_state=replace(hard_state, high_index=high_index))
        case SetPeers():
            return state


def _held_term(state: JournalState, index: int, term_at: Callable[[int], int]) -> int:
    return state.anchor.term if index == state.anchor.index else term_at(index)


def _append(state: JournalState, entries: tuple[Entry, ...]) -> JournalState:
    index, term = state.last.index, state.last.term
    for _, entry_index, entry_term in entries:
        assert entry_index == index + 1, f"entry {entry_index} does not follow {index}"
        if entry_term < term:
            raise _unlike(index, term, f"followed by term {entry_term}")
        index, term = entry_index, entry_term
    return _raise_high(replace(state, last=Position(index, term)), index)


def _unlike(index: int, term: int, reason: str) -> CorruptData:
    return CorruptData(f"journal entry {index}", f"its term reads {term}, it is {reason}; {REBUILD_HINT}")


def _raise_high(state: JournalState, index: int) -> JournalState:
    if index <= state.hard_state.high_index:
        return state
    return replace(state, hard_state=replace(state.hard_state, high_index=index))
