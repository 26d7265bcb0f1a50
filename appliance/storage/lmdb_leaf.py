"""Where the newest entry comes to lie: on the leaf of the records that sort behind it and change with every commit.

Invariant: nothing here changes what the journal holds, only how many pages a commit writes.
LMDB may split a full leaf behind a new record. The journal's state then lies on a leaf of its own from there on, and
each commit writes both: a fifth of its pages (tests/storage/test_lmdb.py). So an entry for which there is no room
beside them is first put with as many bytes more as they take: LMDB then splits in front of it, mostly, and they follow.
An entry that is almost too large for a leaf is put as it is.
Committer's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import lmdb

PAGE_HEADER_BYTES: Final = 16
NODE_BYTES: Final = 10
"""Of a record beside its key and value: its header, and its place in the page's index."""

NEEDS_NO_CARE: Final = 6
"""Of entries of which more than these fit on a leaf, LMDB takes the newest along with those behind it by itself."""

LEAST_FILLED: Final = 4
"""When a record is deleted, a leaf filled to less than this part gets the last entry of the leaf before."""


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
        """Bytes that entries take on the leaf; None: not known. Where it is wrong, a leaf is split as if by LMDB alone,
        until the next one that is full by this count."""

    def forget(self) -> None:
        """Entries were deleted: what lies on the leaf is not known any more."""
        self._used = None

    def put(self, transaction: lmdb.Transaction[memoryview], key: bytes, record: bytes) -> None:
        needed, used, self._used = _node_bytes(key, record), self._used, None
        if not self._room / NEEDS_NO_CARE < needed <= self._node_max:
            transaction.put(key, record)
            return
        behind = [
            (name, bytes(value)) for name in self._names if (value := transaction.get(name)) is not None
        ]
        needed_behind = sum(_node_bytes(name, value) for name, value in behind)
        padding = max(needed_behind, self._room // LEAST_FILLED + NODE_BYTES - needed)
        if used is not None and used + needed + needed_behind <= self._room:
            transaction.put(key, record)
            self._used = used + needed
        elif needed + padding <= self._node_max:
            leaves_before = self._count_leaves(transaction)
            _gather(transaction, key, record, behind, padding=bytes(padding))
            if self._count_leaves(transaction) > leaves_before:
                self._used = needed
        else:
            transaction.put(key, record)

    def _count_leaves(self, transaction: lmdb.Transaction[memoryview]) -> int:
        count: int = transaction.stat(self._database)["leaf_pages"]
        return count


def _gather(
    transaction: lmdb.Transaction[memoryview],
    key: bytes,
    record: bytes,
    behind: list[tuple[bytes, bytes]],
    *,
    padding: bytes,
) -> None:
    """Wherever the records behind lie: taken out, they come back to the leaf on which the entry has found room."""
    transaction.put(key, record + padding)
    for name, _ in behind:
        transaction.delete(name)
    transaction.put(key, record)
    for name, value in behind:
        transaction.put(name, value)


def _node_bytes(key: bytes, value: bytes) -> int:
    return NODE_BYTES + len(key) + len(value) + len(key + value) % 2
