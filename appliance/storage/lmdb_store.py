"""The store on LMDB: `CURRENT` names the environment in use, `store.<number>` beside it.

Invariant: the position record changes in the transaction that changes the tables; CURRENT is
switched by a rename after the new environment is durable, so that a crash during an install
leaves the old store whole. Whatever CURRENT does not name is removed at open.
Writers on the committer's thread; readers on any, one thread at a time each.
All tables share the main database, told apart by the first byte of a key. Measured against nine
named databases: a checkpoint of 10 scattered records writes 0.8 of their bytes, of 1,000 the same.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import lmdb

from appliance.errors import CorruptData, DataDirectoryRefused, StorageFailed
from appliance.limits import GIB, MIB
from appliance.model import Position
from appliance.storage.batch import LOG_START
from appliance.storage.files import file_errors, remove, write_file
from appliance.storage.lmdb_environment import (
    create_environment,
    lmdb_errors,
    open_environment,
    used_bytes,
)
from appliance.storage.records import REBUILD_HINT, decode_record, encode_record
from appliance.storage.store import (
    TABLE_BYTES,
    TABLES,
    Record,
    StoreBatch,
    full_key,
    prefix_stop,
)

CURRENT_FILE: Final = "CURRENT"
STORE_MAP_BYTES: Final = 64 * GIB
"""Address space, not disk; two are mapped during an install, and arm64 may have only 512 GiB."""

INSTALL_TRANSACTION_BYTES: Final = 16 * MIB
"""Bounds the dirty pages an install holds in memory."""

POSITION_KEY: Final = b"\0position"
"""Table byte 0 is no table's. Payload >QQ: index, term."""

_POSITION: Final = struct.Struct(">QQ")
_STORE_NAME: Final = re.compile(r"store\.([1-9][0-9]{0,17})")
_Transaction: TypeAlias = "lmdb.Transaction[memoryview]"


class LmdbStore:
    """Store in a data directory."""

    def __init__(self, parent: Path, *, number: int, environment: lmdb.Environment, map_bytes: int) -> None:
        self._parent = parent
        self._number = number
        self._map_bytes = map_bytes
        self._environment: lmdb.Environment | None = environment
        self._has_failed = False

    @classmethod
    def create(cls, parent: Path, *, map_bytes: int = STORE_MAP_BYTES) -> LmdbStore:
        """A new, empty store; parent exists and holds none."""
        environment = create_environment(_directory(parent, 1), map_bytes=map_bytes)
        _write_current(parent, 1)
        return cls(parent, number=1, environment=environment, map_bytes=map_bytes)

    @classmethod
    def open(cls, parent: Path, *, map_bytes: int = STORE_MAP_BYTES) -> LmdbStore:
        """Raises DataDirectoryRefused when there is none, CorruptData when its file is damaged."""
        number = _read_current(parent)
        _remove_others(parent, number)
        environment = open_environment(_directory(parent, number), map_bytes=map_bytes)
        return cls(parent, number=number, environment=environment, map_bytes=map_bytes)

    def checkpoint(self) -> Position:
        with lmdb_errors("store"), self._opened().begin(buffers=True) as transaction:
            return _position(transaction)

    def commit(self, batch: StoreBatch) -> None:
        if self._has_failed:
            raise StorageFailed("store: an earlier commit failed; the process must end")
        self._has_failed = True
        environment = self._opened()
        with lmdb_errors("store commit"), environment.begin(write=True, buffers=True) as transaction:
            for table, prefix in batch.delete_prefixes:
                _delete_prefix(transaction, full_key(table, prefix))
            for table, key in batch.deletes:
                transaction.delete(full_key(table, key))
            written: set[bytes] = set()
            for table, key, value in batch.puts:
                _put(transaction, full_key(table, key), value, written)
            transaction.put(POSITION_KEY, _encode_position(batch.position))
        self._has_failed = False

    def snapshot(self) -> LmdbReader:
        with lmdb_errors("store"):
            return LmdbReader(self._opened().begin(buffers=True))

    def begin_install(self, position: Position) -> LmdbInstaller:
        return LmdbInstaller(
            self._parent, number=self._number + 1, position=position, map_bytes=self._map_bytes
        )

    def size_bytes(self) -> int:
        return used_bytes(self._opened())

    def close(self) -> None:
        """The environment closes with its last reference: this one, or that of an open reader."""
        self._environment = None

    def _opened(self) -> lmdb.Environment:
        assert self._environment is not None, "the store is closed or was replaced"
        return self._environment


