"""Looks at a data.mdb before LMDB maps it: a file cut short would end the process with SIGBUS.

Invariant: a file that passes can be mapped and read without a read beyond its end. Both meta pages
must be LMDB's; the newer one says how many pages there are. A file shorter than that may still be
whole (pages taken and freed within one transaction are never written: measured), so its tree is
walked by py-lmdb's offline verifier and its reach is measured (lmdb_extents.py). Any file up to
WALK_BYTES_MAX is walked: flipped bits in a page's header are found here, not by a crash in LMDB.
In a longer file only size and meta pages are checked, and the records' own checksums have to do.
The verifier takes a large value overwritten within one transaction for damage (measured): who
writes a key twice in a transaction deletes it in between.
Called once for each open. Source: LMDB 0.9, mdb.c (MDB_page, MDB_meta); evidence: a data.mdb cut
to half kills the process that scans it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import lmdb.verify

from appliance.errors import CorruptData, DataDirectoryRefused
from appliance.limits import MIB
from appliance.storage.files import file_errors
from appliance.storage.lmdb_extents import reach_bytes
from appliance.storage.records import REBUILD_HINT

DATA_FILE: Final = "data.mdb"
LMDB_FORMAT: Final = 1
"""What LMDB 0.9 writes; 1.0 writes 3."""

WALK_BYTES_MAX: Final = 128 * MIB
"""The walk takes some 36 us a leaf page on a PC, about 1 s for such a file full of small entries."""

_MAGIC: Final = 0xBEEFC0DE
_META_FLAG: Final = 0x08
_PAGE_HEADER: Final = struct.Struct("<QHHI")
"""pgno, pad, flags, lower and upper (0.9, 64-bit, little-endian: arm64 and amd64)."""

_META: Final = struct.Struct("<IIQQ48s48sQQ")
"""magic, version, address, mapsize, free DB (its md_pad is the page size), main DB, last_pg, txnid."""

_MAGIC_AND_VERSION: Final = struct.Struct("<II")
_HEADER_BYTES_OF_1_0: Final = 24
_PAGE_BYTES_ALLOWED: Final = frozenset(1 << shift for shift in range(9, 17))
_READ_BYTES: Final = 1 * MIB
_walk: Callable[[str], list[str]] = lmdb.verify.verify


@dataclass(frozen=True, slots=True)
class MetaPage:
    """What one of the two meta pages says."""

    page_bytes: int
    last_page: int
    transaction: int
    roots: tuple[int, int]


def check_data_file(directory: Path) -> None:
    """Raise CorruptData if mapping directory/data.mdb could harm; a newer LMDB's file is refused."""
    path = directory / DATA_FILE
    where = f"{directory.name}/{DATA_FILE}"
    with file_errors(f"reading {path}"), open(path, "rb") as file:
        file_bytes = file.seek(0, 2)
        meta = _read_metas(file, where=where, file_bytes=file_bytes)
        if file_bytes <= WALK_BYTES_MAX:
            _read_whole(file, where=where)
        expected_bytes = (meta.last_page + 1) * meta.page_bytes
        if file_bytes <= WALK_BYTES_MAX or file_bytes < expected_bytes:
            _walk_tree(path, where=where)
        if file_bytes < expected_bytes:
            _check_reach(file, meta, where=where, file_bytes=file_bytes)


def _read_metas(file: BinaryIO, *, where: str, file_bytes: int) -> MetaPage:
    first = _parse_meta(file, 0, where=where, file_bytes=file_bytes)
    second = _parse_meta(file, first.page_bytes, where=where, file_bytes=file_bytes)
    if first.page_bytes != second.page_bytes:
        raise CorruptData(
            where, f"page size is {first.page_bytes} in one meta page, {second.page_bytes} in the other"
        )
    # Commits alternate between the two, so they are one apart (0 and 0 in a new file). Otherwise a
    # flipped bit would make LMDB take the older one and forget the last commit. A flip of bit 1 can
    # still look right: that amnesia is the peers' to notice (high_index).
    if abs(first.transaction - second.transaction) != 1 and (first.transaction, second.transaction) != (0, 0):
        raise CorruptData(
            where,
            f"meta pages are of commits {first.transaction} and {second.transaction}, one apart expected; "
            f"{REBUILD_HINT}",
        )
    return max(first, second, key=lambda meta: meta.transaction)


def _parse_meta(file: BinaryIO, offset: int, *, where: str, file_bytes: int) -> MetaPage:
    file.seek(offset)
    content = file.read(_PAGE_HEADER.size + _META.size)
    if len(content) < _PAGE_HEADER.size + _META.size:
        raise CorruptData(
            where,
            f"cut short: {file_bytes} bytes do not hold the meta page at {offset}; {REBUILD_HINT}",
        )
    flags = _PAGE_HEADER.unpack_from(content)[2]
    magic, version, _, _, free_database, main_database, last_page, transaction = _META.unpack_from(
        content, _PAGE_HEADER.size
    )
    page_bytes = int.from_bytes(free_database[:4], "little")
    if magic != _MAGIC:
        # LMDB 1.0 has a longer page header, then the same two fields.
        magic, version = _MAGIC_AND_VERSION.unpack_from(content, _HEADER_BYTES_OF_1_0)
    if magic == _MAGIC and version != LMDB_FORMAT:
        raise DataDirectoryRefused(
            f"{where}: LMDB format {version}, this version reads {LMDB_FORMAT}; start the version of "
            f"Raftberry that wrote it, or a later one"
        )
    if magic != _MAGIC or not flags & _META_FLAG or page_bytes not in _PAGE_BYTES_ALLOWED:
        raise CorruptData(where, f"no LMDB meta page at byte {offset}; {REBUILD_HINT}")
    roots = (_root(free_database), _root(main_database))
    return MetaPage(page_bytes=page_bytes, last_page=last_page, transaction=transaction, roots=roots)


def _root(database: bytes) -> int:
    return int.from_bytes(database[-8:], "little")


def _read_whole(file: BinaryIO, *, where: str) -> None:
    """A sector that cannot be read is an error here and would be a SIGBUS in the map."""
    file.seek(0)
    try:
        while file.read(_READ_BYTES):
            pass
    except OSError as error:
        raise CorruptData(
            where, f"unreadable near byte {file.tell()}: {error.strerror}; {REBUILD_HINT}"
        ) from error


def _walk_tree(path: Path, *, where: str) -> None:
    try:
        problems = _walk(str(path))
    except lmdb.verify.VerifyError as error:
        raise CorruptData(where, f"no LMDB file: {error}; {REBUILD_HINT}") from error
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CorruptData(where, f"damaged or cut short: {problems[0]}{more}; {REBUILD_HINT}")


def _check_reach(file: BinaryIO, meta: MetaPage, *, where: str, file_bytes: int) -> None:
    reach = reach_bytes(file, roots=meta.roots, page_bytes=meta.page_bytes)
    if reach > file_bytes:
        raise CorruptData(where, f"cut short: {file_bytes} bytes, its pages reach to {reach}; {REBUILD_HINT}")
