"""Times as people write them, to and from nanoseconds since the Unix epoch. Exact; pure functions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from appliance.units import parse_duration

NANO: Final = 1_000_000_000
TIME_UNIX_NANO_MIN: Final = -(2**63)
TIME_UNIX_NANO_MAX: Final = 2**63 - 1

EPOCH_SECONDS_MAX: Final = 10**11
"""A bare number below it is seconds (until the year 5138) ..."""

EPOCH_NANO_MIN: Final = 10**17
"""... from here on nanoseconds (since 1973). Between them lie milliseconds and microseconds: refused."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ISO: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d{2}:?\d{2})?", re.ASCII
)
_NUMBER: Final = re.compile(r"(-?)(\d+)(?:\.(\d{1,9}))?", re.ASCII)


def parse_time(text: str) -> int:
    """Nanoseconds from ISO 8601 (naive means UTC), epoch seconds or epoch nanoseconds.

    ValueError says what is wrong.
    """
    text = text.strip()
    number = _NUMBER.fullmatch(text)
    return _bounded(text, _from_number(text, number) if number else _from_iso(text))


def parse_time_or_age(text: str, *, now_unix_nano: int) -> int:
    """As parse_time; also `now`, and `-1h` for an hour ago."""
    if text == "now":
        return now_unix_nano
    if text.startswith("-") and text[-1:].isalpha():
        return _bounded(text, now_unix_nano - parse_duration(text[1:]))
    return parse_time(text)


def format_time(time_unix_nano: int, *, separator: str = "T", suffix: str = "Z") -> str:
    """`2026-01-31T12:00:00Z`, with as many decimals as it takes to be exact (0, 3, 6 or 9)."""
    seconds, nanos = divmod(time_unix_nano, NANO)
    whole = (_EPOCH + timedelta(seconds=seconds)).strftime(f"%Y-%m-%d{separator}%H:%M:%S")
    return f"{whole}{_fraction(nanos)}{suffix}"


def _bounded(text: str, time_unix_nano: int) -> int:
    if not TIME_UNIX_NANO_MIN <= time_unix_nano <= TIME_UNIX_NANO_MAX:
        raise ValueError(f"{text!r} is outside the years 1677 to 2262")
    return time_unix_nano


def _fraction(nanos: int) -> str:
    if nanos == 0:
        return ""
    digits = f"{nanos:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}"


def _from_number(text: str, number: re.Match[str]) -> int:
    sign = -1 if number[1] else 1
    whole = int(number[2])
    if whole < EPOCH_SECONDS_MAX:
        return sign * (whole * NANO + int((number[3] or "0").ljust(9, "0")))
    if whole < EPOCH_NANO_MIN or number[3]:
        raise ValueError(f"{text!r} is neither epoch seconds nor epoch nanoseconds; give one of these")
    return sign * whole


def _from_iso(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time like 2026-01-31T12:00:00Z, epoch seconds or nanoseconds")
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone or '+00:00'}")
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from error
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * NANO + int((fraction or "0").ljust(9, "0"))