class LmdbReader:
    """StoreReader over a read transaction, which keeps its environment open."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction: _Transaction | None = transaction
        self._position = _position(transaction)

    @property
    def position(self) -> Position:
        return self._position

    def get(self, table: str, key: bytes) -> bytes | None:
        stored = full_key(table, key)
        with lmdb_errors(f"store {table}"):
            record = self._opened().get(stored)
        if record is None:
            return None
        return bytes(decode_record(stored, record, where=f"store {table} {key.hex()}"))

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        table_byte = TABLE_BYTES[table]
        end = prefix_stop(table_byte) if stop is None else table_byte + stop
        assert end is not None
        with lmdb_errors(f"store {table}"), self._opened().cursor() as cursor:
            found = cursor.set_range(table_byte + start)
            while found:
                stored = bytes(cursor.key())
                if stored >= end:
                    return
                where = f"store {table} {stored[1:].hex()}"
                yield stored[1:], bytes(decode_record(stored, cursor.value(), where=where))
                found = cursor.next()

    def keys(self, table: str) -> Iterator[bytes]:
        table_byte = TABLE_BYTES[table]
        with lmdb_errors(f"store {table}"), self._opened().cursor() as cursor:
            found = cursor.set_range(table_byte)
            while found:
                stored = bytes(cursor.key())
                if not stored.startswith(table_byte):
                    return
                yield stored[1:]
                found = cursor.next()

    def records(self) -> Iterator[Record]:
        for table in TABLES:
            for key, value in self.scan(table):
                yield table, key, value

    def close(self) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> _Transaction:
        assert self._transaction is not None, "the reader is closed"
        return self._transaction


class LmdbInstaller:
    """Builds `store.<number>` and, at finish, makes it the store."""

    def __init__(self, parent: Path, *, number: int, position: Position, map_bytes: int) -> None:
        self._parent = parent
        self._number = number
        self._position = position
        self._map_bytes = map_bytes
        self._last_key = b""
        directory = _directory(parent, number)
        remove(directory)
        self._environment: lmdb.Environment | None = create_environment(directory, map_bytes=map_bytes)

    def add(self, records: Iterable[Record]) -> None:
        remaining = iter(records)
        while self._add_some(remaining):
            pass

    def finish(self) -> LmdbStore:
        environment = self._opened()
        with lmdb_errors("store install"), environment.begin(write=True) as transaction:
            transaction.put(POSITION_KEY, _encode_position(self._position))
        _write_current(self._parent, self._number)
        self._environment = None
        _remove_others(self._parent, self._number)
        return LmdbStore(
            self._parent, number=self._number, environment=environment, map_bytes=self._map_bytes
        )

    def abort(self) -> None:
        if self._environment is not None:
            self._environment = None
            remove(_directory(self._parent, self._number))

    def _opened(self) -> lmdb.Environment:
        assert self._environment is not None, "the installer has ended"
        return self._environment

    def _add_some(self, records: Iterator[Record]) -> bool:
        """One transaction; False when records gave out."""
        environment = self._opened()
        written: set[bytes] = set()
        size_bytes = 0
        with lmdb_errors("store install"), environment.begin(write=True, buffers=True) as transaction:
            for table, key, value in records:
                stored = full_key(table, key)
                # Appending fills pages whole, where inserting would leave them half empty.
                if stored > self._last_key:
                    transaction.put(stored, encode_record(stored, value), append=True)
                    self._last_key = stored
                    written.add(stored)
                else:
                    _put(transaction, stored, value, written)
                size_bytes += len(stored) + len(value)
                if size_bytes >= INSTALL_TRANSACTION_BYTES:
                    return True
        return False


def _put(transaction: _Transaction, stored: bytes, value: bytes, written: set[bytes]) -> None:
    """written: keys put in this transaction; lmdb_files.py says why they are deleted first."""
    if stored in written:
        transaction.delete(stored)
    written.add(stored)
    transaction.put(stored, encode_record(stored, value))


def _delete_prefix(transaction: _Transaction, prefix: bytes) -> None:
    stop = prefix_stop(prefix)
    assert stop is not None, "no table's byte is 255"
    with transaction.cursor() as cursor:
        found = cursor.set_range(prefix)
        while found and bytes(cursor.key()) < stop:
            found = cursor.delete()


def _encode_position(position: Position) -> bytes:
    return encode_record(POSITION_KEY, _POSITION.pack(position.index, position.term))


def _position(transaction: _Transaction) -> Position:
    record = transaction.get(POSITION_KEY)
    if record is None:
        return LOG_START
    payload = decode_record(POSITION_KEY, record, where="store position")
    if len(payload) != _POSITION.size:
        raise CorruptData("store position", f"{len(payload)} bytes; {REBUILD_HINT}")
    return Position(*_POSITION.unpack(payload))


def _directory(parent: Path, number: int) -> Path:
    return parent / f"store.{number}"


def _write_current(parent: Path, number: int) -> None:
    write_file(parent / CURRENT_FILE, f"store.{number}\n".encode())


def _read_current(parent: Path) -> int:
    path = parent / CURRENT_FILE
    if not path.exists():
        raise DataDirectoryRefused(f"{path} is missing: the data directory was partly wiped; {REBUILD_HINT}")
    with file_errors(f"reading {path}"):
        content = path.read_bytes()
    match = _STORE_NAME.fullmatch(content.decode("ascii", "replace").removesuffix("\n"))
    if match is None:
        raise CorruptData(CURRENT_FILE, f"holds {content[:40]!r}, names no store; {REBUILD_HINT}")
    return int(match[1])


def _remove_others(parent: Path, number: int) -> None:
    """Leftovers of an install that did not finish, or of the store that one replaced."""
    for path in sorted(parent.iterdir()):
        match = _STORE_NAME.fullmatch(path.name)
        if match is not None and int(match[1]) != number:
            remove(path)
