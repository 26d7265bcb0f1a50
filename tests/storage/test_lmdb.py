"""What holds on LMDB only: damage, truncation, threads, bounded transactions, crashes of an install."""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path

import lmdb
import pytest

from appliance.errors import CorruptData, DataDirectoryRefused, StorageFailed
from appliance.model import Entry, HardState, MemberId, PeerMemory, Position
from appliance.storage import lmdb_environment, lmdb_files, lmdb_journal, lmdb_store
from appliance.storage.batch import Append, SetHardState, SetPeers, TrimTo
from appliance.storage.layout import entry_key
from appliance.storage.lmdb_environment import lmdb_errors
from appliance.storage.lmdb_journal import LmdbJournal
from appliance.storage.lmdb_store import LmdbStore
from appliance.storage.store import StoreBatch

MIB = 1 << 20


def entries(first: int, stop: int, size_bytes: int = 600) -> tuple[Entry, ...]:
    return tuple(
        (b"\0" + index.to_bytes(4, "big") * (size_bytes // 4), index, 1) for index in range(first, stop)
    )


def filled(directory: Path, *, size_bytes: int = 600) -> LmdbJournal:
    journal = LmdbJournal.create(directory, map_bytes=64 * MIB)
    for first in range(2, 202, 20):
        journal.commit([Append(entries(first, first + 20, size_bytes))])
    return journal


@pytest.mark.parametrize("size_bytes", [600, 6_000, 40_000])
def test_a_journal_cut_short_anywhere_is_refused_and_does_not_end_the_process(
    tmp_path: Path, size_bytes: int
) -> None:
    filled(tmp_path / "journal", size_bytes=size_bytes).close()
    path = tmp_path / "journal" / "data.mdb"
    whole = path.read_bytes()
    for cut in (len(whole) - 4_096, len(whole) - 9_000, len(whole) // 2, 9_000, 5_000, 4_096, 100, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptData, match=r"journal/data.mdb: .*cut short.*must not vote"):
            LmdbJournal.open(tmp_path / "journal").recover()


def test_a_cut_through_the_last_large_value_is_found(tmp_path: Path) -> None:
    journal = LmdbJournal.create(tmp_path / "journal", map_bytes=64 * MIB)
    for index in range(2, 6):
        journal.commit([Append(entries(index, index + 1, 300_000))])
    journal.close()
    path = tmp_path / "journal" / "data.mdb"
    whole = path.read_bytes()
    for cut in range(len(whole) - 40_000, len(whole), 4_096):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptData, match="cut short"):
            LmdbJournal.open(tmp_path / "journal")


def test_a_file_whose_last_pages_were_never_written_is_whole(tmp_path: Path) -> None:
    chance = random.Random(3)
    short_count = 0
    with lmdb.Environment(str(tmp_path / "journal"), map_size=64 * MIB, lib_version=0) as environment:
        for _ in range(60):
            with environment.begin(write=True) as transaction:
                for _ in range(chance.randrange(1, 12)):
                    key = entry_key(chance.randrange(300))
                    transaction.delete(key)
                    transaction.put(key, bytes(chance.choice((10, 300, 5_000, 60_000))))
                transaction.put(b"x", bytes(900_000))
                transaction.delete(b"x")
            pages_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            short_count += (tmp_path / "journal" / "data.mdb").stat().st_size < pages_bytes
            lmdb_files.check_data_file(tmp_path / "journal")
    assert short_count > 0


def test_garbage_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "journal").close()
    path = tmp_path / "journal" / "data.mdb"
    path.write_bytes(os.urandom(path.stat().st_size))
    with pytest.raises(CorruptData, match="no LMDB meta page at byte 0"):
        LmdbJournal.open(tmp_path / "journal")


def test_a_file_of_a_newer_lmdb_is_refused_with_a_hint(tmp_path: Path) -> None:
    lmdb.Environment(str(tmp_path / "journal"), lib_version=1).close()
    with pytest.raises(DataDirectoryRefused, match="LMDB format 3, this version reads 1; start the version"):
        LmdbJournal.open(tmp_path / "journal")


def test_a_flipped_bit_that_hides_the_last_commit_is_found(tmp_path: Path) -> None:
    filled(tmp_path / "journal").close()
    path = tmp_path / "journal" / "data.mdb"
    whole = path.read_bytes()
    for page_start in (0, 4_096):
        for bit in range(2, 8):
            content = bytearray(whole)
            # The transaction number: after page header, fixed fields, two databases and the last page.
            content[page_start + 16 + 24 + 96 + 8] ^= 1 << bit
            path.write_bytes(content)
            with pytest.raises(CorruptData, match="one apart expected"):
                LmdbJournal.open(tmp_path / "journal")


def test_damage_in_a_page_header_is_found_before_the_file_is_mapped(tmp_path: Path) -> None:
    filled(tmp_path / "journal").close()
    path = tmp_path / "journal" / "data.mdb"
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4_096):
        content[page * 4_096 + 10] ^= 0x07
    path.write_bytes(content)
    with pytest.raises(CorruptData, match="damaged or cut short"):
        LmdbJournal.open(tmp_path / "journal")


