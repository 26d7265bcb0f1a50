"""The journal on LMDB: one environment, one database, layout.py's keys.

Invariant: retained entries are exactly those in (anchor, last] of the state record, which changes
in the transaction that changes the entries. Entries at or below the anchor may still lie there:
they are deleted in bounded portions by the commits that follow a trim, and ignored until then.
`commit` and `begin_boot` on the committer's thread, `read` and `size_bytes` on any.
Measured on 4 KiB pages: one commit sends 16 KB to the device for a small entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import lmdb

from appliance.errors import CorruptData, StorageFailed
from appliance.limits import GIB
from appliance.model import Entry
from appliance.storage import layout
from appliance.storage.batch import (
    Append,
    JournalOperation,
    JournalState,
    Reset,
    SetPeers,
    TruncateFrom,
    advance,
)
from appliance.storage.journal import RecoveredJournal
from appliance.storage.lmdb_environment import (
    create_environment,
    lmdb_errors,
    open_environment,
    used_bytes,
)
from appliance.storage.lmdb_leaf import NewestLeaf
from appliance.storage.records import REBUILD_HINT

JOURNAL_MAP_BYTES: Final = 4 * GIB
"""Address space, not disk: well above any `journal.size_max`."""

SWEEP_ENTRIES_MAX: Final = 2_000
SWEEP_BYTES_MAX: Final = 64 << 20
"""Trimmed entries deleted by one commit: bounds how long it takes, and outruns what a commit adds."""

_Transaction: TypeAlias = "lmdb.Transaction[memoryview]"


class LmdbJournal:
    """Journal in a directory of its own."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment: lmdb.Environment | None = environment
        with lmdb_errors("journal"):
            self._newest = NewestLeaf(environment, names_behind=layout.NAMES_BEHIND_ENTRIES)
        self._has_failed = False

    @classmethod
    def create(cls, directory: Path, *, map_bytes: int = JOURNAL_MAP_BYTES) -> LmdbJournal:
        """A new, empty journal; the directory must not exist."""
        return cls(create_environment(directory, map_bytes=map_bytes))

    @classmethod
    def open(cls, directory: Path, *, map_bytes: int = JOURNAL_MAP_BYTES) -> LmdbJournal:
        """Raises DataDirectoryRefused when there is none, CorruptData when its file is damaged."""
        return cls(open_environment(directory, map_bytes=map_bytes))

    def recover(self) -> RecoveredJournal:
        with lmdb_errors("journal"), self._begin() as transaction:
            state = layout.decode_state(transaction.get(layout.STATE_KEY))
            chain = layout.EntryChain(state)
            with transaction.cursor() as cursor:
                found = cursor.set_range(layout.entry_key(state.anchor.index + 1))
                while found and bytes(cursor.key()) < layout.ENTRIES_STOP:
                    chain.check(layout.entry_index(cursor.key()), cursor.value())
                    found = cursor.next()
            chain.end()
            peers = layout.decode_peers(transaction.get(layout.PEERS_KEY))
            boot_count = layout.decode_boot_count(transaction.get(layout.BOOT_KEY))
        return RecoveredJournal(
            anchor=state.anchor,
            last=state.last,
            hard_state=state.hard_state,
            peers=peers,
            boot_count=boot_count,
            size_bytes=self.size_bytes(),
        )

    def begin_boot(self) -> int:
        with lmdb_errors("journal"), self._begin_write() as transaction:
            boot_count = layout.decode_boot_count(transaction.get(layout.BOOT_KEY)) + 1
            transaction.put(layout.BOOT_KEY, layout.encode_boot_count(boot_count))
        return boot_count

    def commit(self, operations: Sequence[JournalOperation]) -> None:
        if self._has_failed:
            raise StorageFailed("journal: an earlier commit failed; the process must end")
        self._has_failed = True
        with lmdb_errors("journal commit"), self._begin_write() as transaction:
            before = layout.decode_state(transaction.get(layout.STATE_KEY))
            state = before
            for operation in operations:
                state = advance(state, operation, term_at=partial(_term_at, transaction))
                self._apply(transaction, operation)
            if state != before:
                transaction.put(layout.STATE_KEY, layout.encode_state(state))
            if _sweep(transaction, state):
                self._newest.forget()
        self._has_failed = False

    def read(self, first_index: int, *, count_max: int, bytes_max: int) -> list[Entry]:
        entries: list[Entry] = []
        size_bytes = 0
        with lmdb_errors("journal"), self._begin() as transaction:
            state = layout.decode_state(transaction.get(layout.STATE_KEY))
            if not state.anchor.index < first_index <= state.last.index:
                return entries
            count = min(count_max, state.last.index - first_index + 1)
            with transaction.cursor() as cursor:
                found = cursor.set_range(layout.entry_key(first_index))
                for index in range(first_index, first_index + count):
                    if not found or cursor.key() != layout.entry_key(index):
                        raise CorruptData(f"journal entry {index}", f"is missing; {REBUILD_HINT}")
                    if entries and size_bytes + len(cursor.value()) - layout.ENTRY_OVERHEAD > bytes_max:
                        break
                    entry = layout.decode_entry(index, cursor.value())
                    size_bytes += len(entry[0])
                    entries.append(entry)
                    found = cursor.next()
        return entries

    def size_bytes(self) -> int:
        assert self._environment is not None, "the journal is closed"
        return used_bytes(self._environment)

    def close(self) -> None:
        """Reads under way in other threads end first: the last reference closes the environment."""
        self._environment = None

    def _apply(self, transaction: _Transaction, operation: JournalOperation) -> None:
        match operation:
            case Append(entries):
                for entry in entries:
                    self._newest.put(transaction, *layout.encode_entry(entry))
            case TruncateFrom(index):
                _delete_from(transaction, index)
                self._newest.forget()
            case Reset(index, _):
                # Also what an earlier trim left behind above a lower anchor; the rest is swept.
                _delete_from(transaction, index + 1)
                self._newest.forget()
            case SetPeers(peers):
                transaction.put(layout.PEERS_KEY, layout.encode_peers(peers))

    def _begin(self) -> _Transaction:
        assert self._environment is not None, "the journal is closed"
        return self._environment.begin(buffers=True)

    def _begin_write(self) -> _Transaction:
        assert self._environment is not None, "the journal is closed"
        return self._environment.begin(write=True, buffers=True)


def _delete_from(transaction: _Transaction, index: int) -> None:
    with transaction.cursor() as cursor:
        found = cursor.set_range(layout.entry_key(index))
        while found and bytes(cursor.key()) < layout.ENTRIES_STOP:
            # delete() moves on to the next key and is False at the end.
            found = cursor.delete()


def _sweep(transaction: _Transaction, state: JournalState) -> bool:
    """Delete a portion of the entries at or below the anchor. False: there were none."""
    stop = layout.entry_key(state.anchor.index + 1)
    count = size_bytes = 0
    with transaction.cursor() as cursor:
        found = cursor.set_range(layout.ENTRIES_START)
        while found and bytes(cursor.key()) < stop:
            if count == SWEEP_ENTRIES_MAX or size_bytes > SWEEP_BYTES_MAX:
                break
            count += 1
            size_bytes += len(cursor.value())
            found = cursor.delete()
    return count > 0


def _term_at(transaction: _Transaction, index: int) -> int:
    record = transaction.get(layout.entry_key(index))
    return 0 if record is None else layout.peek_term(record)
