"""How far into a data.mdb its two trees reach: the byte after the last page that may be read.

Called for a file that is shorter than its meta page says, after py-lmdb's verifier found its tree
sound: the verifier reads the first page of a large value and doesn't look whether the rest of it
is there (measured: such a file ended the process with SIGBUS). Invariant: memory is bounded by
the tree's depth times a page's children, not by the file.
Layout: LMDB 0.9, mdb.c (MDB_page, MDB_node), 64-bit, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

NO_PAGE: Final = (1 << 64) - 1

_BRANCH: Final = 0x01
_BIG_DATA: Final = 0x01
_PAGE_HEADER: Final = struct.Struct("<QHHHH")
"""pgno, pad, flags, lower (end of the node pointers), upper."""

_NODE: Final = struct.Struct("<HHHH")
"""lo, hi, flags, key size; a leaf's lo and hi are the value's size, a branch's with flags its child."""

_PAGE_NUMBER: Final = struct.Struct("<Q")


def reach_bytes(file: BinaryIO, *, roots: Sequence[int], page_bytes: int) -> int:
    """The offset after the last page reachable from roots (NO_PAGE: an empty tree)."""
    reach = 2 * page_bytes
    pending = [root for root in roots if root != NO_PAGE]
    while pending:
        page_number = pending.pop()
        reach = max(reach, (page_number + 1) * page_bytes)
        file.seek(page_number * page_bytes)
        page = file.read(page_bytes)
        if len(page) < page_bytes:
            continue
        for number, count, is_tree in _references(page, page_bytes):
            reach = max(reach, (number + count) * page_bytes)
            if is_tree:
                pending.append(number)
    return reach


def _references(page: bytes, page_bytes: int) -> Iterator[tuple[int, int, bool]]:
    """(page number, page count, whether it is a page of the tree) of all that page points to."""
    _, _, flags, lower, _ = _PAGE_HEADER.unpack_from(page)
    is_branch = bool(flags & _BRANCH)
    for pointer in range(_PAGE_HEADER.size, lower, 2):
        place = int.from_bytes(page[pointer : pointer + 2], "little")
        low, high, node_flags, key_bytes = _NODE.unpack_from(page, place)
        if is_branch:
            yield low | high << 16 | node_flags << 32, 1, True
        elif node_flags & _BIG_DATA:
            number = _PAGE_NUMBER.unpack_from(page, place + _NODE.size + key_bytes)[0]
            value_bytes = low | high << 16
            yield number, -(-(_PAGE_HEADER.size + value_bytes) // page_bytes), False
