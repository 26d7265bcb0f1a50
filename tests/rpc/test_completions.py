"""A burst of completions is handled in turns, between which the loop does everything else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from appliance.rpc import completions, core

MILLISECOND_NS = 1_000_000


class Queue:
    """Holds a burst; then waits for its end, as the core's does."""

    def __init__(self) -> None:
        self.burst: list[SimpleNamespace] = []
        self._is_filled, self._is_shut = threading.Event(), threading.Event()

    def fill(self, tag: Callable[[object], None], count: int) -> None:
        self.burst = [SimpleNamespace(completion_type=None, tag=tag) for _ in range(count)]
        self._is_filled.set()

    def poll(self, deadline: float | None = None) -> SimpleNamespace:
        if deadline is None:
            self._is_filled.wait()
        if self.burst:
            return self.burst.pop(0)
        if deadline is not None:
            return SimpleNamespace(completion_type=core.FOUND_NOTHING)
        self._is_shut.wait()
        return SimpleNamespace(completion_type=core.SHUT_DOWN)

    def shutdown(self) -> None:
        self._is_shut.set()
        self._is_filled.set()


async def test_a_turn_ends_with_its_time_however_many_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, now_ns = Queue(), 0
    turns = [0]

    def handle(_event: object) -> None:
        nonlocal now_ns
        now_ns += MILLISECOND_NS
        turns[-1] += 1

    monkeypatch.setattr(core, "CompletionQueue", lambda: queue)
    monkeypatch.setattr(completions, "monotonic_ns", lambda: now_ns)
    running = completions.Completions()
    queue.fill(handle, 100)
    async with asyncio.timeout(60):
        while sum(turns) < 100:
            await asyncio.sleep(0)
            turns.append(0)
        await running.close()
    bound = completions.TURN_NS // MILLISECOND_NS
    assert max(turns) <= bound + 1
    assert sum(1 for count in turns if count) >= 100 // (bound + 1)