def test_a_flipped_bit_in_an_entry_names_the_index(tmp_path: Path) -> None:
    filled(tmp_path / "journal").close()
    path = tmp_path / "journal" / "data.mdb"
    pattern = (77).to_bytes(4, "big") * 100
    path.write_bytes(path.read_bytes().replace(pattern, b"\x10" + pattern[1:]))
    journal = LmdbJournal.open(tmp_path / "journal", map_bytes=64 * MIB)
    with pytest.raises(CorruptData, match=r"journal entry 77: checksum .* must not vote"):
        journal.recover()
    with pytest.raises(CorruptData, match="journal entry 77"):
        journal.read(70, count_max=20, bytes_max=MIB)
    assert len(journal.read(78, count_max=20, bytes_max=MIB)) == 20


@pytest.mark.parametrize(("removed", "message"), [(77, "entry 78: follows 76"), (201, "ends at index 200")])
def test_a_missing_entry_is_found(tmp_path: Path, removed: int, message: str) -> None:
    filled(tmp_path / "journal").close()
    with (
        lmdb.Environment(str(tmp_path / "journal"), map_size=64 * MIB, lib_version=0) as environment,
        environment.begin(write=True) as transaction,
    ):
        assert transaction.delete(entry_key(removed))
    with pytest.raises(CorruptData, match=message):
        LmdbJournal.open(tmp_path / "journal").recover()


def test_a_flipped_bit_in_the_store_names_table_and_key(tmp_path: Path) -> None:
    store = LmdbStore.create(tmp_path, map_bytes=64 * MIB)
    store.commit(StoreBatch(Position(2, 1), [("keys", b"a", b"good" * 50), ("keys", b"b", b"fine")]))
    store.close()
    path = tmp_path / "store.1" / "data.mdb"
    path.write_bytes(path.read_bytes().replace(b"good" * 50, b"good" * 49 + b"gooe"))
    with LmdbStore.open(tmp_path, map_bytes=64 * MIB).snapshot() as reader:
        with pytest.raises(CorruptData, match="store keys 61: checksum"):
            reader.get("keys", b"a")
        with pytest.raises(CorruptData, match="store keys 61: checksum"):
            list(reader.records())
        assert reader.get("keys", b"b") == b"fine"


def test_a_full_map_is_fatal_and_says_what_to_do(tmp_path: Path) -> None:
    journal = LmdbJournal.create(tmp_path / "journal", map_bytes=MIB)
    with pytest.raises(StorageFailed, match=r"journal commit: .*map is full.*raise the size limit"):
        journal.commit([Append(entries(2, 3, 2 * MIB))])
    with pytest.raises(StorageFailed, match="an earlier commit failed"):
        journal.commit([SetHardState(HardState(term=1))])
    assert journal.recover().last == Position(1, 0)


def test_errors_of_lmdb_are_translated_by_what_they_mean() -> None:
    with pytest.raises(CorruptData, match="here: "), lmdb_errors("here"):
        raise lmdb.CorruptedError("x")
    with pytest.raises(StorageFailed, match=r"here: .*check the card"), lmdb_errors("here"):
        raise lmdb.DiskError("x")


