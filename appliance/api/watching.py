"""Watches: what was applied, filtered, in log order, with a place to resume from.

Invariant: an index is sent only after everything at or below it that matches; of an entry split over several
messages only the last carries the index. When nothing matches, a progress message every PROGRESS_SECONDS says how
far was looked, so that a resume is cheap; an idle cluster sends nothing. Loop thread; slow clients hold back
their own iteration only (the node then reads for them from the journal).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Final

from google.protobuf.message import Message

from appliance.api.access import present_caller
from appliance.api.calls import Context, serialize
from appliance.api.port import AppliedEffects, Node
from appliance.errors import Unauthenticated
from appliance.limits import KIB, MIB, STREAM_STALL_S_MAX
from appliance.rpc import CallOver
from appliance.state.names import matcher

PROGRESS_SECONDS: Final = 5.0

WAITING_MAX: Final = 16
WAITING_BYTES_MAX: Final = 16 * KIB
"""Messages of earlier entries that wait for a client who is about as fast as the log: 32 MiB for 2,000 of them. One
entry's messages are given whole, whatever their size."""

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


class _Outbox:
    """What one client is told, in order: one message is on its way through HTTP/2's flow control, the next ones wait.

    A node.live.Watcher. Knows how far the client knows, and says it when nothing was to be told for a while.
    """

    def __init__(
        self, context: Context, responses: Responses, progress: Progress, *, start_index: int
    ) -> None:
        self._context, self._responses, self._progress = context, responses, progress
        self._caller = present_caller()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_sending = self._is_gone = False
        self._emptied: asyncio.Future[None] | None = None
        self._told_index = self._seen_index = start_index
        self._tick_later()

    def take(self, applied: AppliedEffects) -> bool:
        if self._is_gone:
            raise CallOver
        if messages := self._responses(applied):
            # A watch may last for months: a token that was revoked sees nothing more.
            self._caller.check()
            for message in messages:
                self._push(serialize(message))
            self._told_index = applied.index
        self._seen_index = applied.index
        return len(self._waiting) < WAITING_MAX and self._waiting_bytes < WAITING_BYTES_MAX

    async def ready(self) -> None:
        """Until nothing waits or is under way. CallOver: the client has left."""
        if self._is_sending:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied
        if self._is_gone:
            raise CallOver

    def tell_progress(self) -> None:
        self._push(serialize(self._progress(self._seen_index)))
        self._told_index = self._seen_index

    async def finish(self, error: Exception) -> None:
        """Before the status of a watch that ends: what was taken is sent, while the client takes some of it.

        It is not counted among the open ones any more; who takes nothing is reset behind the status.
        """
        self._timer.cancel()
        if isinstance(error, Unauthenticated):
            self._waiting.clear()
        while True:
            waiting = len(self._waiting)
            try:
                async with asyncio.timeout(STREAM_STALL_S_MAX):
                    await self.ready()
            except TimeoutError:
                if len(self._waiting) < waiting:
                    continue
                self._context.reset_after(STREAM_STALL_S_MAX)
            return

    def close(self) -> None:
        self._timer.cancel()
        self._waiting.clear()

    def _push(self, message: bytes) -> None:
        if self._is_sending:
            self._waiting.append(message)
            self._waiting_bytes += len(message)
        else:
            self._send(message)

    def _send(self, message: bytes) -> None:
        self._is_sending = True
        self._context.send(message, self._sent)

    def _sent(self, is_taken: bool) -> None:
        self._is_gone |= not is_taken
        if self._waiting and not self._is_gone:
            message = self._waiting.popleft()
            self._waiting_bytes -= len(message)
            self._send(message)
            return
        self._is_sending = False
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _tick_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_SECONDS, self._tick)

    def _tick(self) -> None:
        if self._seen_index > self._told_index and not self._is_sending:
            self.tell_progress()
        self._tick_later()


async def run_watch(
    node: Node, context: Context, *, after_index: int | None, responses: Responses, progress: Progress
) -> None:
    """Serves one watch until the client leaves. Without after_index the first message is the progress at its start."""
    start_index = node.state.position.index if after_index is None else after_index
    outbox = _Outbox(context, responses, progress, start_index=start_index)
    try:
        if after_index is None:
            outbox.tell_progress()
        await node.serve_watch(after_index=start_index, watcher=outbox)
    except CallOver:
        raise
    except Exception as error:
        await outbox.finish(error)
        raise
    finally:
        outbox.close()
