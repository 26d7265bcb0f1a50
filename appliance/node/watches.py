"""Watches: every reader follows the log at its own pace, from memory or from the journal.

Invariant: what a watch yields has no gap, no duplicate and the log's order; a slow watcher holds its position and a
few KiB, it only falls behind, and hears HistoryGone when the log it needs was trimmed. Loop thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from appliance.errors import HistoryGone, IndexNotReached, NotApplied, Overloaded, Quarantined
from appliance.limits import KIB, WATCH_QUEUE_BYTES_MAX, WATCHERS_MAX
from appliance.model import Entry
from appliance.node.core import NodeCore
from appliance.node.workers import ThreadWorkers
from appliance.state import Applied, EntryEffects, effects
from appliance.state.entry import command_of
from appliance.storage.store import StoreReader

COLD_ENTRIES_AT_ONCE = 32
COLD_BYTES_AT_ONCE = 4 * KIB
"""Of the journal: each watcher keeps what is left of it while its client takes nothing. Small entries are read
together, for each read waits for a thread; one that is larger costs more to send than to read alone."""

HOT_BYTES_PER_TURN = 64 * KIB
"""Of entries in memory that watchers look at in a turn of the loop: one who wants none of them would look at all."""

WAKES_PER_TURN = 16
"""Watchers that go on in one turn of the loop: each makes and sends its message, some 0.1 ms."""

_EFFECTS_OVERHEAD = 4 * KIB
"""Python objects of an entry's effects; making them takes as long as some KiB of command."""


@dataclass(frozen=True, slots=True)
class AppliedEffects:
    index: int
    effects: EntryEffects


@dataclass(slots=True)
class _LookedAt:
    """By one watcher since it let others go on: bytes that were decoded for it, and the effects."""

    size_bytes: int = 0