@pytest.mark.parametrize(
    ("first", "sizes"),
    [
        ([], (100, 100)),
        ([], (600, 600)),
        ([], (780, 780)),
        ([], (700, 850)),
        ([], (950, 950)),
        ([], (1_000, 1_000)),
        ([], (1_240, 1_240)),
        ([], (1_300, 1_300)),
        ([], (900, 1_290)),
        ([], (200, 1_600)),
        ([60] * 5, (1_280, 1_280)),
        ([100] * 25 + [650], (1_000, 1_000)),
    ],
)
def test_a_commit_writes_one_leaf_for_its_entry_and_the_state(
    tmp_path: Path, first: list[int], sizes: tuple[int, int]
) -> None:
    """And the pages above it, the list of free pages and the meta page; two leaves where one is split."""
    journal = LmdbJournal.create(tmp_path / "journal", map_bytes=64 * MIB)
    journal.begin_boot()
    chance = random.Random(7)
    peers = {MemberId(number): PeerMemory(boot_count=number, high_index=9) for number in (2, 3)}
    journal.commit([SetPeers(peers)])
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    before: list[bytes] = []
    written = needed = 0
    for index in range(2, 102):
        if index == 10:
            journal.close()
            journal = LmdbJournal.open(tmp_path / "journal", map_bytes=64 * MIB)
        command = chance.randbytes(first[index - 2] if index - 2 < len(first) else chance.randint(*sizes))
        hard_state = HardState(term=1, vote=None, commit_index=index - 1, high_index=index)
        journal.commit([Append(((command, index, 1),)), SetHardState(hard_state)])
        content = (tmp_path / "journal" / "data.mdb").read_bytes()
        pages = [content[place : place + page_bytes] for place in range(0, len(content), page_bytes)]
        written += sum(page not in before[number : number + 1] for number, page in enumerate(pages))
        assert journal._environment is not None
        needed += journal._environment.stat()["depth"] + 2
        before = pages
    leaves = written - needed + 100
    assert leaves < 1.6 * 100, f"{leaves / 100:.2f} leaves a commit"
    recovered = journal.recover()
    assert (recovered.last.index, recovered.boot_count, dict(recovered.peers)) == (101, 1, peers)


def test_one_commit_sweeps_a_bounded_number_of_trimmed_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_journal, "SWEEP_ENTRIES_MAX", 50)
    journal = filled(tmp_path / "journal")
    journal.commit([TrimTo(200, 1)])
    counts = []
    for commit_index in range(2, 7):
        counts.append(_stored_entries(journal))
        journal.commit([SetHardState(HardState(commit_index=commit_index))])
    assert counts == [150, 100, 50, 1, 1]
    assert journal.read(201, count_max=9, bytes_max=MIB) == list(entries(201, 202))


def _stored_entries(journal: LmdbJournal) -> int:
    with journal._begin() as transaction:
        return transaction.stat()["entries"] - 1


def test_one_commit_sweeps_a_bounded_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_journal, "SWEEP_BYTES_MAX", 60_000)
    journal = filled(tmp_path / "journal", size_bytes=6_000)
    journal.commit([TrimTo(201, 1)])
    assert _stored_entries(journal) == 200 - 10


def test_a_new_environment_and_its_names_are_synced_before_anyone_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB does not sync the meta pages that an environment begins with; docs/power-loss.md tells what that did."""
    synced: list[str] = []

    class Opened:
        """LMDB's own class cannot be derived from."""

        def __init__(self, path: str, **options: object) -> None:
            self._environment = environment_class(path, **options)

        def sync(self, force: bool) -> None:
            self._environment.sync(force)
            synced.append(f"data.mdb force={force}")

        def close(self) -> None:
            self._environment.close()

    environment_class = lmdb.Environment
    monkeypatch.setattr(lmdb, "Environment", Opened)
    monkeypatch.setattr(lmdb_environment, "sync_directory", lambda path: synced.append(path.name))
    lmdb_environment.create_environment(tmp_path / "new", map_bytes=MIB).close()
    assert synced == ["data.mdb force=True", "new", tmp_path.name]


