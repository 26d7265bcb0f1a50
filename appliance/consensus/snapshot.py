"""A store's records as a stream of checked chunks, and back (H8).

Invariant: a chunk is taken only if it is the next one of the transfer under way and its checksum is right; a
transfer that breaks is thrown away whole. Layout of the stream: per record 1 byte length of the table's name,
2 bytes length of the key, 4 bytes length of the value (big-endian), then the three. Any thread, one at a time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from appliance.errors import CorruptData
from appliance.limits import SNAPSHOT_CHUNK_BYTES
from appliance.storage.store import KEY_BYTES_MAX, TABLES, Record

_HEADER = struct.Struct(">BHI")
_VALUE_BYTES_MAX = 64 << 20


def encode_records(records: Iterable[Record]) -> Iterator[bytes]:
    """Chunks of about SNAPSHOT_CHUNK_BYTES; the last may be short or empty-handed."""
    buffer = bytearray()
    for table, key, value in records:
        name = table.encode()
        buffer += _HEADER.pack(len(name), len(key), len(value))
        buffer += name
        buffer += key
        buffer += value
        while len(buffer) >= SNAPSHOT_CHUNK_BYTES:
            yield bytes(buffer[:SNAPSHOT_CHUNK_BYTES])
            del buffer[:SNAPSHOT_CHUNK_BYTES]
    yield bytes(buffer)


def checksum(data: bytes) -> int:
    return zlib.crc32(data)


class RecordDecoder:
    """Records out of chunks that were cut anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Record]:
        """Raises CorruptData when the bytes can't be a stream of records."""
        self._buffer += data
        records: list[Record] = []
        offset = 0
        while len(self._buffer) - offset >= _HEADER.size:
            name_size, key_size, value_size = _HEADER.unpack_from(self._buffer, offset)
            if key_size > KEY_BYTES_MAX or value_size > _VALUE_BYTES_MAX:
                raise CorruptData(
                    "snapshot", f"a record of {key_size} and {value_size} bytes can't be; transfer ended"
                )
            start = offset + _HEADER.size
            stop = start + name_size + key_size + value_size
            if stop > len(self._buffer):
                break
            table = bytes(self._buffer[start : start + name_size]).decode(errors="replace")
            if table not in TABLES:
                raise CorruptData("snapshot", f"table {table!r} is not known to this version; transfer ended")
            key = bytes(self._buffer[start + name_size : start + name_size + key_size])
            records.append((table, key, bytes(self._buffer[start + name_size + key_size : stop])))
            offset = stop
        del self._buffer[:offset]
        return records

    @property
    def is_complete(self) -> bool:
        """Nothing of a record is left over."""
        return not self._buffer
