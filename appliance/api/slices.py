"""Answers about many series: captured and made into messages a slice a turn of the loop, which is never held for long.

Invariant: all slices show the moment at which the first was begun, and none of them fills a message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Final, TypeVar

from appliance.api.port import Slices
from appliance.limits import MESSAGE_BYTES_MAX, NAME_BYTES_MAX
from appliance.node.scan import capture

ITEMS_PER_MESSAGE: Final = 128

assert ITEMS_PER_MESSAGE * 66 * NAME_BYTES_MAX < MESSAGE_BYTES_MAX, "a series with all its labels"

Taken = TypeVar("Taken")
Converted = TypeVar("Converted")


async def in_slices(
    taken: Slices[Taken], convert: Callable[[Taken], Converted]
) -> AsyncIterator[list[Converted]]:
    """At least one list, empty where nothing was found. The caller gives the loop a turn with each."""
    await capture(taken)
    results = taken.results()
    group = list(map(convert, islice(results, ITEMS_PER_MESSAGE)))
    yield group
    while group := list(map(convert, islice(results, ITEMS_PER_MESSAGE))):
        yield group
