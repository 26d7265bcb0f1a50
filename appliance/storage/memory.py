"""Journal and store in memory, with the card's crash semantics: for the simulator and for tests.

Invariant: a MemoryDisk holds exactly what is durable, encoded as on LMDB; a commit changes all of
it or nothing; whoever opens a journal or store on it starts from that. One thread only.
It passes the contract suite of the LMDB implementations.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from appliance.errors import CorruptData, StorageFailed
from appliance.model import Entry, Position
from appliance.storage import layout
from appliance.storage.batch import (
    LOG_START,
    Append,
    JournalOperation,
    JournalState,
    Reset,
    SetPeers,
    TrimTo,
    TruncateFrom,
    advance,
)
from appliance.storage.journal import RecoveredJournal
from appliance.storage.records import REBUILD_HINT, decode_record, encode_record
from appliance.storage.store import (
    TABLE_BYTES,
    TABLES,
    Record,
    StoreBatch,
    full_key,
    prefix_stop,
)


class StoreImage:
    """A store's records at one position; never changed once made."""

    def __init__(self, position: Position, records: dict[bytes, bytes]) -> None:
        self.position = position
        self.records = records
        self._sorted_keys: list[bytes] | None = None

    def keys(self, start: bytes, stop: bytes | None) -> Iterator[bytes]:
        """Keys from start to stop (excluded), ascending."""
        if self._sorted_keys is None:
            self._sorted_keys = sorted(self.records)
        keys = self._sorted_keys
        end = len(keys) if stop is None else bisect_left(keys, stop)
        for place in range(bisect_left(keys, start), end):
            yield keys[place]


class MemoryDisk:
    """What survives a crash. Copy it to take an image of the card."""

    def __init__(self) -> None:
        self.entries: dict[int, bytes] = {}
        self.state: bytes | None = None
        self.peers: bytes | None = None
        self.boot_count: bytes | None = None
        self.image = StoreImage(LOG_START, {})
        self._decoded: tuple[bytes | None, JournalState] = (None, JournalState())
        self.fail_next_commit = False
        """The next commit, of either, raises StorageFailed and leaves the disk as it was."""

        self.is_full = False
        """Every commit fails like that."""

    def journal_state(self) -> JournalState:
        """The state's record, decoded once for each version of it."""
        record, state = self._decoded
        if record is not self.state:
            state = layout.decode_state(self.state)
            self._decoded = (self.state, state)
        return state

    def copy(self) -> MemoryDisk:
        """An image of the card at this moment."""
        other = MemoryDisk()
        other.entries = dict(self.entries)
        other.state, other.peers, other.boot_count = self.state, self.peers, self.boot_count
        other.image = self.image
        return other

    def corrupt_entry(self, index: int) -> None:
        """Flip a bit in the record of a log entry."""
        self.entries[index] = _flip_bit(self.entries[index])

    def corrupt_record(self, table: str, key: bytes) -> None:
        """Flip a bit in a record of the store."""
        stored = full_key(table, key)
        records = dict(self.image.records)
        records[stored] = _flip_bit(records[stored])
        self.image = StoreImage(self.image.position, records)

    def check_commit(self) -> None:
        """Fail once, if asked to, or as long as there is no room."""
        if self.is_full:
            raise StorageFailed("simulated disk: no space left, nothing was written")
        if self.fail_next_commit:
            self.fail_next_commit = False
            raise StorageFailed("simulated disk: commit failed, nothing was written")


