"""A backup file: the whole replicated state at one index, checked from its first byte to its last.

Invariant: a reader gives out a record only from a block whose checksum is right, and says that the file is whole only
when its end and the hash over all of it were there. Format 1, big-endian:

    16 bytes  `RAFTBERRYBACKUP` and a newline
    >HI       format, length of the header; the header (BackupHeader); >I its CRC-32
    blocks    >II length (never 0), CRC-32; that many bytes of the stream of records (consensus/snapshot.py)
    end       >I 0; 32 bytes SHA-256 over everything before

Any thread, one at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from appliance.consensus.snapshot import RecordDecoder, checksum, encode_records
from appliance.errors import CorruptData
from appliance.limits import MIB, SNAPSHOT_CHUNK_BYTES
from appliance.storage.store import Record, StoreReader
from raftberry.internal.v1 import backup_pb2

MAGIC: Final = b"RAFTBERRYBACKUP\n"
FORMAT: Final = 1
HEADER_BYTES_MAX: Final = 64 * 1024
BLOCK_BYTES_MAX: Final = MIB

_HEADER: Final = struct.Struct(">HI")
_BLOCK: Final = struct.Struct(">II")
_LENGTH: Final = struct.Struct(">I")
_REMEDY: Final = "this file cannot be restored; take another backup"

assert SNAPSHOT_CHUNK_BYTES <= BLOCK_BYTES_MAX


class Source(Protocol):
    """What a backup is read from: a file, or the chunks of a call."""

    def read(self, size: int, /) -> bytes: ...


def encode_backup(header: backup_pb2.BackupHeader, reader: StoreReader) -> Iterator[bytes]:
    """The bytes of the file, a chunk at a time. The reader stays its caller's."""
    digest = sha256()

    def hashed(data: bytes) -> bytes:
        digest.update(data)
        return data

    encoded = header.SerializeToString()
    yield hashed(MAGIC + _HEADER.pack(FORMAT, len(encoded)) + encoded + _LENGTH.pack(checksum(encoded)))
    for chunk in encode_records(reader.records()):
        if chunk:
            yield hashed(_BLOCK.pack(len(chunk), checksum(chunk)) + chunk)
    yield hashed(_LENGTH.pack(0)) + digest.digest()


class BackupReader:
    """Reads a backup, checking as it goes. header is there at once; records() must be read to its end."""

    def __init__(self, source: Source, *, where: str = "backup") -> None:
        """where: what errors call it. CorruptData: no backup, damaged, or of a format this version does not know."""
        self._source, self._where = source, where
        self._digest = sha256()
        self._offset = 0
        self.header = self._read_header()

    def records(self) -> Iterator[Record]:
        """(table, key, value). Raises CorruptData, at the latest at the end."""
        decoder = RecordDecoder()
        while block := self._read_block():
            yield from decoder.feed(block)
        if not decoder.is_complete:
            raise CorruptData(self._where, f"it ends inside a record, at byte {self._offset}; {_REMEDY}")
        expected = self._digest.digest()
        if self._source.read(len(expected)) != expected:
            raise CorruptData(self._where, f"the hash over its {self._offset} bytes is wrong; {_REMEDY}")
        if self._source.read(1):
            raise CorruptData(self._where, f"something follows its end at byte {self._offset}; {_REMEDY}")

    def _read_header(self) -> backup_pb2.BackupHeader:
        if self._source.read(len(MAGIC)) != MAGIC:
            raise CorruptData(
                self._where, "this is no backup of Raftberry: its first bytes are not those of one"
            )
        self._digest.update(MAGIC)
        self._offset = len(MAGIC)
        number, length = _HEADER.unpack(self._take(_HEADER.size))
        if number != FORMAT:
            raise CorruptData(
                self._where,
                f"it has format {number}, this version reads {FORMAT}; restore it with the version that made it "
                "or a later one",
            )
        if length > HEADER_BYTES_MAX:
            raise CorruptData(self._where, f"a header of {length} bytes can't be; {_REMEDY}")
        encoded = self._take(length)
        self._check(encoded, *_LENGTH.unpack(self._take(_LENGTH.size)))
        try:
            return backup_pb2.BackupHeader.FromString(encoded)
        except DecodeError as error:
            raise CorruptData(self._where, f"its header is not readable: {error}; {_REMEDY}") from error

    def _read_block(self) -> bytes:
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        if length == 0:
            return b""
        if length > BLOCK_BYTES_MAX:
            raise CorruptData(
                self._where, f"a block of {length} bytes at byte {self._offset} can't be; {_REMEDY}"
            )
        (expected,) = _LENGTH.unpack(self._take(_LENGTH.size))
        block = self._take(length)
        self._check(block, expected)
        return block

    def _check(self, data: bytes, expected: int) -> None:
        if checksum(data) != expected:
            raise CorruptData(
                self._where,
                f"a block of {len(data)} bytes that ends at byte {self._offset} is damaged; {_REMEDY}",
            )

    def _take(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) != size:
            raise CorruptData(
                self._where, f"it ends after {self._offset + len(data)} bytes, too early; {_REMEDY}"
            )
        self._digest.update(data)
        self._offset += size
        return data
