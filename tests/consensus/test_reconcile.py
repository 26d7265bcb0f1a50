"""H2 and H4: what a follower makes of AppendEntries, case by case."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from appliance.consensus.reconcile import Accepted, Rejected, reconcile
from appliance.model import Entry, Position


@dataclass
class Log:
    """Terms of the entries behind the anchor."""

    terms: list[int]
    anchor: Position = field(default_factory=lambda: Position(10, 1))

    @property
    def last(self) -> Position:
        return Position(
            self.anchor.index + len(self.terms), self.terms[-1] if self.terms else self.anchor.term
        )

    def term_at(self, index: int) -> int | None:
        if index == self.anchor.index:
            return self.anchor.term
        offset = index - self.anchor.index - 1
        return self.terms[offset] if 0 <= offset < len(self.terms) else None


def entries(first: int, *terms: int) -> list[Entry]:
    return [(b"\0", first + offset, term) for offset, term in enumerate(terms)]


def test_entries_already_held_are_not_handed_on_and_nothing_is_truncated() -> None:
    log = Log([1, 1, 2])
    verdict = reconcile(log, Position(10, 1), entries(11, 1, 1), commit_index=10)
    assert verdict == Accepted(Position(13, 2), [], verified_index=12, conflict_index=None)


def test_a_follower_vouches_only_for_what_the_message_verified() -> None:
    verdict = reconcile(Log([1, 1, 1]), Position(11, 1), [], commit_index=10)
    assert verdict == Accepted(Position(13, 1), [], verified_index=11, conflict_index=None)


def test_new_entries_follow_what_is_held() -> None:
    verdict = reconcile(Log([1, 1]), Position(11, 1), entries(12, 1, 2), commit_index=10)
    assert verdict == Accepted(Position(12, 1), entries(13, 2), verified_index=13, conflict_index=None)


def test_only_a_real_conflict_is_overridden() -> None:
    verdict = reconcile(Log([1, 1, 1]), Position(11, 1), entries(12, 3), commit_index=11)
    assert verdict == Accepted(Position(11, 1), entries(12, 3), verified_index=12, conflict_index=12)


def test_a_gap_is_rejected_with_the_first_missing_index() -> None:
    assert reconcile(Log([1, 1]), Position(15, 2), entries(16, 2), commit_index=10) == Rejected(13)


def test_a_conflicting_previous_entry_is_rejected_at_the_first_index_of_its_term() -> None:
    assert reconcile(Log([1, 2, 2, 2]), Position(14, 3), [], commit_index=11) == Rejected(12)


def test_a_rejection_does_not_step_below_what_is_committed() -> None:
    assert reconcile(Log([1, 2, 2, 2]), Position(14, 3), [], commit_index=13) == Rejected(14)


def test_entries_from_below_the_anchor_are_taken_from_the_anchor_on() -> None:
    log = Log([1])
    verdict = reconcile(log, Position(8, 1), entries(9, 1, 1, 1, 2), commit_index=10)
    assert verdict == Accepted(Position(11, 1), entries(12, 2), verified_index=12, conflict_index=None)


def test_a_heartbeat_from_below_the_anchor_verifies_the_anchor() -> None:
    verdict = reconcile(Log([1]), Position(5, 1), [], commit_index=10)
    assert verdict == Accepted(Position(11, 1), [], verified_index=10, conflict_index=None)


@pytest.mark.parametrize("seed", range(50))
def test_a_follower_that_takes_every_message_ends_with_the_leaders_log(seed: int) -> None:
    rng = random.Random(seed)
    common = rng.randint(0, 5)
    leader = [1] * common + sorted(rng.choice((3, 5)) for _ in range(rng.randint(0, 8)))  # log matching holds
    follower = Log([1] * common + sorted(rng.choice((2, 4)) for _ in range(rng.randint(0, 8))))
    next_index, commit = follower.last.index + 1, 10 + common
    for _ in range(100):
        previous = next_index - 1
        if previous > 10 + len(leader):
            next_index = 10 + len(leader) + 1
            continue
        term = 1 if previous == 10 else leader[previous - 11]
        tail = entries(next_index, *leader[previous - 10 :][: rng.randint(1, 3)])
        verdict = reconcile(follower, Position(previous, term), tail, commit)
        if isinstance(verdict, Rejected):
            assert verdict.next_index < next_index
            next_index = max(commit + 1, verdict.next_index)
            continue
        if verdict.entries:
            kept = verdict.previous.index - 10
            assert verdict.previous.index >= commit
            follower.terms = follower.terms[:kept] + [entry[2] for entry in verdict.entries]
        next_index = verdict.verified_index + 1
    assert follower.terms[: len(leader)] == leader
