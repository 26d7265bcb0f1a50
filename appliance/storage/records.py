"""The envelope around every durable record: a format, a checksum, the payload.

Layout, fixed for every format to come: byte 0 format, bytes 1-4 CRC-32 (big-endian) over
format, key and payload, then the payload. The key is under the checksum, so that a record that
turns up under another key is noticed as well as a flipped bit.
Pure functions, called on any thread.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from appliance.errors import CorruptData, WrittenByNewer

RECORD_FORMAT: Final = 1
HEADER: Final = struct.Struct(">BI")
REBUILD_HINT: Final = "this node must not vote with this data"
"""What happens now, the alarm says (life.py): it is rebuilt by its peers, or waits for a person."""

_FORMAT_BYTE: Final = bytes([RECORD_FORMAT])


def encode_record(key: bytes, payload: bytes) -> bytes:
    """The bytes stored under key."""
    return HEADER.pack(RECORD_FORMAT, _checksum(_FORMAT_BYTE, key, payload)) + payload


def decode_record(key: bytes, record: bytes | memoryview, *, where: str) -> memoryview:
    """The payload, a view into record. where names the record in the error.

    Raises CorruptData when the checksum is wrong and WrittenByNewer when it is right but
    the format is not ours: only a newer version writes such a record.
    """
    view = memoryview(record)
    if len(view) < HEADER.size:
        raise CorruptData(
            where, f"record has {len(view)} bytes, at least {HEADER.size} expected; {REBUILD_HINT}"
        )
    record_format, stored = HEADER.unpack_from(view)
    payload = view[HEADER.size :]
    computed = _checksum(view[:1], key, payload)
    if stored != computed:
        raise CorruptData(where, f"checksum is {stored:08x}, the bytes give {computed:08x}; {REBUILD_HINT}")
    if record_format != RECORD_FORMAT:
        raise WrittenByNewer(
            f"{where}: record format {record_format} is newer than this version knows "
            f"({RECORD_FORMAT}); start the version that wrote it, or a later one"
        )
    return payload


def _checksum(format_byte: bytes | memoryview, key: bytes, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(key, zlib.crc32(format_byte)))
