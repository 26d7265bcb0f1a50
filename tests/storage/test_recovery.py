"""How journal and store are brought together at start, case by case."""

from __future__ import annotations

import pytest

from appliance.errors import CorruptData
from appliance.model import HardState, MemberId, Position
from appliance.storage.batch import Append, Reset, SetHardState, TrimTo
from appliance.storage.journal import RecoveredJournal
from appliance.storage.memory import MemoryDisk, MemoryJournal, MemoryStore
from appliance.storage.recovery import plan_recovery, recover
from appliance.storage.store import StoreBatch

VOTE = MemberId(7)


def journal(anchor: Position, last: Position, hard_state: HardState) -> RecoveredJournal:
    return RecoveredJournal(anchor, last, hard_state, {}, 1, 0)


@pytest.mark.parametrize(
    ("name", "anchor", "last", "hard", "checkpoint", "term_at", "reset", "expected"),
    [
        ("new", (1, 0), (1, 0), (0, None, 1, 1), (1, 0), 0, False, (0, None, 1, 1)),
        ("no checkpoint yet", (1, 0), (9, 2), (2, VOTE, 5, 9), (1, 0), 0, False, (2, VOTE, 5, 9)),
        ("checkpoint inside", (1, 0), (9, 2), (2, VOTE, 5, 9), (5, 1), 1, False, (2, VOTE, 5, 9)),
        ("checkpoint is the anchor", (5, 1), (9, 2), (2, VOTE, 7, 9), (5, 1), 1, False, (2, VOTE, 7, 9)),
        ("checkpoint is the end", (1, 0), (9, 2), (2, VOTE, 5, 9), (9, 2), 2, False, (2, VOTE, 9, 9)),
        ("old commit hint rises", (1, 0), (9, 2), (2, VOTE, 1, 9), (5, 1), 1, False, (2, VOTE, 5, 9)),
        ("commit hint never passes the end", (1, 0), (9, 2), (2, VOTE, 50, 9), (5, 1), 1, False, (2, VOTE, 9, 9)),
        ("install ahead of the log", (1, 0), (9, 2), (2, VOTE, 5, 9), (40, 2), None, True, (2, VOTE, 40, 40)),
        ("install in a newer term", (1, 0), (9, 2), (2, VOTE, 5, 9), (40, 3), None, True, (3, None, 40, 40)),
        ("install over a conflict", (1, 0), (9, 2), (2, VOTE, 5, 9), (5, 2), 1, True, (2, VOTE, 5, 9)),
        ("other term at the anchor", (5, 1), (9, 2), (2, VOTE, 6, 9), (5, 2), 1, True, (2, VOTE, 5, 9)),
        ("log knows a newer term", (1, 0), (9, 4), (2, VOTE, 5, 9), (5, 1), 1, False, (4, None, 5, 9)),
        ("high index survives", (1, 0), (9, 2), (2, VOTE, 5, 90), (40, 2), None, True, (2, VOTE, 40, 90)),
    ],
)  # fmt: skip
def test_plan(name, anchor, last, hard, checkpoint, term_at, reset, expected) -> None:  # type: ignore[no-untyped-def]
    recovered = journal(Position(*anchor), Position(*last), HardState(*hard))
    plan = plan_recovery(recovered, Position(*checkpoint), term_at_checkpoint=term_at)
    assert plan.hard_state == HardState(*expected), name
    assert (Reset(*checkpoint) in plan.operations) == reset
    assert (SetHardState(plan.hard_state) in plan.operations) == (plan.hard_state != recovered.hard_state)
    assert plan.last == (Position(*checkpoint) if reset else recovered.last)
    assert plan.anchor == (Position(*checkpoint) if reset else recovered.anchor)
    assert plan.first_index_to_replay == checkpoint[0] + 1
    assert plan.anchor.index <= plan.checkpoint.index <= plan.hard_state.commit_index <= plan.last.index


def test_store_behind_the_start_of_the_log_is_corrupt() -> None:
    recovered = journal(Position(5, 1), Position(9, 2), HardState(2, VOTE, 5, 9))
    with pytest.raises(CorruptData, match=r"index 4, but the journal begins after 5.*must not vote"):
        plan_recovery(recovered, Position(4, 1), term_at_checkpoint=None)


def test_plan_is_durable_and_a_second_start_has_nothing_to_do() -> None:
    disk = MemoryDisk()
    journal, store = MemoryJournal(disk), MemoryStore(disk)
    journal.commit([Append(((b"\1", 2, 1), (b"\0a", 3, 1))), SetHardState(HardState(1, VOTE, 2))])
    store = store.begin_install(Position(30, 4)).finish()
    _, plan = recover(journal, store)
    assert plan.operations == (Reset(30, 4), SetHardState(HardState(4, None, 30, 30)))
    recovered, again = recover(MemoryJournal(disk), MemoryStore(disk))
    assert again.operations == ()
    assert (recovered.anchor, recovered.last) == (Position(30, 4), Position(30, 4))
    assert again.hard_state == plan.hard_state


def test_crash_between_checkpoint_and_trim_keeps_the_entries() -> None:
    disk = MemoryDisk()
    journal, store = MemoryJournal(disk), MemoryStore(disk)
    journal.commit([Append(tuple((b"\0a", index, 1) for index in range(2, 10)))])
    journal.commit([SetHardState(HardState(1, VOTE, 8))])
    store.commit(StoreBatch(Position(6, 1)))
    _, plan = recover(MemoryJournal(disk), MemoryStore(disk))
    assert (plan.operations, plan.anchor, plan.last) == ((), Position(1, 0), Position(9, 1))
    journal.commit([TrimTo(6, 1)])
    _, plan = recover(MemoryJournal(disk), MemoryStore(disk))
    assert (plan.operations, plan.anchor, plan.last) == ((), Position(6, 1), Position(9, 1))
