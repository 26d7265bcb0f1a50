"""Where the newest entry comes to lie: on the leaf of the records that sort behind it and change with every commit.

Invariant: nothing here changes what the journal holds, only how many pages a commit writes.
LMDB may split a full leaf behind a new record. The journal's state then lies on a leaf of its own from there on, and
each commit writes both: a fifth of its pages (tests/storage/test_lmdb.py). So an entry that does not fit beside them is
first put with as many bytes more as they take: that makes LMDB split in front of it, and they follow it.
Committer's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import lmdb

PAGE_HEADER_BYTES: Final = 16
NODE_BYTES: Final = 10
"""Of a record beside its key and value: its header, and its place in the page's index."""

FEW: Final = 6
"""Where more entries than these fit on a leaf, LMDB splits it in front of the newest, or left of that, by itself."""


class NewestLeaf:
    def __init__(self, environment: lmdb.Environment, names_behind: Sequence[bytes]) -> None:
        """names_behind: keys of the records that sort behind every entry."""
        self._database = environment.open_db()
        self._names = names_behind
        page_bytes: int = environment.stat()["psize"]
        self._room = page_bytes - PAGE_HEADER_BYTES
        self._node_max = self._room // 2 - NODE_BYTES
        """Larger ones have pages of their own."""

        self._used: int | None = None
        """Bytes that entries take on the leaf; None: not known."""

    def forget(self) -> None:
        """Entries were deleted: what lies on the leaf is not known any more."""
        self._used = None

    def put(self, transaction: lmdb.Transaction[memoryview], key: bytes, record: bytes) -> None:
        behind = [
            (name, bytes(value)) for name in self._names if (value := transaction.get(name)) is not None
        ]
        needed = _node_bytes(key, record)
        needed_behind = sum(_node_bytes(name, value) for name, value in behind)
        if not self._room / FEW < needed <= self._node_max - needed_behind:
            transaction.put(key, record)
            self._used = None
        elif self._used is None:
            self._gather(transaction, key, record, behind, padding=bytes(needed_behind))
        elif self._used + needed + needed_behind <= self._room:
            transaction.put(key, record)
            self._used += needed
        else:
            transaction.put(key, record + bytes(needed_behind))
            transaction.put(key, record)
            self._used = needed

    def _gather(
        self,
        transaction: lmdb.Transaction[memoryview],
        key: bytes,
        record: bytes,
        behind: list[tuple[bytes, bytes]],
        *,
        padding: bytes,
    ) -> None:
        """The same, wherever those behind it lie: taken out, they come back beside it.

        Is there one leaf more, then the entry is the first on it.
        """
        leaves_before = self._count_leaves(transaction)
        transaction.put(key, record + padding)
        for name, _ in behind:
            transaction.delete(name)
        transaction.put(key, record)
        for name, value in behind:
            transaction.put(name, value)
        if self._count_leaves(transaction) > leaves_before:
            self._used = _node_bytes(key, record)

    def _count_leaves(self, transaction: lmdb.Transaction[memoryview]) -> int:
        count: int = transaction.stat(self._database)["leaf_pages"]
        return count


def _node_bytes(key: bytes, value: bytes) -> int:
    return NODE_BYTES + len(key) + len(value) + len(key + value) % 2
