"""What a client may send: one function a field, each raises InvalidArgument naming the field and the remedy.

Invariant: whatever passes here is inside the bounds of limits.py. Pure functions, no I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from appliance import limits
from appliance.errors import InvalidArgument
from appliance.model import MemberId
from raftberry.v1 import reading_pb2

TTL_SECONDS_MAX: Final = 100 * 366 * 86_400
"""A hundred years: keeps the sum of ttl and elapsed time far inside 63 bits of nanoseconds."""

SCOPE_BYTES_MAX: Final = 2 * limits.NAME_BYTES_MAX + 1
"""A sensor, a slash and a metric."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ID: Final = re.compile(r"[0-9a-fA-F]{16}")
_GLOB: Final = re.compile(r"[*?\[]")


@lru_cache(maxsize=16_384)
def _name_of(raw: bytes) -> tuple[str, str]:
    """(name, "") or ("", complaint). Cached: a sensor sends the same two names with every reading."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "", "not UTF-8"
    complaint = _name_complaint(text, len(raw))
    return ("", complaint) if complaint else (text, "")


def _name_complaint(text: str, size_bytes: int) -> str:
    if not text:
        return f"empty; give a name of 1 to {limits.NAME_BYTES_MAX} bytes"
    if size_bytes > limits.NAME_BYTES_MAX:
        return f"{size_bytes} bytes long; a name has at most {limits.NAME_BYTES_MAX} bytes of UTF-8"
    if control := _CONTROL.search(text):
        return f"control character U+{ord(control[0]):04X} at {control.start()}; names hold none"
    if glob := _GLOB.search(text):
        return f"{glob[0]!r} at {glob.start()}; names hold none of * ? [ because reads take them as patterns"
    return ""


def name_bytes(field: str, raw: bytes) -> str:
    """The text of a sensor, metric, key or producer as it came from the wire."""
    # Longer names are not cached, so that the cache's memory is bounded too.
    text, complaint = _name_of(raw) if len(raw) <= limits.NAME_BYTES_MAX else _name_of.__wrapped__(raw)
    if complaint:
        raise InvalidArgument(field, complaint)
    return text


def name(field: str, text: str) -> str:
    """1 to 200 bytes of UTF-8, no control characters, none of * ? [."""
    return name_bytes(field, text.encode("utf-8"))


def pattern(field: str, text: str) -> str:
    """A glob of * ? [abc]; empty means *, and is returned as *."""
    return _pattern(field, text, limits.NAME_BYTES_MAX) or "*"


def scope(field: str, text: str) -> str:
    """A glob of a token, over SENSOR/METRIC or keys; never empty."""
    if not text:
        raise InvalidArgument(field, "empty; write * for everything")
    return _pattern(field, text, SCOPE_BYTES_MAX)


def _pattern(field: str, text: str, bytes_max: int) -> str:
    size_bytes = len(text.encode("utf-8"))
    if size_bytes > bytes_max:
        raise InvalidArgument(field, f"{size_bytes} bytes long; a pattern has at most {bytes_max} bytes")
    if control := _CONTROL.search(text):
        raise InvalidArgument(field, f"control character U+{ord(control[0]):04X}; no name holds one")
    opened = text.rfind("[")
    if opened >= 0 and "]" not in text[opened + 2 :]:
        raise InvalidArgument(field, f"'[' at {opened} is never closed; write [abc], names hold no '['")
    return text


def required_pattern(field: str, text: str) -> str:
    """As pattern, but empty is refused: nobody deletes everything by leaving a field out."""
    if not text:
        raise InvalidArgument(field, "empty; give a name or a pattern, * for all")
    return pattern(field, text)


def prefix(field: str, text: str) -> str:
    """The beginning of keys; may be empty."""
    return name(field, text) if text else ""


def producer(producer_id: bytes | str, sequence: int) -> str:
    """The producer's text. A producer without a sequence is legal and means: no exactly-once."""
    if not producer_id:
        if sequence:
            raise InvalidArgument(
                "producer_id",
                f"empty with sequence {sequence}; a sequence counts only together with a producer_id",
            )
        return ""
    raw = producer_id.encode("utf-8") if isinstance(producer_id, str) else producer_id
    return name_bytes("producer_id", raw)


def consistency(value: int) -> int:
    """CONSISTENCY_LINEARIZABLE or CONSISTENCY_LOCAL; unspecified means the first."""
    if value == reading_pb2.CONSISTENCY_UNSPECIFIED:
        return int(reading_pb2.CONSISTENCY_LINEARIZABLE)
    if value not in reading_pb2.Consistency.values():
        raise InvalidArgument(
            "consistency", f"{value} is not known; use CONSISTENCY_LINEARIZABLE (1) or CONSISTENCY_LOCAL (2)"
        )
    return value


def aggregations(values: Sequence[int], *, quantile: float, step_nano: int) -> tuple[int, ...]:
    """The aggregations of a query, with what they need beside them."""
    for position, value in enumerate(values):
        field = f"aggregations[{position}]"
        if value == reading_pb2.AGGREGATION_UNSPECIFIED or value not in reading_pb2.Aggregation.values():
            raise InvalidArgument(field, f"{value} is not known; leave the list empty for raw readings")
        if value in values[:position]:
            raise InvalidArgument(field, f"{reading_pb2.Aggregation.Name(value)} is named twice")
    if step_nano < 0:
        raise InvalidArgument("step_nano", f"{step_nano} is negative; 0 is one window over the whole range")
    if step_nano and not values:
        raise InvalidArgument(
            "step_nano", "set without an aggregation; name one, or leave it 0 for raw readings"
        )
    percentile = reading_pb2.AGGREGATION_PERCENTILE in values
    if percentile and not (math.isfinite(quantile) and 0.0 <= quantile <= 1.0):
        raise InvalidArgument("quantile", f"{quantile} is not between 0 and 1")
    return tuple(values)


def time_range(start: int | None, end: int | None) -> None:
    """Half-open; an empty range is legal and gives nothing."""
    if start is not None and end is not None and end < start:
        raise InvalidArgument(
            "end_time_unix_nano",
            f"{end} lies before start_time_unix_nano {start}; the range is start <= time < end",
        )


def member_id(field: str, text: str) -> MemberId:
    """16 hexadecimal digits, not all 0."""
    if not _ID.fullmatch(text) or not int(text, 16):
        raise InvalidArgument(
            field,
            f"{text!r} is no member id: 16 hexadecimal digits that the new node's data directory has drawn",
        )
    return MemberId(int(text, 16))


def address(field: str, text: str) -> str:
    """HOST:PORT, or [IPV6]:PORT."""
    host, separator, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16
    if not separator or not host or not is_port or len(text) > limits.NAME_BYTES_MAX or _CONTROL.search(text):
        raise InvalidArgument(field, f"{text!r} is not HOST:PORT, as in pi-4.local:7441")
    return text


def value(field: str, content: bytes) -> bytes:
    if len(content) > limits.VALUE_BYTES_MAX:
        raise InvalidArgument(
            field,
            f"{len(content)} bytes; a value has at most {limits.VALUE_BYTES_MAX}: keys hold settings, not files",
        )
    return content


def ttl_seconds(seconds: int) -> int:
    if seconds > TTL_SECONDS_MAX:
        raise InvalidArgument(
            "ttl_seconds", f"{seconds} is above {TTL_SECONDS_MAX} (100 years); 0 is: never expires"
        )
    return seconds


def attributes(unit: str, labels: Mapping[str, str]) -> None:
    """Unit and labels of a series."""
    _text("unit", unit, limits.UNIT_BYTES_MAX)
    if len(labels) > limits.LABELS_MAX:
        raise InvalidArgument("labels", f"{len(labels)} labels; a series has at most {limits.LABELS_MAX}")
    for label in sorted(labels):
        if not label:
            raise InvalidArgument("labels", "a label has an empty name")
        _text(f"labels[{label[:40]!r}]", label, limits.LABEL_BYTES_MAX)
        _text(f"labels[{label[:40]!r}]", labels[label], limits.LABEL_BYTES_MAX)


def _text(field: str, text: str, bytes_max: int) -> None:
    size_bytes = len(text.encode("utf-8"))
    if size_bytes > bytes_max:
        raise InvalidArgument(field, f"{size_bytes} bytes; at most {bytes_max}")
    if control := _CONTROL.search(text):
        raise InvalidArgument(field, f"control character U+{ord(control[0]):04X}; leave it out")
