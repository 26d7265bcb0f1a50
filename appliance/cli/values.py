"""The value of a reading as people write it, in an argument or a CSV file. Pure functions."""

from __future__ import annotations

import math
from typing import Final

INT64_RANGE: Final = range(-(2**63), 2**63)


def parse_value(text: str, *, is_integer: bool) -> float:
    """A double, or with is_integer an int of 64 bits. ValueError says what is wrong."""
    text = text.strip()
    return _integer(text) if is_integer else _number(text)


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an integer") from error
    if value not in INT64_RANGE:
        raise ValueError(f"{text} does not fit 64 bits")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a number") from error
    if math.isinf(value) and "inf" not in text.lower():
        if value < 0:
            raise ValueError(
                f"{text} is below -1.8e308, the lowest number that is kept; write -inf if you mean it"
            )
        raise ValueError(
            f"{text} is above 1.8e308, the largest number that is kept; write inf if you mean it"
        )
    return value
