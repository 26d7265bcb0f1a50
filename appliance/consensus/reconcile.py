"""What a follower makes of AppendEntries before PySyncObj sees it (Raft paper, section 5.3).

Invariant: entries are dropped from the log only where a received entry conflicts (same index, other term), and a
follower vouches for no index that this very message did not verify. Pure: the log is read, never changed.
Hazards H2 (every message truncates) and H4 (conflicts step back one entry at a time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from appliance.model import Entry, Position


class ReadableLog(Protocol):
    @property
    def anchor(self) -> Position: ...

    @property
    def last(self) -> Position: ...

    def term_at(self, index: int) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """Hand entries to PySyncObj behind previous; vouch for all up to verified_index."""

    previous: Position
    entries: list[Entry]
    verified_index: int
    conflict_index: int | None
    """First index that a received entry overrides."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """previous is not in the log; next_index is where the leader shall try."""

    next_index: int


def reconcile(
    log: ReadableLog, previous: Position, entries: list[Entry], commit_index: int
) -> Accepted | Rejected:
    """Judge the entries that follow previous. commit_index is the follower's own."""
    if previous.index < log.anchor.index:
        return _reconcile_below_anchor(log, entries)
    held_term = log.term_at(previous.index)
    if held_term is None:
        return Rejected(log.last.index + 1)
    if held_term != previous.term:
        return Rejected(_first_of_term(log, previous.index, held_term, commit_index))
    held = 0
    while held < len(entries) and log.term_at(entries[held][1]) == entries[held][2]:
        held += 1
    matched = Position(entries[held - 1][1], entries[held - 1][2]) if held else previous
    new = entries[held:]
    if new:
        conflict = new[0][1] if new[0][1] <= log.last.index else None
        return Accepted(matched, new, new[-1][1], conflict)
    return Accepted(log.last, [], matched.index, None)


def _reconcile_below_anchor(log: ReadableLog, entries: list[Entry]) -> Accepted | Rejected:
    """All up to the anchor is committed and applied here, so it matches; go on with what lies behind it."""
    behind = [entry for entry in entries if entry[1] > log.anchor.index]
    if not behind or behind[0][1] != log.anchor.index + 1:
        return Accepted(log.last, [], log.anchor.index, None)
    return reconcile(log, log.anchor, behind, log.anchor.index)


def _first_of_term(log: ReadableLog, index: int, term: int, commit_index: int) -> int:
    """First index of the run of term that ends at index, but behind what is committed here."""
    while index - 1 > max(commit_index, log.anchor.index) and log.term_at(index - 1) == term:
        index -= 1
    return index
