"""One seed of fifty runs on production's LMDB files: its course is that of the same seed in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from appliance.errors import CorruptData
from appliance.model import REGULAR, Entry, Position
from appliance.storage.batch import Append
from appliance.storage.store import StoreBatch
from tests.simulation.failure import CheckFailed
from tests.simulation.lmdb_disk import Cards, LmdbDisk, spoil_entry
from tests.simulation.swarm import run_seed
from tests.simulation.world import LMDB_EVERY, Plan, World

SEEDS = (3, 5)
"""Processes that die within commits, snapshots that are installed, restarts: each in one of them at least."""


@pytest.fixture
def disk() -> Iterator[LmdbDisk]:
    cards = Cards()
    yield LmdbDisk(cards)
    cards.close()


def entry(index: int) -> Entry:
    return (REGULAR + b"x" * 3_000, index, 1)


def test_a_seed_has_the_same_course_on_lmdb_as_in_memory() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        in_memory, on_lmdb = (run_seed(Plan(seed, is_on_lmdb=is_on_lmdb)) for is_on_lmdb in (False, True))
        assert (on_lmdb.failure, on_lmdb.trace_digest) == (None, in_memory.trace_digest)
        counts += on_lmdb.counts
    assert counts["lmdb_torn"] > 0
    assert counts["event_installed"] > 0


def test_one_seed_of_fifty_is_on_lmdb() -> None:
    is_on_lmdb = [isinstance(World(Plan(seed)).machines[0].disk, LmdbDisk) for seed in range(LMDB_EVERY)]
    assert is_on_lmdb.count(True) == 1


def test_a_commit_that_the_power_failed_in_leaves_what_was_there(disk: LmdbDisk) -> None:
    journal, store = disk.open()
    journal.commit([Append((entry(2), entry(3)))])
    store.commit(StoreBatch(Position(2, 1), [("keys", b"a", b"1")]))
    disk.tear(lambda: journal.commit([Append((entry(4),))]))
    journal, store = disk.open()
    assert journal.recover().last == Position(3, 1)
    disk.tear(lambda: store.commit(StoreBatch(Position(3, 1), [("keys", b"a", b"2")])))
    journal, store = disk.open()
    with store.snapshot() as reader:
        assert (reader.position, reader.get("keys", b"a")) == (Position(2, 1), b"1")
    assert disk.cards.counts["torn"] == 2
    journal.commit([Append((entry(4),))])
    assert disk.open()[0].recover().last == Position(4, 1)


def test_a_difference_between_the_two_forms_is_found(disk: LmdbDisk) -> None:
    journal, _ = disk.open()
    journal.commit([Append((entry(2), entry(3)))])
    disk.entries[3] = disk.entries[3][:-1] + b"y"
    with pytest.raises(CheckFailed, match="same_on_lmdb"):
        disk.open()[0].recover()


def test_a_bit_that_flips_at_rest_flips_in_both_forms(disk: LmdbDisk) -> None:
    journal, _ = disk.open()
    journal.commit([Append((entry(2), entry(3)))])
    spoil_entry(disk, 3, disk.entries[3][:-1] + b"y")
    with pytest.raises(CorruptData, match="journal entry 3"):
        disk.open()[0].recover()


def test_an_image_of_a_card_is_not_touched_by_what_follows(disk: LmdbDisk) -> None:
    journal, _ = disk.open()
    journal.commit([Append((entry(2),))])
    image = disk.copy()
    journal.commit([Append((entry(3),))])
    assert image.open()[0].recover().last == Position(2, 1)
    assert disk.blank().open()[0].recover().last == Position(1, 0)
