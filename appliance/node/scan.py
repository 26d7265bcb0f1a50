"""A long read on its way to a caller: items computed in the pool, a few ahead of nobody, at the reader's pace.

Invariant: the iterator is used by one thread at a time, and closed once, whether it was read to its end or not: it
holds a read transaction, which keeps freed pages from being used again. Made and read on the loop thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from appliance.errors import Overloaded
from appliance.limits import SCANS_MAX
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


class ScanRoom:
    """Room for SCANS_MAX reads: what clients read never takes the read transactions of the node's own work."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(SCANS_MAX)

    async def take(self) -> None:
        """Give it back. Raises Overloaded."""
        try:
            async with asyncio.timeout(SCAN_WAIT_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded(
                f"{SCANS_MAX} queries are running on this node or wait for their clients, and none ended within "
                f"{SCAN_WAIT_S:g} s: retry, ask another node, and end queries that nobody reads any more"
            ) from error

    def give_back(self) -> None:
        self._free.release()


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
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """items are computed from reader, which is this scan's from here on, and show position.

        at_once: a batch ends with the item that brings its size to this. on_close: called once, on the loop.
        """
        self.position = position
        self.is_closed = self._is_read = False
        self._items, self._reader, self._workers = items, reader, workers
        self._at_once, self._size_of, self._on_close = at_once, size_of, on_close
        self._lock = threading.Lock()
        """A caller that leaves closes the items while some of them are being computed."""

    def __aiter__(self) -> AsyncIterator[Sequence[Item]]:
        return self._batches()

    async def aclose(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        try:
            if not self._is_read:
                await self._workers.in_pool(self._close)
        finally:
            self._on_close()

    async def _batches(self) -> AsyncIterator[Sequence[Item]]:
        while not self._is_read:
            if batch := await self._workers.in_pool(self._next_batch):
                yield batch

    def _next_batch(self) -> list[Item]:
        """Closes behind the last item: a short read takes the pool's threads once."""
        with self._lock:
            batch, size = [], 0
            for item in self._items:
                batch.append(item)
                size += self._size_of(item)
                if size >= self._at_once:
                    return batch
            self._close_now()
            return batch

    def _close(self) -> None:
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
