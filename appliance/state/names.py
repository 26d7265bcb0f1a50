"""Names and globs: what a name may be, and which names a pattern means.

Patterns are those of fnmatch with case: `*`, `?`, `[abc]`, `[!abc]`; empty means `*`.
Pure functions, called on any thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from typing import Final

from appliance import limits
from appliance.errors import InvalidArgument

_WILDCARDS: Final = frozenset("*?[")


def is_pattern(text: str) -> bool:
    """Names hold no wildcard, so that a text without one means exactly itself."""
    return not text or not _WILDCARDS.isdisjoint(text)


def matcher(pattern: str) -> Callable[[str], object]:
    """A function that is true of the names the pattern means."""
    if pattern in ("", "*"):
        return _anything
    return _compiled(pattern).match


def literal_prefix(pattern: str) -> str:
    """How every name begins that the pattern means."""
    return next((pattern[:place] for place, one in enumerate(pattern) if one in _WILDCARDS), pattern)


def check_name(field: str, name: str) -> None:
    """The last line of defence: requests were checked in full where they entered."""
    size = len(name.encode())
    if not 0 < size <= limits.NAME_BYTES_MAX or not _WILDCARDS.isdisjoint(name):
        raise InvalidArgument(
            field, f"a name has 1 to {limits.NAME_BYTES_MAX} bytes and none of * ? [ (this one: {size} bytes)"
        )


def check_pattern(field: str, pattern: str) -> None:
    size = len(pattern.encode())
    if size > limits.NAME_BYTES_MAX:
        raise InvalidArgument(
            field, f"a pattern has at most {limits.NAME_BYTES_MAX} bytes (this one: {size} bytes)"
        )


def _anything(name: str) -> object:
    return True


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
