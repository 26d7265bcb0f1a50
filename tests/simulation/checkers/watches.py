"""Watches: readers follow the log through the production code, move from node to node, and resume where they were.

Invariant: a reader sees the entry behind the last it saw, and what it sees of an entry is what every other saw of it;
it may be told that the history is gone, then it begins anew. Nobody is left behind when the cluster is at rest.
The coroutines run on simulated time: whatever they wait for is a future of this module.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeVar, cast

from appliance.errors import HistoryGone, IndexNotReached, NotApplied
from appliance.node.watches import AppliedEffects, Watches
from appliance.node.workers import ThreadWorkers
from appliance.state import KeyEventKind
from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.reference import Reference
from tests.simulation.failure import CheckFailed, require
from tests.simulation.node import Process
from tests.simulation.schedule import MILLISECOND_NS, Schedule

Result = TypeVar("Result")
READERS = 2


class WaitedFor:
    """asyncio's, without a loop: whoever waits goes on a moment after the result is set."""

    def __init__(self) -> None:
        self._result: Any = None
        self._is_done = False
        self.on_done: Callable[[], None] = lambda: None

    def done(self) -> bool:
        return self._is_done

    def set_result(self, result: object) -> None:
        self._result, self._is_done = result, True
        self.on_done()

    def __await__(self) -> Generator[WaitedFor, None, Any]:
        if not self._is_done:
            yield self
        return self._result


class _Loop:
    """What the code asks of the running loop."""

    def create_future(self) -> WaitedFor:
        return WaitedFor()

    def call_soon(self, function: Callable[[], None]) -> None:
        """One reader runs at a time, and a turn of the loop takes no time."""
        function()


class _Pool:
    """The readers' pool of a simulated machine."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def in_pool(self, work: Callable[[], Result]) -> Result:
        future = WaitedFor()
        self._process.workers.read(work, future.set_result)
        return cast(Result, await future)


class _Reader:
    """position: index of the last entry it saw; None: it begins at the end of what is applied."""

    def __init__(self, checker: WatchChecker) -> None:
        self._checker = checker
        self.process: Process | None = None
        self.position: int | None = None
        self._next: Any = None
        self._life = 0

    def attach(self, process: Process, watches: Watches) -> None:
        self.process = process
        self._life += 1
        if self.position is None:
            self.position = process.core.state.position.index
        self._checker.counts["resumed"] += 1
        self._entries = watches.watch(self.position)
        self._next = self._entries.__anext__()
        self._step(self._life)

    def detach(self) -> None:
        pending, self._next, self.process = self._next, None, None
        self._life += 1
        if pending is not None:
            try:
                _run(partial(pending.throw, asyncio.CancelledError()))
            except (asyncio.CancelledError, StopIteration, StopAsyncIteration, RuntimeError):
                return

    def _step(self, life: int) -> None:
        """Take all that is there, then wait."""
        while life == self._life:
            try:
                future = _run(partial(self._next.send, None))
            except StopIteration as got:
                self._take(got.value)
                self._next = self._entries.__anext__()
                continue
            except HistoryGone:
                self._checker.counts["history_gone"] += 1
                self.position, self._next, self.process = None, None, None
                return
            except IndexNotReached as error:
                raise CheckFailed(
                    "watch", f"a reader saw entry {self.position}, and is told: {error}"
                ) from error
            except NotApplied:
                self._next = self.process = None
                return
            future.on_done = partial(self._checker.later, partial(self._step_on, life))
            return

    def _step_on(self, life: int) -> None:
        if life == self._life and self.process is not None:
            self.process.call(partial(self._step, life))

    def _take(self, item: AppliedEffects) -> None:
        assert self.position is not None
        if item.index != self.position + 1:
            raise CheckFailed("watch", f"entry {item.index} came after {self.position}")
        self._checker.check_content(item)
        self.position = item.index


class WatchChecker(Checker):
    def __init__(self, schedule: Schedule, rng: random.Random, reference: Reference) -> None:
        self._schedule, self._rng, self._reference = schedule, rng, reference
        self._watches: dict[Process, Watches] = {}
        self._seen: dict[int, object] = {}
        self._readers = [_Reader(self) for _ in range(READERS)]
        self.counts: Counter[str] = Counter()
        for reader in self._readers:
            self._move_later(reader)

    def started(self, process: Process) -> None:
        self._watches = {old: watches for old, watches in self._watches.items() if old.is_alive}
        self._watches[process] = Watches(process.core, cast(ThreadWorkers, _Pool(process)))

    def later(self, action: Callable[[], None]) -> None:
        self._schedule.after(0, action)

    def check_content(self, item: AppliedEffects) -> None:
        """The same as every other reader saw, and as the reference knows of the keys."""
        self.counts["seen"] += 1
        content = (
            tuple(columns.SerializeToString(deterministic=True) for columns in item.effects.readings),
            item.effects.key_events,
        )
        if self._seen.setdefault(item.index, content) != content:
            raise CheckFailed("watch", f"two readers saw different effects of entry {item.index}")
        changes = [
            (event.key, event.mod_revision, event.value if event.kind is KeyEventKind.PUT else None)
            for event in item.effects.key_events
        ]
        expected = self._reference.changes.get(item.index, [])
        require(
            changes == expected, "watch", f"entry {item.index} was told as {changes}, the log says {expected}"
        )
        readings = [(columns.sensor, columns.metric, columns.count) for columns in item.effects.readings]
        written = self._reference.written.get(item.index, [])
        require(
            readings == written, "watch", f"entry {item.index} was told as {readings}, the log says {written}"
        )

    def behind(self, commit_index: int) -> list[int | None]:
        """Where those stand who watch and have not seen all."""
        return [
            reader.position
            for reader in self._readers
            if reader.process is not None and reader.process.is_alive and reader.position != commit_index
        ]

    def check_end(self, commit_index: int) -> None:
        """Everybody is up, all is applied, and who had moved a moment ago has had time to read."""
        behind = self.behind(commit_index)
        require(not behind, "watch", f"readers stand at {behind}, the log at {commit_index}")

    def _move_later(self, reader: _Reader) -> None:
        delay_ns = self._rng.randint(100, 3_000) * MILLISECOND_NS
        self._schedule.after(delay_ns, partial(self._move, reader))

    def _move(self, reader: _Reader) -> None:
        """Away from where it is, if it is anywhere; then to any node that runs."""
        if reader.process is not None:
            reader.detach()
        running = [
            process
            for process in self._watches
            if process.is_alive and not process.is_paused and not process.core.quarantine_reason
        ]
        if running:
            process = self._rng.choice(running)
            process.call(partial(reader.attach, process, self._watches[process]))
        self._move_later(reader)


def _run(step: Callable[[], Awaitable[None]]) -> Any:
    """One step of a coroutine that believes it runs in a loop."""
    asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, _Loop()))
    try:
        return step()
    finally:
        asyncio._set_running_loop(None)
