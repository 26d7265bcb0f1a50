"""Operations into one log entry: what arrives while the entry before it is being committed shares a commit.

Invariant: an entry stays below ENTRY_BYTES_MAX and ENTRY_OPERATIONS_MAX. Encoded operations are put together
without being decoded again (protobuf: a repeated field is its elements, one after the other).
"""

from __future__ import annotations

from functools import lru_cache

from appliance.limits import BATCH_BYTES_TARGET, ENTRY_OPERATIONS_MAX
from appliance.state.entry import encode_entry
from appliance.state.operations import encode_command

_OPERATION_TAG = b"\x22"  # field 4 of Command, length-delimited


class Batch:
    """The operations of one entry, in order: their place is their ordinal."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._parts)

    def has_room(self, size: int) -> bool:
        if not self._parts:
            return True
        return len(self._parts) < ENTRY_OPERATIONS_MAX and self._size + size <= BATCH_BYTES_TARGET

    def add(self, operation: bytes) -> None:
        self._parts.append(_OPERATION_TAG + _varint(len(operation)) + operation)
        self._size += len(operation)

    def encode(self, *, time_unix_nano: int, elapsed_ns: int, may_deflate: bool = False) -> bytes:
        """The entry, with PySyncObj's type byte."""
        header = encode_command((), time_unix_nano=time_unix_nano, elapsed_nano=elapsed_ns)
        return encode_entry(b"".join((header, *self._parts)), may_deflate=may_deflate)


@lru_cache(maxsize=1024)
def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
