"""The store's contract: tables of the state machine as of a checkpoint, and their replacement.

Invariant: what a reader sees is the whole state at one position: that of one `commit`, or of one
finished install. `commit` and an install are called by one thread (the committer); `snapshot`,
and the readers it gives, by any thread, a reader by one at a time.
Two implementations pass the same tests: LmdbStore for a node, MemoryStore for the simulator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from appliance.model import Position

TABLES: Final = (
    "meta",
    "members",
    "producers",
    "keys",
    "series",
    "latest",
    "heads",
    "outcomes",
    "blocks",
    "access",
    "late",
    "policies",
)
"""Durable: the place in this tuple is the first byte of a key. New tables go to the end."""

KEY_BYTES_MAX: Final = 510
"""LMDB's limit is 511; one byte names the table."""

TABLE_BYTES: Final = {table: bytes([number]) for number, table in enumerate(TABLES, start=1)}

Record = tuple[str, bytes, bytes]
"""(table, key, value)."""


@dataclass(frozen=True, slots=True)
class StoreBatch:
    """One checkpoint: first delete_prefixes, then deletes, then puts; then position is the state's.

    The iterables are consumed once, by the committer's thread.
    """

    position: Position
    puts: Iterable[Record] = ()
    deletes: Iterable[tuple[str, bytes]] = ()
    delete_prefixes: Iterable[tuple[str, bytes]] = ()


class StoreReader(Protocol):
    """One position's state, unmoved by later commits. Close it soon: it keeps freed pages alive."""

    @property
    def position(self) -> Position:
        """Where the state stands."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value, verified (CorruptData)."""

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) with start <= key < stop in byte order, verified; stop None: to the end."""

    def keys(self, table: str) -> Iterator[bytes]:
        """In byte order; the values are not read, nor verified."""

    def records(self) -> Iterator[Record]:
        """Everything, in the order an Installer likes best: tables as in TABLES, keys ascending."""

    def close(self) -> None:
        """Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Store(Protocol):
    """See the module."""

    def checkpoint(self) -> Position:
        """The position of the last commit or install; (1, 0) when there was none."""

    def commit(self, batch: StoreBatch) -> None:
        """All or nothing, durable on return. StorageFailed is fatal."""

    def snapshot(self) -> StoreReader:
        """A reader of the state as it stands now."""

    def begin_install(self, position: Position) -> Installer:
        """Start to build another store beside this one. One at a time; this one stays in use."""

    def size_bytes(self) -> int:
        """Bytes in use, without pages that are free to be used again."""

    def close(self) -> None:
        """Idempotent. Open readers stay valid until they are closed."""


class Installer(Protocol):
    """A snapshot on its way in. Nothing of it is visible, now or after a crash, before finish."""

    def add(self, records: Iterable[Record]) -> None:
        """Keys ascending (as StoreReader.records gives them) fill pages best; any order is right."""

    def finish(self) -> Store:
        """Durably replace the old store. It may be read until its owner closes it, and written never again."""

    def abort(self) -> None:
        """Forget it. Idempotent; after finish it does nothing."""


def full_key(table: str, key: bytes) -> bytes:
    """The key as stored: table byte, then the key."""
    assert len(key) <= KEY_BYTES_MAX, f"{table}: key of {len(key)} bytes"
    return TABLE_BYTES[table] + key


def prefix_stop(prefix: bytes) -> bytes | None:
    """The first key after all keys that start with prefix; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes([stripped[-1] + 1])
