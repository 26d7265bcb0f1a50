"""Watchers, each served for as long as it likes: those at the end of the log together, those behind it one by one.

Invariant: a watcher takes every applied entry behind its index, once, in the log's order. One task reads the log for
all at its end and hands each entry round; nothing waits here for a watcher that can't take another at once: it goes
on alone, at its own pace, until it is at the end again. Loop thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from appliance.errors import Overloaded, RaftberryError
from appliance.limits import WATCHERS_MAX
from appliance.model import Position
from appliance.node.watches import AppliedEffects, Watches

HANDED_PER_TURN = 32
"""Watchers that take an entry in one turn of the loop: some 20 us each."""


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


class LiveWatches:
    def __init__(self, watches: Watches, position: Callable[[], Position]) -> None:
        """position: where what was applied ends."""
        self._watches, self._position = watches, position
        self._present: dict[_Present, None] = {}
        """In the order in which they came."""

        self._handing: asyncio.Task[None] | None = None
        self._handed_index = 0
        """Of the entry that goes round, or went last."""

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
                can_take_more = watcher.take(applied)
                # Its client may take the messages in an hour; the entry is not held until then.
                del applied
                if not can_take_more:
                    await watcher.ready()
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
            self._handing = asyncio.create_task(self._hand_on(index), name="live-watches")
        try:
            return await present.left
        finally:
            del self._present[present]
            if not self._present and (handing := self._handing) is not None:
                self._handing = None
                handing.cancel()
                # Its watch counts as one, and the last to leave may open its own.
                await asyncio.wait((handing,))

    async def _hand_on(self, after_index: int) -> None:
        """The task: while somebody is at the end."""
        changes: Any = self._watches.watch(after_index)
        try:
            async for applied in changes:
                self._handed_index = applied.index
                await self._hand_round(applied)
        except RaftberryError:
            # Each goes on alone, and hears for itself why it can't.
            self._dismiss(None)
        except Exception as error:  # noqa: BLE001 - a bug: their calls tell it
            self._dismiss(error)
        finally:
            if self._handing is asyncio.current_task():
                self._handing = None
            await changes.aclose()

    async def _hand_round(self, applied: AppliedEffects) -> None:
        for number, present in enumerate(tuple(self._present), start=1):
            # Some came with this entry, some went in an earlier turn.
            if present.index < applied.index and not present.left.done():
                _hand(present, applied)
            if number % HANDED_PER_TURN == 0:
                await asyncio.sleep(0)

    def _dismiss(self, error: Exception | None) -> None:
        for present in self._present:
            if present.left.done():
                continue
            if error is None:
                present.left.set_result(present.index)
            else:
                present.left.set_exception(error)


def _hand(present: _Present, applied: AppliedEffects) -> None:
    try:
        can_take_more = present.watcher.take(applied)
    except Exception as error:  # noqa: BLE001 - its own call ends with it
        present.left.set_exception(error)
        return
    present.index = applied.index
    if not can_take_more:
        present.left.set_result(present.index)