class MemoryJournal:
    """Journal on a MemoryDisk."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    def recover(self) -> RecoveredJournal:
        state = self._disk.journal_state()
        chain = layout.EntryChain(state)
        for index in sorted(self._disk.entries):
            chain.check(index, self._disk.entries[index])
        chain.end()
        return RecoveredJournal(
            anchor=state.anchor,
            last=state.last,
            hard_state=state.hard_state,
            peers=layout.decode_peers(self._disk.peers),
            boot_count=layout.decode_boot_count(self._disk.boot_count),
            size_bytes=self.size_bytes(),
        )

    def begin_boot(self) -> int:
        self._disk.check_commit()
        boot_count = layout.decode_boot_count(self._disk.boot_count) + 1
        self._disk.boot_count = layout.encode_boot_count(boot_count)
        return boot_count

    def commit(self, operations: Sequence[JournalOperation]) -> None:
        self._disk.check_commit()
        state = self._disk.journal_state()
        entries = self._disk.entries
        if any(isinstance(operation, TruncateFrom | TrimTo) for operation in operations):
            # These read what lies on the disk, and a commit that finds damage leaves all as it was.
            entries = dict(entries)
        peers = self._disk.peers
        for operation in operations:
            before = state
            state = advance(state, operation, term_at=partial(_term_at, entries))
            match operation:
                case Append(added):
                    entries.update((entry[1], layout.encode_entry(entry)[1]) for entry in added)
                case TruncateFrom(index):
                    _delete(entries, range(index, before.last.index + 1))
                case TrimTo(index, _):
                    _delete(entries, range(before.anchor.index + 1, index + 1))
                case Reset():
                    entries.clear()
                case SetPeers(remembered):
                    peers = layout.encode_peers(remembered)
        self._disk.entries = entries
        self._disk.state = layout.encode_state(state)
        self._disk.peers = peers

    def read(self, first_index: int, *, count_max: int, bytes_max: int) -> list[Entry]:
        state = self._disk.journal_state()
        entries: list[Entry] = []
        if first_index <= state.anchor.index:
            return entries
        size_bytes = 0
        for index in range(first_index, min(state.last.index, first_index + count_max - 1) + 1):
            record = self._disk.entries.get(index)
            if record is None:
                raise CorruptData(f"journal entry {index}", f"is missing; {REBUILD_HINT}")
            entry = layout.decode_entry(index, record)
            size_bytes += len(entry[0])
            if entries and size_bytes > bytes_max:
                break
            entries.append(entry)
        return entries

    def size_bytes(self) -> int:
        return sum(map(len, self._disk.entries.values()))

    def close(self) -> None:
        """Nothing is held open."""


class MemoryReader:
    """StoreReader over an image."""

    def __init__(self, image: StoreImage) -> None:
        self._image = image
        self._is_open = True

    @property
    def position(self) -> Position:
        return self._image.position

    def get(self, table: str, key: bytes) -> bytes | None:
        assert self._is_open, "the reader is closed"
        stored = full_key(table, key)
        record = self._image.records.get(stored)
        if record is None:
            return None
        return bytes(decode_record(stored, record, where=f"store {table} {key.hex()}"))

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        table_byte = TABLE_BYTES[table]
        end = prefix_stop(table_byte) if stop is None else table_byte + stop
        for stored in self._image.keys(table_byte + start, end):
            assert self._is_open, "the reader is closed"
            where = f"store {table} {stored[1:].hex()}"
            yield stored[1:], bytes(decode_record(stored, self._image.records[stored], where=where))

    def keys(self, table: str) -> Iterator[bytes]:
        table_byte = TABLE_BYTES[table]
        for stored in self._image.keys(table_byte, prefix_stop(table_byte)):
            assert self._is_open, "the reader is closed"
            yield stored[1:]

    def records(self) -> Iterator[Record]:
        for table in TABLES:
            for key, value in self.scan(table):
                yield table, key, value

    def close(self) -> None:
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class MemoryStore:
    """Store on a MemoryDisk."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    def checkpoint(self) -> Position:
        return self._disk.image.position

    def commit(self, batch: StoreBatch) -> None:
        records = dict(self._disk.image.records)
        for table, prefix in batch.delete_prefixes:
            start = full_key(table, prefix)
            for key in list(self._disk.image.keys(start, prefix_stop(start))):
                records.pop(key, None)
        for table, key in batch.deletes:
            records.pop(full_key(table, key), None)
        _put(records, batch.puts)
        self._disk.check_commit()
        self._disk.image = StoreImage(batch.position, records)

    def snapshot(self) -> MemoryReader:
        return MemoryReader(self._disk.image)

    def begin_install(self, position: Position) -> MemoryInstaller:
        return MemoryInstaller(self._disk, position)

    def size_bytes(self) -> int:
        records = self._disk.image.records
        return sum(len(key) + len(value) for key, value in records.items())

    def close(self) -> None:
        """Nothing is held open."""


class MemoryInstaller:
    """Installer on a MemoryDisk: a crash before finish leaves nothing of it."""

    def __init__(self, disk: MemoryDisk, position: Position) -> None:
        self._disk = disk
        self._position = position
        self._records: dict[bytes, bytes] | None = {}

    def add(self, records: Iterable[Record]) -> None:
        assert self._records is not None, "the installer has ended"
        _put(self._records, records)

    def finish(self) -> MemoryStore:
        assert self._records is not None, "the installer has ended"
        self._disk.check_commit()
        self._disk.image = StoreImage(self._position, self._records)
        self._records = None
        return MemoryStore(self._disk)

    def abort(self) -> None:
        self._records = None


def _term_at(entries: Mapping[int, bytes], index: int) -> int:
    record = entries.get(index)
    return 0 if record is None else layout.peek_term(record)


def _put(records: dict[bytes, bytes], puts: Iterable[Record]) -> None:
    for table, key, value in puts:
        stored = full_key(table, key)
        records[stored] = encode_record(stored, value)


def _delete(entries: dict[int, bytes], indexes: range) -> None:
    for index in indexes:
        entries.pop(index, None)


def _flip_bit(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])
