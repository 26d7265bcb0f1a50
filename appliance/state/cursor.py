"""What every record of the store shares: a format in its first byte, fields from front to back, texts.

Invariant: a record that is too short, too long or of another format is refused with what to do.
Pure functions, called on any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

from appliance.errors import CorruptData, WrittenByNewer

FORMAT: Final = 1

_COUNT: Final = struct.Struct(">H")

_COUNTABLE_MAX: Final = 1 << 62

T = TypeVar("T")


class Cursor:
    """Reads a record from front to back; ValueError where it is too short."""

    def __init__(self, record: bytes) -> None:
        self._record = record
        self._place = 1

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def take(self, size: int) -> bytes:
        taken = self._record[self._place : self._place + size]
        if len(taken) != size:
            raise ValueError(f"ends after {len(self._record)} bytes")
        self._place += size
        return taken

    def text(self) -> str:
        return self.take(self.unpack(_COUNT)[0]).decode()

    def rest(self) -> bytes:
        rest = self._record[self._place :]
        self._place = len(self._record)
        return rest

    def end(self) -> None:
        if self._place != len(self._record):
            raise ValueError(f"{len(self._record) - self._place} bytes too many")


def check_countable(*figures: int) -> None:
    """What apply adds to must fit its field afterwards, or the next checkpoint ends the node; ValueError."""
    if max(figures) >= _COUNTABLE_MAX:
        raise ValueError(f"a count of {max(figures)}")


def encode_text(text: str) -> bytes:
    encoded = text.encode()
    return _COUNT.pack(len(encoded)) + encoded


def decode(table: str, key: bytes, record: bytes, read: Callable[[Cursor], T], *, wanted: int = FORMAT) -> T:
    where = f"store {table} {key!r}"
    if not record:
        raise CorruptData(where, "the record is empty; rebuild this node from its peers")
    if record[0] != wanted:
        raise WrittenByNewer(
            f"{where}: format {record[0]} is not known to this version ({wanted}); start the version that "
            "wrote it, or a later one"
        )
    cursor = Cursor(record)
    try:
        value = read(cursor)
        cursor.end()
    except (ValueError, struct.error) as error:
        raise CorruptData(where, f"{error}; rebuild this node from its peers") from error
    return value
