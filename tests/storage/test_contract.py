"""What Journal and Store promise, held against LMDB and against the simulator's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.errors import CorruptData, StorageFailed
from appliance.model import REGULAR, Entry, HardState, MemberId, PeerMemory, Position
from appliance.storage.batch import (
    LOG_START,
    Append,
    Reset,
    SetHardState,
    SetPeers,
    TrimTo,
    TruncateFrom,
)
from appliance.storage.journal import Journal
from appliance.storage.lmdb_journal import LmdbJournal
from appliance.storage.lmdb_store import LmdbStore
from appliance.storage.memory import MemoryDisk, MemoryJournal, MemoryStore
from appliance.storage.store import Store, StoreBatch
from tests.simulation.lmdb_disk import Cards, LmdbDisk

MIB = 1 << 20


class Card:
    """One durable place; opening again what was opened before is a restart."""

    def __init__(self, journal: Callable[[], Journal], store: Callable[[], Store]) -> None:
        self._open_journal = journal
        self._open_store = store
        self.journal = journal()
        self.store = store()

    def restart(self) -> None:
        self.journal.close()
        self.store.close()
        del self.journal, self.store
        self.journal = self._open_journal()
        self.store = self._open_store()


def _memory_card() -> Card:
    disk = MemoryDisk()
    return Card(lambda: MemoryJournal(disk), lambda: MemoryStore(disk))


def _lmdb_card(path: Path) -> Card:
    LmdbJournal.create(path / "journal", map_bytes=64 * MIB).close()
    LmdbStore.create(path, map_bytes=64 * MIB).close()
    return Card(
        lambda: LmdbJournal.open(path / "journal", map_bytes=64 * MIB),
        lambda: LmdbStore.open(path, map_bytes=64 * MIB),
    )


def _simulated_card(cards: Cards) -> Card:
    """LMDB as the simulator has it: each life opens the files that the last one left."""
    disk, opened = LmdbDisk(cards), list[tuple[Journal, Store]]()

    def open_journal() -> Journal:
        opened.append(disk.open())
        return opened[-1][0]

    return Card(open_journal, lambda: opened[-1][1])


@pytest.fixture(params=["memory", "lmdb", "simulated"])
def card(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Card]:
    cards = Cards()
    make = {
        "memory": _memory_card,
        "lmdb": lambda: _lmdb_card(tmp_path),
        "simulated": lambda: _simulated_card(cards),
    }
    made = make[request.param]()
    yield made
    made.journal.close()
    made.store.close()
    cards.close()


def entries(first: int, stop: int, *, term: int = 1, size_bytes: int = 10) -> tuple[Entry, ...]:
    return tuple(
        (REGULAR + bytes([index % 251]) * (size_bytes - 1), index, term) for index in range(first, stop)
    )


def test_new_journal_is_empty_at_the_start_of_the_log(card: Card) -> None:
    recovered = card.journal.recover()
    assert (recovered.anchor, recovered.last) == (LOG_START, LOG_START)
    assert recovered.hard_state == HardState()
    assert (recovered.peers, recovered.boot_count) == ({}, 0)
    assert card.journal.read(1, count_max=9, bytes_max=99) == []
    assert card.journal.read(2, count_max=9, bytes_max=99) == []


def test_everything_committed_is_there_after_a_restart(card: Card) -> None:
    hard_state = HardState(term=2, vote=MemberId(7), commit_index=3, high_index=0)
    peers = {MemberId(9): PeerMemory(boot_count=4, high_index=11), MemberId(2): PeerMemory()}
    log = entries(2, 5) + entries(5, 6, term=2)
    card.journal.commit([Append(log), SetHardState(hard_state), SetPeers(peers)])
    card.restart()
    recovered = card.journal.recover()
    assert recovered.last == Position(5, 2)
    assert recovered.hard_state == HardState(term=2, vote=MemberId(7), commit_index=3, high_index=5)
    assert recovered.peers == peers
    assert card.journal.read(2, count_max=99, bytes_max=9999) == list(log)
    assert recovered.size_bytes > 0


def test_boot_count_rises_with_each_start(card: Card) -> None:
    assert card.journal.begin_boot() == 1
    card.restart()
    assert card.journal.recover().boot_count == 1
    assert card.journal.begin_boot() == 2


def test_truncation_drops_the_tail_and_keeps_high_index(card: Card) -> None:
    card.journal.commit([Append(entries(2, 10))])
    card.journal.commit([TruncateFrom(5), Append(entries(5, 7, term=3))])
    card.restart()
    recovered = card.journal.recover()
    assert recovered.last == Position(6, 3)
    assert recovered.hard_state.high_index == 9
    assert [term for _, _, term in card.journal.read(2, count_max=9, bytes_max=999)] == [1, 1, 1, 3, 3]


def test_truncation_of_the_whole_log_ends_at_the_anchor(card: Card) -> None:
    card.journal.commit([Append(entries(2, 6)), TrimTo(3, 1), TruncateFrom(4)])
    assert card.journal.recover().last == Position(3, 1)
    card.journal.commit([TruncateFrom(9)])
    assert card.journal.recover().last == Position(3, 1)


def test_trim_moves_the_anchor_and_what_is_below_is_not_read(card: Card) -> None:
    card.journal.commit([Append(entries(2, 10))])
    card.journal.commit([TrimTo(5, 1)])
    card.restart()
    assert card.journal.recover().anchor == Position(5, 1)
    assert card.journal.read(5, count_max=9, bytes_max=999) == []
    assert card.journal.read(6, count_max=9, bytes_max=999) == list(entries(6, 10))


def test_trim_to_the_last_entry_leaves_an_empty_log_that_goes_on(card: Card) -> None:
    card.journal.commit([Append(entries(2, 4)), TrimTo(3, 1)])
    card.journal.commit([Append(entries(4, 5, term=2))])
    recovered = card.journal.recover()
    assert (recovered.anchor, recovered.last) == (Position(3, 1), Position(4, 2))


def test_reset_starts_the_log_over_above_its_end(card: Card) -> None:
    card.journal.commit([Append(entries(2, 10)), Reset(50, 4)])
    card.journal.commit([Append(entries(51, 53, term=4))])
    card.restart()
    recovered = card.journal.recover()
    assert (recovered.anchor, recovered.last) == (Position(50, 4), Position(52, 4))
    assert recovered.hard_state.high_index == 52


def test_reset_below_a_trimmed_anchor_does_not_bring_trimmed_entries_back(card: Card) -> None:
    card.journal.commit([Append(entries(2, 5_000))])
    card.journal.commit([TrimTo(4_990, 1)])
    card.journal.commit([Reset(100, 2)])
    card.restart()
    recovered = card.journal.recover()
    assert (recovered.anchor, recovered.last) == (Position(100, 2), Position(100, 2))
    assert card.journal.read(101, count_max=9, bytes_max=999) == []


def test_a_long_trim_gives_its_space_back_over_the_commits_that_follow(card: Card) -> None:
    card.journal.commit([Append(entries(2, 7_002, size_bytes=100))])
    before = card.journal.size_bytes()
    card.journal.commit([TrimTo(7_000, 1)])
    for commit_index in range(2, 6):
        card.journal.commit([SetHardState(HardState(commit_index=commit_index))])
    assert card.journal.size_bytes() < before / 20
    assert card.journal.recover().anchor == Position(7_000, 1)


def test_high_index_never_falls(card: Card) -> None:
    card.journal.commit([Append(entries(2, 10))])
    card.journal.commit([SetHardState(HardState(term=5, high_index=3))])
    assert card.journal.recover().hard_state.high_index == 9
    card.journal.commit([SetHardState(HardState(term=5, high_index=30))])
    assert card.journal.recover().hard_state.high_index == 30


def test_read_stops_at_count_and_bytes_but_gives_one_entry(card: Card) -> None:
    card.journal.commit([Append(entries(2, 12, size_bytes=100))])
    assert len(card.journal.read(2, count_max=3, bytes_max=9_999)) == 3
    assert len(card.journal.read(2, count_max=99, bytes_max=299)) == 2
    assert len(card.journal.read(2, count_max=99, bytes_max=300)) == 3
    assert len(card.journal.read(2, count_max=99, bytes_max=1)) == 1
    assert len(card.journal.read(11, count_max=99, bytes_max=9_999)) == 1
    assert card.journal.read(12, count_max=99, bytes_max=9_999) == []


def test_operations_of_one_commit_apply_in_order(card: Card) -> None:
    card.journal.commit(
        [
            Append(entries(2, 5)),
            TruncateFrom(3),
            Append(entries(3, 4, term=2)),
            TrimTo(2, 1),
            Append(entries(4, 6, term=2)),
        ]
    )
    recovered = card.journal.recover()
    assert (recovered.anchor, recovered.last) == (Position(2, 1), Position(5, 2))


def test_a_gap_or_a_trim_beyond_the_end_is_a_bug_and_changes_nothing(card: Card) -> None:
    card.journal.commit([Append(entries(2, 4, term=3))])
    for wrong in (Append(entries(5, 6, term=3)), TrimTo(9, 3)):
        with pytest.raises(AssertionError):
            card.journal.commit([wrong])
        card.restart()
        assert card.journal.recover().last == Position(3, 3)


def test_a_term_on_the_disk_that_does_not_fit_is_damage_and_changes_nothing(card: Card) -> None:
    """A bit of it may have flipped; what else the commit brings is not there either."""
    card.journal.commit([Append(entries(2, 6, term=3))])
    more = Append(entries(6, 8, term=3))
    for wrong in ([more, TrimTo(4, 2)], [TruncateFrom(4), Append(entries(4, 9, term=2))]):
        with pytest.raises(CorruptData, match=r"journal entry [34]: its term reads 3, .*must not vote"):
            card.journal.commit(wrong)
        card.restart()
        recovered = card.journal.recover()
        assert (recovered.anchor, recovered.last) == (LOG_START, Position(5, 3))
        assert card.journal.read(2, count_max=99, bytes_max=MIB) == list(entries(2, 6, term=3))


def test_entry_of_eight_mebibytes_survives(card: Card) -> None:
    large = (REGULAR + bytes(8 * MIB - 1), 2, 1)
    card.journal.commit([Append((large,))])
    card.restart()
    assert card.journal.read(2, count_max=1, bytes_max=1) == [large]


def test_new_store_stands_at_the_start_of_the_log(card: Card) -> None:
    assert card.store.checkpoint() == LOG_START
    with card.store.snapshot() as reader:
        assert reader.position == LOG_START
        assert list(reader.records()) == []
        assert reader.get("keys", b"a") is None


def test_checkpoint_is_there_after_a_restart(card: Card) -> None:
    card.store.commit(
        StoreBatch(
            Position(9, 2),
            [("keys", b"a", b"1"), ("meta", b"", b""), ("blocks", b"\xff" * 510, b"x" * 9_000)],
        )
    )
    card.restart()
    assert card.store.checkpoint() == Position(9, 2)
    with card.store.snapshot() as reader:
        assert reader.get("meta", b"") == b""
        assert list(reader.records()) == [
            ("meta", b"", b""),
            ("keys", b"a", b"1"),
            ("blocks", b"\xff" * 510, b"x" * 9_000),
        ]


def test_prefixes_go_before_deletes_and_deletes_before_puts(card: Card) -> None:
    puts = [("keys", key, b"old") for key in (b"a", b"a\xff", b"a\xff\xff", b"b", b"c")]
    card.store.commit(StoreBatch(Position(2, 1), puts))
    card.store.commit(
        StoreBatch(
            Position(3, 1),
            puts=[("keys", b"a\xff", b"new"), ("keys", b"c", b"new")],
            deletes=[("keys", b"c"), ("keys", b"none")],
            delete_prefixes=[("keys", b"a"), ("heads", b"")],
        )
    )
    with card.store.snapshot() as reader:
        assert list(reader.scan("keys")) == [(b"a\xff", b"new"), (b"b", b"old"), (b"c", b"new")]


def test_empty_prefix_deletes_one_table_only(card: Card) -> None:
    card.store.commit(
        StoreBatch(
            Position(2, 1), [("keys", b"\xff\xff", b"1"), ("series", b"", b"2"), ("producers", b"z", b"3")]
        )
    )
    card.store.commit(StoreBatch(Position(3, 1), delete_prefixes=[("keys", b"")]))
    with card.store.snapshot() as reader:
        assert [table for table, _, _ in reader.records()] == ["producers", "series"]


def test_a_key_put_twice_holds_the_last_value(card: Card) -> None:
    card.store.commit(StoreBatch(Position(2, 1), [("keys", b"a", bytes(70_000)), ("keys", b"a", b"2")]))
    card.restart()
    with card.store.snapshot() as reader:
        assert reader.get("keys", b"a") == b"2"


def test_scan_is_half_open(card: Card) -> None:
    card.store.commit(StoreBatch(Position(2, 1), [("keys", bytes([byte]), b"v") for byte in range(10)]))
    with card.store.snapshot() as reader:
        assert [key[0] for key, _ in reader.scan("keys", b"\3", b"\6")] == [3, 4, 5]
        assert [key[0] for key, _ in reader.scan("keys", b"\7")] == [7, 8, 9]
        assert list(reader.scan("keys", b"\6", b"\3")) == []
        assert list(reader.keys("keys")) == [bytes([byte]) for byte in range(10)]
        assert list(reader.keys("policies")) == []


def test_a_reader_does_not_see_later_commits(card: Card) -> None:
    card.store.commit(StoreBatch(Position(2, 1), [("keys", b"a", b"1")]))
    reader = card.store.snapshot()
    card.store.commit(StoreBatch(Position(3, 1), [("keys", b"a", b"2"), ("keys", b"b", b"2")]))
    assert (reader.position, list(reader.scan("keys"))) == (Position(2, 1), [(b"a", b"1")])
    reader.close()
    reader.close()


def test_a_batch_that_fails_half_way_changes_nothing(card: Card) -> None:
    card.store.commit(StoreBatch(Position(2, 1), [("keys", b"a", b"1")]))

    def failing() -> Iterator[tuple[str, bytes, bytes]]:
        yield "keys", b"a", b"2"
        raise ValueError("from the state machine")

    with pytest.raises(ValueError, match="state machine"):
        card.store.commit(StoreBatch(Position(3, 1), failing()))
    card.restart()
    assert card.store.checkpoint() == Position(2, 1)
    with card.store.snapshot() as reader:
        assert reader.get("keys", b"a") == b"1"


def test_an_install_replaces_the_whole_store_and_old_readers_go_on(card: Card) -> None:
    card.store.commit(StoreBatch(Position(2, 1), [("keys", b"old", b"1")]))
    reader = card.store.snapshot()
    installer = card.store.begin_install(Position(40, 3))
    installer.add([("keys", b"b", b"2"), ("blocks", b"x", bytes(5_000))])
    installer.add([("keys", b"a", b"2")])
    assert card.store.checkpoint() == Position(2, 1)
    replaced, card.store = card.store, installer.finish()
    installer.abort()
    with replaced.snapshot() as late:
        assert late.position == card.store.checkpoint() or late.get("keys", b"old") == b"1"
    replaced.close()
    assert card.store.checkpoint() == Position(40, 3)
    assert list(reader.records()) == [("keys", b"old", b"1")]
    reader.close()
    card.restart()
    with card.store.snapshot() as now:
        assert list(now.records()) == [
            ("keys", b"a", b"2"),
            ("keys", b"b", b"2"),
            ("blocks", b"x", bytes(5_000)),
        ]
    card.store.commit(StoreBatch(Position(41, 3), [("keys", b"c", b"3")]))
    assert card.store.checkpoint() == Position(41, 3)


def test_an_aborted_or_forgotten_install_leaves_nothing(card: Card) -> None:
    card.store.commit(StoreBatch(Position(2, 1), [("keys", b"old", b"1")]))
    aborted = card.store.begin_install(Position(40, 3))
    aborted.add([("keys", b"a", b"2")])
    aborted.abort()
    aborted.abort()
    forgotten = card.store.begin_install(Position(50, 3))
    forgotten.add([("keys", b"a", b"2")])
    del forgotten
    card.restart()
    assert card.store.checkpoint() == Position(2, 1)
    card.store = card.store.begin_install(Position(60, 3)).finish()
    with card.store.snapshot() as reader:
        assert (reader.position, list(reader.records())) == (Position(60, 3), [])


def test_a_snapshot_sent_record_by_record_is_the_same_store(card: Card, tmp_path: Path) -> None:
    puts = [("keys", index.to_bytes(2, "big"), bytes(index)) for index in range(500)]
    card.store.commit(StoreBatch(Position(5, 1), puts))
    other = MemoryStore(MemoryDisk())
    with card.store.snapshot() as reader:
        installer = other.begin_install(reader.position)
        installer.add(reader.records())
        with installer.finish().snapshot() as copied:
            assert list(copied.records()) == list(reader.records())


def test_failed_commit_in_memory_leaves_the_disk_as_it_was() -> None:
    disk = MemoryDisk()
    journal, store = MemoryJournal(disk), MemoryStore(disk)
    journal.commit([Append(entries(2, 4))])
    for attempt in (
        lambda: journal.commit([Append(entries(4, 6))]),
        lambda: store.commit(StoreBatch(Position(3, 1), [("keys", b"a", b"1")])),
        lambda: store.begin_install(Position(3, 1)).finish(),
        journal.begin_boot,
    ):
        disk.fail_next_commit = True
        with pytest.raises(StorageFailed):
            attempt()
        assert not disk.fail_next_commit
    assert MemoryJournal(disk).recover().last == Position(3, 1)
    assert MemoryStore(disk).checkpoint() == LOG_START


def test_copy_of_a_memory_disk_is_an_image_of_that_moment() -> None:
    disk = MemoryDisk()
    MemoryJournal(disk).commit([Append(entries(2, 4))])
    image = disk.copy()
    MemoryJournal(disk).commit([Append(entries(4, 6))])
    MemoryStore(disk).commit(StoreBatch(Position(3, 1)))
    assert MemoryJournal(image).recover().last == Position(3, 1)
    assert MemoryStore(image).checkpoint() == LOG_START


def test_flipped_bits_in_memory_are_found() -> None:
    disk = MemoryDisk()
    MemoryJournal(disk).commit([Append(entries(2, 6))])
    MemoryStore(disk).commit(StoreBatch(Position(3, 1), [("keys", b"a", b"1")]))
    disk.corrupt_entry(4)
    disk.corrupt_record("keys", b"a")
    with pytest.raises(CorruptData, match="journal entry 4"):
        MemoryJournal(disk).recover()
    with pytest.raises(CorruptData, match="journal entry 4"):
        MemoryJournal(disk).read(4, count_max=1, bytes_max=1)
    with pytest.raises(CorruptData, match="store keys 61"):
        MemoryStore(disk).snapshot().get("keys", b"a")