def test_reads_keep_no_file_on_the_card_changing(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal")
    assert sorted(path.name for path in (tmp_path / "journal").iterdir()) == ["data.mdb"]
    before = (tmp_path / "journal" / "data.mdb").stat()
    for _ in range(100):
        journal.read(2, count_max=9, bytes_max=MIB)
    after = (tmp_path / "journal" / "data.mdb").stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_a_log_is_read_in_one_thread_while_another_commits(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal")
    failures: list[BaseException] = []
    is_done = threading.Event()

    def read() -> None:
        try:
            while not is_done.is_set():
                found = journal.read(150, count_max=400, bytes_max=MIB)
                indexes = [index for _, index, _ in found]
                assert indexes == list(range(150, 150 + len(indexes)))
                assert len(indexes) >= 52
        except BaseException as failure:
            failures.append(failure)
            raise

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(202, 302):
        journal.commit([Append(entries(index, index + 1)), TrimTo(100, 1)])
    is_done.set()
    reader.join()
    assert not failures


def test_a_reader_is_used_in_another_thread_after_the_store_was_closed(tmp_path: Path) -> None:
    store = LmdbStore.create(tmp_path, map_bytes=64 * MIB)
    store.commit(StoreBatch(Position(2, 1), [("keys", b"a", b"1")]))
    reader = store.snapshot()
    store.close()
    del store
    found: list[object] = []
    thread = threading.Thread(target=lambda: (found.extend(reader.records()), reader.close()))
    thread.start()
    thread.join()
    assert found == [("keys", b"a", b"1")]
    assert LmdbStore.open(tmp_path, map_bytes=64 * MIB).checkpoint() == Position(2, 1)


def test_a_long_install_is_cut_into_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "INSTALL_TRANSACTION_BYTES", 5_000)
    records = [("blocks", index.to_bytes(4, "big"), bytes(1_000)) for index in range(100)]
    installer = LmdbStore.create(tmp_path, map_bytes=64 * MIB).begin_install(Position(9, 1))
    installer.add(iter(records))
    with installer.finish().snapshot() as reader:
        assert list(reader.records()) == records


@pytest.mark.parametrize("is_switched", [False, True])
def test_a_crash_of_an_install_before_and_after_the_switch(tmp_path: Path, is_switched: bool) -> None:
    card, image = tmp_path / "card", tmp_path / "image"
    card.mkdir()
    store = LmdbStore.create(card, map_bytes=64 * MIB)
    store.commit(StoreBatch(Position(2, 1), [("keys", b"old", b"1")]))
    installer = store.begin_install(Position(40, 3))
    installer.add([("keys", b"new", b"2")])
    shutil.copytree(card, image)
    installed = installer.finish()
    assert sorted(path.name for path in card.iterdir()) == ["CURRENT", "store.2"]
    if is_switched:
        # As if the power had gone after the rename and before the old store was removed.
        shutil.copytree(card / "store.2", image / "store.2", dirs_exist_ok=True)
        (image / "CURRENT").write_bytes((card / "CURRENT").read_bytes())
    reopened = LmdbStore.open(image, map_bytes=64 * MIB)
    assert reopened.checkpoint() == (Position(40, 3) if is_switched else Position(2, 1))
    number = 2 if is_switched else 1
    assert sorted(path.name for path in image.iterdir()) == ["CURRENT", f"store.{number}"]
    assert installed.checkpoint() == Position(40, 3)


def test_a_pointer_that_names_no_store_is_corrupt(tmp_path: Path) -> None:
    LmdbStore.create(tmp_path, map_bytes=64 * MIB).close()
    (tmp_path / "CURRENT").write_bytes(b"store.1/../../x\n")
    with pytest.raises(CorruptData, match=r"CURRENT: holds .* names no store"):
        LmdbStore.open(tmp_path)


def test_a_store_with_puts_and_deletes_of_all_sizes_passes_the_walk(tmp_path: Path) -> None:
    store = LmdbStore.create(tmp_path, map_bytes=64 * MIB)
    for step in range(60):
        puts = [("heads", bytes([step * 7 % 50, extra]), bytes(step * 977 % 20_000)) for extra in range(9)]
        deletes = [("heads", bytes([step * 11 % 50, 3]))]
        store.commit(
            StoreBatch(Position(2 + step, 1), puts + puts[:2], deletes, [("heads", bytes([step % 13]))])
        )
        lmdb_files.check_data_file(tmp_path / "store.1")
