"""Watches: what was applied, filtered, in log order, with a place to resume from.

Invariant: an index is sent only after everything at or below it that matches; of an entry split over several
messages only the last carries the index. When nothing matches, a progress message every PROGRESS_SECONDS says how
far was looked, so that a resume is cheap; an idle cluster sends nothing. Loop thread; slow clients hold back
their own iteration only (the node then reads for them from the journal).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import Message

from appliance.api.access import present_caller
from appliance.api.calls import Context
from appliance.api.port import AppliedEffects, Node
from appliance.limits import MIB
from appliance.state.names import matcher

PROGRESS_SECONDS: Final = 5.0

SERIES_REMEMBERED_MAX: Final = 10_000
"""Answers a watcher keeps of which series it wants: some 2 MB at worst."""

Responses = Callable[[AppliedEffects], Sequence[Message | bytes]]
"""The messages of one entry, the last of them with its index; none if nothing matches."""

FAN_OUT_BYTES_MAX: Final = 4 * MIB
_KEPT_OVERHEAD: Final = 200

Progress = Callable[[int], Message]
SeriesFilter = Callable[[str, str], bool]
KeyFilter = Callable[[str], bool]


def series_filter(sensor: str, metric: str, *, is_visible: SeriesFilter | None = None) -> SeriesFilter:
    """Whether a series matches two globs and may be seen; remembers its answers, for the same series come again."""
    is_sensor, is_metric = matcher(sensor), matcher(metric)

    @lru_cache(maxsize=SERIES_REMEMBERED_MAX)
    def is_wanted(sensor: str, metric: str) -> bool:
        is_matched = bool(is_sensor(sensor) and is_metric(metric))
        return is_matched and (is_visible is None or is_visible(sensor, metric))

    return is_wanted


class FanOut:
    """Messages that many watchers get: made and encoded once for all of the same filter."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Hashable, int], tuple[bytes, ...]] = OrderedDict()
        self._size_bytes = 0

    def shared(self, key: Hashable, make: Callable[[AppliedEffects], Sequence[Message]]) -> Responses:
        """key: equal for filters that want the same and see the same."""

        def responses(applied: AppliedEffects) -> Sequence[bytes]:
            found = self._kept.get((key, applied.index))
            if found is None:
                found = tuple(message.SerializeToString() for message in make(applied))
                self._keep((key, applied.index), found)
            return found

        return responses

    def _keep(self, key: tuple[Hashable, int], found: tuple[bytes, ...]) -> None:
        self._kept[key] = found
        self._size_bytes += _size(found)
        while self._size_bytes > FAN_OUT_BYTES_MAX:
            self._size_bytes -= _size(self._kept.popitem(last=False)[1])


def _size(messages: tuple[bytes, ...]) -> int:
    return _KEPT_OVERHEAD + sum(map(len, messages))


class _Sender:
    """Serializes the writes of the watch and of its ticker, and knows what the client knows."""

    def __init__(self, context: Context, progress: Progress, *, start_index: int) -> None:
        self._context = context
        self._progress = progress
        self._lock = asyncio.Lock()
        self._sent_index = start_index
        self.seen_index = start_index

    async def send(self, messages: Sequence[Message | bytes], *, index: int) -> None:
        async with self._lock:
            for message in messages:
                await self._context.write(message)
            self._sent_index = self.seen_index = index

    async def send_progress(self) -> None:
        async with self._lock:
            await self._context.write(self._progress(self.seen_index))
            self._sent_index = self.seen_index

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            if self.seen_index > self._sent_index:
                await self.send_progress()


async def run_watch(
    node: Node, context: Context, *, after_index: int | None, responses: Responses, progress: Progress
) -> None:
    """Serves one watch until the client leaves. Without after_index the first message is the progress at its start."""
    start_index = node.state.position.index if after_index is None else after_index
    caller = present_caller()
    changes: Any = node.watch(after_index=start_index)
    sender = _Sender(context, progress, start_index=start_index)
    ticker = asyncio.create_task(sender.tick(), name="watch-progress")
    try:
        if after_index is None:
            await sender.send_progress()
        async for applied in changes:
            index, messages = applied.index, responses(applied)
            # Its client may take the messages in an hour; the entry is not held until then.
            del applied
            if messages:
                # A watch may last for months: a token that was revoked sees nothing more.
                caller.check()
                await sender.send(messages, index=index)
            else:
                sender.seen_index = index
    finally:
        ticker.cancel()
        await changes.aclose()
