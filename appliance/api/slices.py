"""Answers about many series: captured and made into messages a slice a turn of the loop, which is never held for long.

Invariant: all slices show the moment at which the first was begun, and none of them fills a message. What is held until
the client takes it has room for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import Final, TypeVar

from appliance.api.port import SeriesSlices
from appliance.limits import MESSAGE_BYTES_MAX, NAME_BYTES_MAX
from appliance.node.scan import Share, capture

ITEMS_PER_MESSAGE: Final = 128

assert ITEMS_PER_MESSAGE * 66 * NAME_BYTES_MAX < MESSAGE_BYTES_MAX, "a series with all its labels"

Taken = TypeVar("Taken")
Converted = TypeVar("Converted")


async def in_slices(
    taken: SeriesSlices[Taken], convert: Callable[[Taken], Converted], share: Share
) -> AsyncIterator[list[Converted]]:
    """At least one list, empty where nothing was found. The caller gives the loop a turn with each.

    share: as many series as may be taken; what is too much is given back.
    """
    await capture(taken)
    share.keep(taken.taken_count)
    results = taken.results()
    group = list(map(convert, islice(results, ITEMS_PER_MESSAGE)))
    yield group
    while group := list(map(convert, islice(results, ITEMS_PER_MESSAGE))):
        yield group
