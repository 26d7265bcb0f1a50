"""A machine's disk as production has it: LmdbJournal and LmdbStore in a directory, beside the same on a MemoryDisk.

Invariant: both hold the same at every start, or `same_on_lmdb` fails; so the checkers look at the copy in memory, and a
seed has the same course on either. A crash leaves the files as the kernel has them: the next life opens a copy of them,
as after a power cut. A commit that was under way has written its pages then, and not the meta page that names them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import lmdb

from appliance.errors import CorruptData, StorageFailed
from appliance.limits import MIB
from appliance.model import Entry, Position
from appliance.storage import layout
from appliance.storage.batch import JournalOperation
from appliance.storage.journal import Journal, RecoveredJournal
from appliance.storage.lmdb_files import DATA_FILE
from appliance.storage.lmdb_journal import LmdbJournal
from appliance.storage.lmdb_store import LmdbInstaller, LmdbStore
from appliance.storage.memory import MemoryDisk, MemoryInstaller, MemoryJournal, MemoryStore, StoreImage
from appliance.storage.store import Record, Store, StoreBatch, StoreReader
from tests.simulation.failure import require

Result = TypeVar("Result")

MAP_BYTES = 64 * MIB
META_BYTES = 2 * os.sysconf("SC_PAGE_SIZE")
"""LMDB's two meta pages, at the head of the file: what names the pages of the latest commit."""

ALL = 1 << 30


