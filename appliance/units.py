"""Sizes and durations as people write them: `64MiB`, `500ms`. Pure functions.

Invariant: a Size is a whole number of bytes, a Duration a whole number of nanoseconds, neither negative.
Used by the configuration and the command line.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final


class Size(int):
    """Bytes."""


class Duration(int):
    """Nanoseconds."""


SIZE_UNITS: Final = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

DURATION_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
    "y": 365 * 86_400 * 10**9,
}

_NUMBER: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)", re.ASCII)


def parse_size(value: object) -> Size:
    """Bytes from `64MiB`, `1.5GB` or a plain integer. ValueError says what is wrong."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Size(value)
    return Size(_scaled(value, SIZE_UNITS, what="a size", example="64MiB"))


def parse_duration(value: object) -> Duration:
    """Nanoseconds from `500ms`, `1.5s`, `2h`. The unit is required: a bare 5 could mean anything."""
    return Duration(_scaled(value, DURATION_UNITS, what="a duration", example="500ms"))


def format_duration(duration_ns: int) -> str:
    """A whole number of the largest unit that divides it: parse_duration reads it back."""
    unit, size = max(
        (item for item in DURATION_UNITS.items() if duration_ns % item[1] == 0), key=lambda item: item[1]
    )
    return f"{duration_ns // size}{unit}"


def _scaled(value: object, units: dict[str, int], *, what: str, example: str) -> int:
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        names = ", ".join(filter(None, units))
        raise ValueError(f"{value!r} is not {what} like {example!r}; units are {names}")
    return int(Decimal(match[1]) * units[match[2]])