class Watches:
    def __init__(self, core: NodeCore, workers: ThreadWorkers) -> None:
        self._core, self._workers = core, workers
        self._waiting: dict[asyncio.Future[None], None] = {}
        """In the order in which they came: a set of futures goes by their addresses."""

        self._waking: list[asyncio.Future[None]] = []
        self._is_due_again = False
        self._pausing: deque[asyncio.Future[None]] = deque()
        """Those who looked at enough: one goes on in a turn."""

        self._decoded: OrderedDict[int, tuple[EntryEffects, int]] = OrderedDict()
        self._decoded_bytes = 0
        self.count = 0
        core.applied_listeners.append(self._on_applied)
        core.upheaval_listeners.append(self._wake_all)

    def earliest_index(self) -> int:
        """The first index that a watch can resume behind."""
        return self._core.log.anchor.index

    async def watch(self, after_index: int | None) -> AsyncIterator[AppliedEffects]:
        """Effects of every applied entry behind after_index (None: behind the last one), without end.

        Raises HistoryGone, IndexNotReached, Overloaded, Quarantined; NoLeader: nobody knows whether after_index is.
        """
        if self.count >= WATCHERS_MAX:
            raise Overloaded(
                f"{WATCHERS_MAX} watches are open on this node; watch on another node, or fewer series"
            )
        self._change_count(1)
        try:
            position = self._core.state.position.index if after_index is None else after_index
            await self._check_reached(position)
            ahead: deque[Entry] = deque()
            # All clients may resume at once: each waits for its turn.
            looked_at = _LookedAt(HOT_BYTES_PER_TURN)
            while True:
                if await self._wait_for(position + 1):
                    looked_at.size_bytes = 0
                if looked_at.size_bytes >= HOT_BYTES_PER_TURN:
                    looked_at.size_bytes = 0
                    await self._let_others_go_on()
                if not ahead:
                    ahead.extend(await self._entries(position + 1))
                if ahead:
                    yield AppliedEffects(position + 1, self._effects_of(ahead.popleft(), looked_at))
                    position += 1
        finally:
            self._change_count(-1)

    def _change_count(self, change: int) -> None:
        self.count += change
        self._core.engine.want_news(is_wanted=self.count > 0)

    async def _check_reached(self, index: int) -> None:
        """This node may lag behind what a client saw on another: the cluster is asked how far its log is."""
        core = self._core
        if index <= core.state.position.index:
            return
        asked: asyncio.Future[NotApplied | None] = asyncio.get_running_loop().create_future()

        def done(error: NotApplied | None) -> None:
            if not asked.done():
                asked.set_result(error)

        core.read_barrier(core.clock.monotonic_ns() + core.options.default_deadline_ns, done)
        if error := await asked:
            raise error
        last = core.state.position.index
        if index > last:
            raise IndexNotReached(
                f"the log ends at index {last}: a watch can't resume behind {index}, and what will come there is not "
                "what was seen; the cluster was restored or recovered, or is another one: query what is wanted, then "
                "watch from now",
                last,
            )

    async def _wait_for(self, index: int) -> bool:
        """Until it is applied; whether that took time, in which others went on."""
        has_waited = False
        while not self._core.quarantine_reason and self._core.state.position.index < index:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[future] = None
            has_waited = True
            try:
                await future
            finally:
                self._waiting.pop(future, None)
        if self._core.quarantine_reason:
            raise Quarantined(self._core.quarantine_reason)
        return has_waited

    async def _let_others_go_on(self) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._pausing.append(future)
        if len(self._pausing) == 1:
            loop.call_soon(self._resume_one)
        await future

    def _resume_one(self) -> None:
        future = self._pausing.popleft()
        if not future.done():
            future.set_result(None)
        if self._pausing:
            asyncio.get_running_loop().call_soon(self._resume_one)

    async def _entries(self, first: int) -> list[Entry]:
        """The first of them, or a few; none: trimmed meanwhile, as is said then."""
        log, last = self._core.log, self._core.state.position.index
        self._check_kept(first)
        if log.is_hot(first):
            return log.read(first, 1)
        count = min(COLD_ENTRIES_AT_ONCE, last - first + 1)
        return await self._workers.in_pool(lambda: log.read(first, count, COLD_BYTES_AT_ONCE))

    def _check_kept(self, index: int) -> None:
        earliest = self.earliest_index()
        if index <= earliest:
            raise HistoryGone(
                f"the log behind index {index - 1} was trimmed; the earliest index to resume behind is {earliest}: "
                "query what was missed, then watch from now; raise watch.keep_bytes to keep more",
                earliest,
            )

    def _effects_of(self, entry: Entry, looked_at: _LookedAt) -> EntryEffects:
        encoded, index, _ = entry
        # The outcomes go with the log: without its own, a refused write would pass for one that took effect.
        self._check_kept(index)
        looked_at.size_bytes += _EFFECTS_OVERHEAD
        kept = self._decoded.get(index)
        if kept is not None:
            return kept[0]
        command = command_of(index, encoded)
        if not command:
            return EntryEffects()
        looked_at.size_bytes += len(command)
        found = self._decode(index, command)
        self._keep(index, found, len(command))
        return found

    def _decode(self, index: int, command: bytes) -> EntryEffects:
        reader: StoreReader
        with self._core.store.snapshot() as reader:
            return effects(command, self._core.state.outcome(index, reader))

    def _keep(self, index: int, found: EntryEffects, size: int) -> None:
        """What every watcher wants next is decoded once; the oldest goes when their commands pass the bound."""
        if index in self._decoded:
            return
        size += _EFFECTS_OVERHEAD
        self._decoded[index] = (found, size)
        self._decoded_bytes += size
        while self._decoded_bytes > WATCH_QUEUE_BYTES_MAX:
            self._decoded_bytes -= self._decoded.popitem(last=False)[1][1]

    def _on_applied(self, applied: Applied) -> None:
        if self.count and applied.command is not None:
            self._keep(applied.index, effects(applied.command, applied.outcome), applied.command.ByteSize())
        self._wake_all()

    def _wake_all(self) -> None:
        """In the order in which they began to wait, some a turn of the loop."""
        if self._waking:
            self._is_due_again = True
            return
        self._waking = [future for future in self._waiting if not future.done()]
        self._wake_some()

    def _wake_some(self) -> None:
        woken, self._waking = self._waking[:WAKES_PER_TURN], self._waking[WAKES_PER_TURN:]
        for future in woken:
            if not future.done():
                future.set_result(None)
        if self._waking:
            asyncio.get_running_loop().call_soon(self._wake_some)
        elif self._is_due_again:
            self._is_due_again = False
            self._wake_all()