class Cards:
    """Where the disks of a world lie: made when first asked for."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._number = 0
        self.counts: Counter[str] = Counter()

    def new_directory(self) -> Path:
        """A name; nothing is there."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="simulation-", ignore_cleanup_errors=True)
        self._number += 1
        return Path(self._directory.name) / f"{self._number}"

    def close(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()


class LmdbDisk(MemoryDisk):
    """What it inherits is the copy in memory."""

    def __init__(self, cards: Cards) -> None:
        super().__init__()
        self.cards = cards
        self.directory: Path | None = None
        self.opened: dict[str, lmdb.Environment] = {}
        """"journal" and "store" of the life that has the directory open, or had it last."""

        self.is_torn = False
        """What is committed now is not on the card."""

    def open(self) -> tuple[Journal, Store]:
        """For a new life of the machine."""
        if self.directory is None:
            self.directory = self.cards.new_directory()
            self.directory.mkdir()
            LmdbJournal.create(self.directory / "journal", map_bytes=MAP_BYTES).close()
            LmdbStore.create(self.directory, map_bytes=MAP_BYTES).close()
        elif self.opened:
            self._power_off()
        self.cards.counts["lives"] += 1
        journal = LmdbJournal.open(self.directory / "journal", map_bytes=MAP_BYTES)
        self.opened["journal"] = _environment_of(journal)
        store = LmdbStore.open(self.directory, map_bytes=MAP_BYTES)
        return _Journal(self, journal), _Store(self, store, MemoryStore(self))

    def copy(self) -> LmdbDisk:
        image, other = super().copy(), LmdbDisk(self.cards)
        other.entries, other.image = image.entries, image.image
        other.state, other.peers, other.boot_count = image.state, image.peers, image.boot_count
        if self.directory is not None:
            other.directory = shutil.copytree(self.directory, self.cards.new_directory())
        return other

    def blank(self) -> LmdbDisk:
        return LmdbDisk(self.cards)

    def tear(self, work: Callable[[], object]) -> None:
        """The power fails while work commits: its pages are on the card, the meta page is as it was."""
        assert self.directory is not None
        metas = {path: _read_meta(path) for path in self.directory.glob(f"*/{DATA_FILE}")}
        self.is_torn = True
        with suppress(StorageFailed, CorruptData):
            work()
        self.is_torn = False
        self._power_off(metas)

    def _power_off(self, metas: Mapping[Path, bytes] | None = None) -> None:
        """The files as they are, for the next life: whoever has them open is dead, and does no harm."""
        old = self.directory
        assert old is not None
        for path, meta in (metas or {}).items():
            self.cards.counts["torn"] += _read_meta(path) != meta
            with path.open("r+b") as file:
                file.write(meta)
        self.directory = shutil.copytree(old, self.cards.new_directory())
        self.opened.clear()
        shutil.rmtree(old)

    def spoil(self, name: str, key: bytes, record: bytes) -> None:
        """Damage at rest: other bytes under a key of "journal" or "store"."""
        assert self.directory is not None
        path = self.directory / (
            "journal" if name == "journal" else (self.directory / "CURRENT").read_text().strip()
        )
        opened = self.opened.get(name)
        environment = opened or lmdb.Environment(str(path), map_size=MAP_BYTES, lib_version=0)
        with environment.begin(write=True) as transaction:
            transaction.put(key, record)
        if opened is None:
            environment.close()


def _environment_of(opened: LmdbJournal | LmdbStore) -> lmdb.Environment:
    assert opened._environment is not None
    return opened._environment


def _read_meta(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(META_BYTES)


class _Journal:
    def __init__(self, disk: LmdbDisk, journal: LmdbJournal) -> None:
        self._disk, self._lmdb, self._memory = disk, journal, MemoryJournal(disk)

    def recover(self) -> RecoveredJournal:
        found, expected = (_outcome(side.recover) for side in (self._lmdb, self._memory))
        require(
            _logical(found) == _logical(expected),
            "same_on_lmdb",
            f"the journal holds {found}, in memory {expected}",
        )
        if isinstance(found, CorruptData):
            raise found
        first = found.anchor.index + 1
        entries = self._lmdb.read(first, count_max=ALL, bytes_max=ALL)
        require(
            entries == self._memory.read(first, count_max=ALL, bytes_max=ALL), "same_on_lmdb", "other entries"
        )
        return replace(found, size_bytes=self.size_bytes())

    def begin_boot(self) -> int:
        boot_count = self._memory.begin_boot()
        require(self._lmdb.begin_boot() == boot_count, "same_on_lmdb", "another boot count")
        return boot_count

    def commit(self, operations: Sequence[JournalOperation]) -> None:
        self._disk.check_commit()
        self._lmdb.commit(operations)
        if not self._disk.is_torn:
            self._memory.commit(operations)

    def read(self, first_index: int, *, count_max: int, bytes_max: int) -> list[Entry]:
        return self._lmdb.read(first_index, count_max=count_max, bytes_max=bytes_max)

    def size_bytes(self) -> int:
        """Of what it holds, not of pages: trimming must not depend on the disk's form."""
        return self._memory.size_bytes()

    def close(self) -> None:
        self._lmdb.close()


class _Store:
    def __init__(self, disk: LmdbDisk, store: LmdbStore, memory: MemoryStore) -> None:
        self._disk, self._lmdb, self._memory = disk, store, memory
        disk.opened["store"] = _environment_of(store)
        with store.snapshot() as found, memory.snapshot() as expected:
            require(
                (found.position, _content(found)) == (expected.position, _content(expected)),
                "same_on_lmdb",
                f"the store at {found.position} holds other records than the one in memory at {expected.position}",
            )

    def checkpoint(self) -> Position:
        return self._lmdb.checkpoint()

    def commit(self, batch: StoreBatch) -> None:
        kept = StoreBatch(batch.position, list(batch.puts), list(batch.deletes), list(batch.delete_prefixes))
        self._disk.check_commit()
        self._lmdb.commit(kept)
        if not self._disk.is_torn:
            self._memory.commit(kept)

    def snapshot(self) -> StoreReader:
        return self._lmdb.snapshot()

    def begin_install(self, position: Position) -> _Installer:
        return _Installer(
            self._disk, self._lmdb.begin_install(position), self._memory.begin_install(position)
        )

    def size_bytes(self) -> int:
        return self._memory.size_bytes()

    def close(self) -> None:
        self._lmdb.close()


class _Installer:
    def __init__(self, disk: LmdbDisk, installer: LmdbInstaller, memory: MemoryInstaller) -> None:
        self._disk, self._lmdb, self._memory = disk, installer, memory

    def add(self, records: Iterable[Record]) -> None:
        kept = list(records)
        self._lmdb.add(kept)
        self._memory.add(kept)

    def finish(self) -> _Store:
        self._disk.check_commit()
        return _Store(self._disk, self._lmdb.finish(), self._memory.finish())

    def abort(self) -> None:
        self._lmdb.abort()
        self._memory.abort()


def open_disk(disk: MemoryDisk) -> tuple[Journal, Store]:
    """Of either form."""
    return disk.open() if isinstance(disk, LmdbDisk) else (MemoryJournal(disk), MemoryStore(disk))


def blank_disk(disk: MemoryDisk) -> MemoryDisk:
    """An empty one of the same form."""
    return disk.blank() if isinstance(disk, LmdbDisk) else MemoryDisk()


def spoil_entry(disk: MemoryDisk, index: int, record: bytes) -> None:
    disk.entries[index] = record
    if isinstance(disk, LmdbDisk):
        disk.spoil("journal", layout.entry_key(index), record)


def spoil_record(disk: MemoryDisk, stored: bytes, record: bytes) -> None:
    disk.image = StoreImage(disk.image.position, {**disk.image.records, stored: record})
    if isinstance(disk, LmdbDisk):
        disk.spoil("store", stored, record)


def spoil_state(disk: MemoryDisk, record: bytes) -> None:
    disk.state = record
    if isinstance(disk, LmdbDisk):
        disk.spoil("journal", layout.STATE_KEY, record)


def spoil_boot_count(disk: MemoryDisk, record: bytes) -> None:
    disk.boot_count = record
    if isinstance(disk, LmdbDisk):
        disk.spoil("journal", layout.BOOT_KEY, record)


def _content(reader: StoreReader) -> list[Record] | str:
    found = _outcome(lambda: list(reader.records()))
    return str(found) if isinstance(found, CorruptData) else found


def _logical(recovered: RecoveredJournal | CorruptData) -> RecoveredJournal | str:
    """Without what differs between files and memory."""
    return str(recovered) if isinstance(recovered, CorruptData) else replace(recovered, size_bytes=0)


def _outcome(read: Callable[[], Result]) -> Result | CorruptData:
    """Damage is an outcome like any other."""
    try:
        return read()
    except CorruptData as error:
        return error
