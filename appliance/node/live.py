"""Watchers, each served for as long as it likes: those at the end of the log together, those behind it one by one.

Invariant: a watcher takes every applied entry behind its index, once, in the log's order. One task reads the log for
all at its end and hands each entry round; nothing waits here for a watcher that can't take another at once: it goes
on alone, at its own pace, until it is at the end again. Loop thread.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, Final, NoReturn, Protocol

from appliance.errors import Overloaded, RaftberryError
from appliance.limits import WATCHERS_MAX
from appliance.model import Position
from appliance.node.watches import AppliedEffects, Watches

TURN_NS: Final = 1_000_000
"""Entries are taken for so long, then everything else on the loop has its turn. Who has a filter of its own may need
milliseconds for an entry of many series."""

DISMISSED_PER_TURN: Final = 16
"""Each ends its call, or opens a watch of its own."""


class Watcher(Protocol):
    def take(self, applied: AppliedEffects) -> bool:
        """Begins to send what it wants of an entry. False: the next one shall wait until it is ready."""

    async def ready(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Present:
    """A watcher at the end of the log."""

    watcher: Watcher
    index: int
    left: asyncio.Future[int]
    """With the index up to which it has everything."""


class _Turn:
    """How long entries have been taken in this turn of the loop, by whomever."""

    def __init__(self) -> None:
        self._ends_ns: int | None = None

    def begin(self) -> None:
        if self._ends_ns is None:
            self._ends_ns = monotonic_ns() + TURN_NS
            asyncio.get_running_loop().call_soon(self._forget)

    async def end(self) -> None:
        if self._ends_ns is not None and monotonic_ns() >= self._ends_ns:
            await asyncio.sleep(0)

    def _forget(self) -> None:
        self._ends_ns = None


class LiveWatches:
    def __init__(self, watches: Watches, position: Callable[[], Position]) -> None:
        """position: where what was applied ends."""
        self._watches, self._position = watches, position
        self._present: dict[_Present, None] = {}
        """In the order in which they came."""

        self._handing: asyncio.Task[None] | None = None
        self._handed_index = 0
        """Of the entry that goes round, or went last."""

        self._turn = _Turn()
        self.count = 0

    async def serve(self, after_index: int, watcher: Watcher) -> NoReturn:
        """Until it is cancelled. Raises Overloaded, what Watches.watch raises, and what the watcher raises."""
        if self.count >= WATCHERS_MAX:
            raise Overloaded(
                f"{WATCHERS_MAX} watches are open on this node; watch on another node, or fewer series"
            )
        self.count += 1
        try:
            while True:
                if self._is_at_end(after_index):
                    after_index = await self._stay(after_index, watcher)
                    await watcher.ready()
                after_index = await self._catch_up(after_index, watcher)
        finally:
            self.count -= 1

    async def _catch_up(self, after_index: int, watcher: Watcher) -> int:
        """Alone, one entry at least; the index up to which it has everything."""
        changes: Any = self._watches.watch(after_index)
        try:
            async for applied in changes:
                after_index = applied.index
                self._turn.begin()
                can_take_more = watcher.take(applied)
                # Its client may take the messages in an hour; the entry is not held until then.
                del applied
                if not can_take_more:
                    await watcher.ready()
                await self._turn.end()
                if self._is_at_end(after_index):
                    break
        finally:
            await changes.aclose()
        return after_index

    def _is_at_end(self, index: int) -> bool:
        """Whoever joins lacks nothing that was handed round, and has nothing that this node has yet to apply."""
        begins = self._handed_index if self._handing is not None else self._position().index
        return begins <= index <= self._position().index

    async def _stay(self, index: int, watcher: Watcher) -> int:
        """With the others, for as long as it takes all at once; the index up to which it has everything."""
        present = _Present(watcher, index, asyncio.get_running_loop().create_future())
        self._present[present] = None
        if self._handing is None:
            self._handed_index = index
            # Not the context of whoever came first, with its caller.
            self._handing = asyncio.create_task(
                self._hand_on(index), name="live-watches", context=contextvars.Context()
            )
        try:
            return await present.left
        finally:
            self._present.pop(present, None)
            if not self._present and (handing := self._handing) is not None:
                self._handing = None
                handing.cancel()
                # Its watch counts as one, and the last to leave may open its own.
                await asyncio.wait((handing,))

    async def _hand_on(self, after_index: int) -> None:
        """The task: while somebody is at the end."""
        changes: Any = self._watches.watch(after_index)
        bug: Exception | None = None
        try:
            async for applied in changes:
                self._handed_index = applied.index
                await self._hand_round(applied)
        except RaftberryError:
            pass  # Each goes on alone, and hears for itself why it can't.
        except Exception as error:  # noqa: BLE001 - the calls of those who are here tell it
            bug = error
        finally:
            left_behind = self._end_of(asyncio.current_task())
            await changes.aclose()
            await _dismiss(left_behind, bug)

    async def _hand_round(self, applied: AppliedEffects) -> None:
        for present in tuple(self._present):
            # Some came with this entry, some went in an earlier turn.
            if present.index >= applied.index or present.left.done():
                continue
            self._turn.begin()
            _hand(present, applied)
            await self._turn.end()

    def _end_of(self, task: asyncio.Task[None] | None) -> list[_Present]:
        """Who is left behind; whoever comes now begins anew."""
        if self._handing is not task:
            return []
        self._handing = None
        left_behind, self._present = list(self._present), {}
        return left_behind


def _hand(present: _Present, applied: AppliedEffects) -> None:
    try:
        can_take_more = present.watcher.take(applied)
    except Exception as error:  # noqa: BLE001 - its own call ends with it
        present.left.set_exception(error)
        return
    present.index = applied.index
    if not can_take_more:
        present.left.set_result(present.index)


async def _dismiss(left_behind: Iterable[_Present], bug: Exception | None) -> None:
    for number, present in enumerate(left_behind, start=1):
        if not present.left.done():
            if bug is None:
                present.left.set_result(present.index)
            else:
                present.left.set_exception(bug)
        if number % DISMISSED_PER_TURN == 0:
            await asyncio.sleep(0)
