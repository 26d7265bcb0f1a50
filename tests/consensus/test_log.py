"""The log image: batches, durability, eviction, truncation; what PySyncObj sees of it."""

from __future__ import annotations

import pytest

from appliance.consensus.log import LogImage
from appliance.model import NO_OP, Configuration, Entry, HardState, Position
from appliance.storage.batch import Append, Reset, SetHardState, TrimTo, TruncateFrom
from appliance.storage.memory import MemoryDisk, MemoryJournal

START = Position(1, 0)


def make_log() -> tuple[LogImage, MemoryJournal]:
    journal = MemoryJournal(MemoryDisk())
    log = LogImage(
        START,
        START,
        [],
        HardState(),
        lambda first, count, size: journal.read(first, count_max=count, bytes_max=size),
    )
    return log, journal


def append(log: LogImage, count: int, *, term: int = 1, size: int = 10) -> None:
    for _ in range(count):
        log.add(bytes(size), log.last_index + 1, term)


def commit(log: LogImage, journal: MemoryJournal) -> None:
    sequence, operations = log.take_batch()
    journal.commit(operations)
    log.made_durable(sequence)


def test_what_is_queued_together_is_one_batch_in_order() -> None:
    log, _ = make_log()
    append(log, 2)
    log.truncate_from(3)
    log.setCurrentTerm(2, "00000000000000aa")
    append(log, 1, term=2)
    _, operations = log.take_batch()
    assert [type(operation) for operation in operations] == [Append, TruncateFrom, Append, SetHardState]
    hard_state = operations[-1]
    assert isinstance(hard_state, SetHardState)
    assert (hard_state.hard_state.term, hard_state.hard_state.vote) == (2, 0xAA)


def test_the_durable_index_follows_finished_batches_only() -> None:
    log, _ = make_log()
    append(log, 3)
    first, _ = log.take_batch()
    append(log, 2)
    assert log.durable_index == 1
    log.made_durable(first)
    assert (log.durable_index, log.last_index) == (4, 6)


def test_the_durable_index_falls_when_a_truncation_is_queued() -> None:
    log, journal = make_log()
    append(log, 4)
    commit(log, journal)
    log.truncate_from(3)
    assert log.durable_index == 2


def test_a_batch_under_way_does_not_make_durable_what_was_truncated_meanwhile() -> None:
    log, _ = make_log()
    append(log, 4)
    sequence, _ = log.take_batch()
    log.truncate_from(3)
    append(log, 5, term=2)
    log.made_durable(sequence)
    assert log.durable_index == 3 - 1


def test_a_commit_hint_alone_causes_no_batch() -> None:
    log, _ = make_log()
    log.setRaftCommitIndex(1)
    assert not log.has_queued


def test_a_promise_waits_for_what_is_queued_now() -> None:
    log, journal = make_log()
    assert log.promise_sequence == log.durable_sequence
    append(log, 1)
    promise = log.promise_sequence
    assert promise > log.durable_sequence
    commit(log, journal)
    assert promise <= log.durable_sequence


def test_evicted_entries_are_read_from_the_journal() -> None:
    log, journal = make_log()
    append(log, 10, size=100)
    commit(log, journal)
    log.evict(applied_index=11, hot_bytes_max=250)
    assert not log.is_hot(5)
    assert log.is_hot(11)
    assert [entry[1] for entry in log.read(2, 100)] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert [entry[1] for entry in log.read(10, 100)] == [10, 11]
    assert log.term_at(3) == 1


def test_what_is_not_durable_or_not_applied_is_not_evicted() -> None:
    log, journal = make_log()
    append(log, 4, size=100)
    commit(log, journal)
    append(log, 4, size=100)
    log.evict(applied_index=9, hot_bytes_max=0)
    assert log.is_hot(6)
    log, journal = make_log()
    append(log, 4, size=100)
    commit(log, journal)
    log.evict(applied_index=3, hot_bytes_max=0)
    assert log.is_hot(4)


def test_truncation_reaches_into_the_evicted_part() -> None:
    log, journal = make_log()
    append(log, 6, size=100)
    commit(log, journal)
    log.evict(applied_index=7, hot_bytes_max=150)
    log.truncate_from(4)
    assert log.last == Position(3, 1)
    append(log, 1, term=4)
    commit(log, journal)
    assert [entry[1:] for entry in journal.read(2, count_max=9, bytes_max=9_999)] == [(2, 1), (3, 1), (4, 4)]


def test_trim_moves_the_anchor_and_pysyncobj_still_finds_its_positions() -> None:
    log, journal = make_log()
    append(log, 5)
    commit(log, journal)
    log.trim_to(4)
    assert log.anchor == Position(4, 1)
    assert log[0] == (NO_OP, 4, 1)
    assert len(log) == 3
    assert log[1][1] == 5
    assert [entry[1] for entry in log[1:]] == [5, 6]
    _, operations = log.take_batch()
    assert TrimTo(4, 1) in operations


def test_reset_starts_behind_the_snapshot() -> None:
    log, journal = make_log()
    append(log, 5)
    commit(log, journal)
    log.reset(Position(40, 3), Configuration())
    assert (log.last, log.anchor, log.durable_index, len(log)) == (Position(40, 3), Position(40, 3), 40, 1)
    _, operations = log.take_batch()
    assert Reset(40, 3) in operations


def test_slices_are_capped_but_never_empty() -> None:
    log, _ = make_log()
    append(log, 3_000, size=2_000)
    part = log[1:]
    assert isinstance(part, list)
    assert 1 <= len(part) < 3_000
    assert sum(len(entry[0]) for entry in part) <= 1 << 20
    log.add(bytes(3 << 20), log.last_index + 1, 1)
    assert len(log[len(log) - 1 :]) == 1


@pytest.mark.parametrize("gap", [0, 2])
def test_a_gap_in_the_log_is_a_bug(gap: int) -> None:
    log, _ = make_log()
    with pytest.raises(AssertionError, match="log gap"):
        log.add(b"", log.last_index + gap, 1)


def test_pysyncobj_must_not_clear_or_compact_the_log() -> None:
    log, _ = make_log()
    with pytest.raises(AssertionError):
        log.clear()
    with pytest.raises(AssertionError):
        log.deleteEntriesTo(1)


def test_the_tail_recovered_at_start_is_in_memory() -> None:
    entries: list[Entry] = [(b"\0a", 5, 2), (b"\0b", 6, 2)]
    log = LogImage(Position(3, 1), Position(6, 2), entries, HardState(term=2), lambda *_: [(b"\0z", 4, 1)])
    assert log.term_at(4) == 1
    assert [entry[1] for entry in log.read(5)] == [5, 6]
    assert log.durable_index == 6
