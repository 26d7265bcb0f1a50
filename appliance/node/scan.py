"""A long read on its way to a caller: items computed in the pool, a few ahead of nobody, at the reader's pace.

Invariant: the iterator is used by one thread at a time, and closed once, whether it was read to its end or not: it
holds a read transaction, which keeps freed pages from being used again. A caller that leaves has the thread that
computes for it end soon, and no other wait. Made and read on the loop thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Generic, Protocol, Self, TypeVar

from appliance.errors import Overloaded
from appliance.model import Position
from appliance.node.workers import ThreadWorkers
from appliance.storage.store import StoreReader

Item = TypeVar("Item")

SCAN_WAIT_S = 2.0
"""For another scan to end, before a caller is refused: short ones that come together only take turns."""


class Capturing(Protocol):
    """What is to be read, as it stood when this was begun. Capture all of it, or close it."""

    def capture_some(self) -> bool:
        """One slice; True: that was all."""

    def close(self) -> None: ...


async def capture(capturing: Capturing) -> None:
    """All of it, a slice a turn of the loop."""
    try:
        while not capturing.capture_some():
            await asyncio.sleep(0)
    except BaseException:
        capturing.close()
        raise


class Share:
    """What one read has of a room. Leave it, or give it back: once more does nothing."""

    def __init__(self, room: ScanRoom, count: int) -> None:
        self._room, self._count = room, count

    def keep(self, count: int) -> None:
        """No more than this; the rest is given back."""
        if count < self._count:
            self._room.give_back(self._count - count)
            self._count = count

    def give_back(self) -> None:
        self.keep(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


class ScanRoom:
    """Room for what clients read at once: so many queries, or series. Whoever came first is first to get a share."""

    def __init__(self, size: int, holders: str) -> None:
        """holders: who fills it, for the refusal."""
        self._free, self._holders = size, holders
        self._turn = asyncio.Lock()
        self._has_more = asyncio.Event()

    async def take(self, count: int = 1) -> Share:
        """count: at most the size; 0 is given at once. Raises Overloaded."""
        if count:
            try:
                async with asyncio.timeout(SCAN_WAIT_S), self._turn:
                    while self._free < count:
                        self._has_more.clear()
                        await self._has_more.wait()
                    self._free -= count
            except TimeoutError as error:
                raise Overloaded(
                    f"{self._holders} on this node or wait for their clients, and none ended within "
                    f"{SCAN_WAIT_S:g} s: retry, ask another node, and end those that nobody reads any more"
                ) from error
        return Share(self, count)

    def give_back(self, count: int) -> None:
        """For shares."""
        self._free += count
        self._has_more.set()


class RunningScan(Generic[Item]):
    def __init__(
        self,
        items: Iterator[Item],
        reader: StoreReader,
        workers: ThreadWorkers,
        *,
        position: Position,
        at_once: int,
        size_of: Callable[[Item], int] = lambda _: 1,
        abandon: Callable[[], None] = lambda: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """items, none of them None, are computed from reader, which is this scan's from here on, and show position.

        at_once: a batch ends with the item that brings its size to this. abandon: has items end soon, while one is
        being computed in another thread. on_close: called once, on the loop.
        """
        self.position = position
        self.is_closed = self._is_read = False
        self._items, self._reader, self._workers = items, reader, workers
        self._at_once, self._size_of = at_once, size_of
        self._abandon, self._on_close = abandon, on_close
        self._batch: asyncio.Task[list[Item]] | None = None
        """Goes on when its caller leaves, and sees then that it need not."""

        self._closing: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        """Nobody waits for it, but where the loop ends around a task that waits for a thread."""

    def __aiter__(self) -> AsyncIterator[Sequence[Item]]:
        return self._batches()

    async def aclose(self) -> None:
        """Over when the reader is closed. That happens also if nobody waits for it."""
        if not self.is_closed:
            self.is_closed = True
            self._abandon()
            if self._is_read:
                self._on_close()
            else:
                self._closing = asyncio.create_task(self._close())
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        """The thread that computes closes on its way out: none waits for it."""
        try:
            if self._batch is not None:
                await asyncio.wait([self._batch])
            if not self._is_read:
                await self._workers.in_pool(self._close_in_thread)
        finally:
            self._on_close()

    async def _batches(self) -> AsyncIterator[Sequence[Item]]:
        while not self._is_read and not self.is_closed:
            self._batch = asyncio.create_task(self._workers.in_pool(self._next_batch))
            if batch := await asyncio.shield(self._batch):
                yield batch

    def _next_batch(self) -> list[Item]:
        """Closes behind the last item: a short read takes the pool's threads once."""
        with self._lock:
            batch: list[Item] = []
            size = 0
            while not self.is_closed and (item := next(self._items, None)) is not None:
                batch.append(item)
                size += self._size_of(item)
                if size >= self._at_once:
                    return batch
            self._close_now()
            return batch

    def _close_in_thread(self) -> None:
        with self._lock:
            self._close_now()

    def _close_now(self) -> None:
        if self._is_read:
            return
        close: Callable[[], None] = getattr(self._items, "close", lambda: None)
        close()
        # An iterator that was never begun closes nothing.
        self._reader.close()
        self._is_read = True
