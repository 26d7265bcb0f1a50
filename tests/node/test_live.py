"""Watchers who are served: at the end of the log together, behind it alone, and from the one to the other and back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from appliance.clock import system_clock
from appliance.errors import HistoryGone, IndexNotReached, Overloaded, PermissionDenied, Quarantined
from appliance.node import live
from appliance.node.watches import AppliedEffects
from tests.node.harness import put
from tests.node.test_runtime import Alone
from tests.node.test_slices import LoopTurns

WATCHERS = 100


class Taker:
    """Takes every entry, and can take another for as often as `can_take` says so."""

    def __init__(self, can_take: list[bool] | None = None, error: Exception | None = None) -> None:
        self.taken: list[int] = []
        self.waited = 0
        self._can_take, self._error = can_take or [], error
        self._is_full = False

    def take(self, applied: AppliedEffects) -> bool:
        assert not self._is_full, "it was not waited for"
        if self._error is not None:
            raise self._error
        self.taken.append(applied.index)
        self._is_full = bool(self._can_take) and not self._can_take.pop()
        return not self._is_full

    async def ready(self) -> None:
        self.waited += 1
        await asyncio.sleep(0.001)
        self._is_full = False


@pytest.fixture
async def alone() -> AsyncIterator[Alone]:
    made = Alone()
    await made.node.write(put(), deadline_ns=None)
    yield made
    assert made.node.live_watches.count == made.node.watches.count == 0
    assert not made.node.live_watches._present
    await made.node.stop(deadline_ns=system_clock.monotonic_ns())
    await made.node.close()


def serve(alone: Alone, watcher: Taker, after_index: int) -> asyncio.Task[None]:
    return asyncio.create_task(alone.node.serve_watch(after_index=after_index, watcher=watcher))


async def until(alone: Alone, *watchers: Taker) -> None:
    """They have everything."""
    async with asyncio.timeout(60):
        while any(watcher.taken[-1:] != [alone.core.state.position.index] for watcher in watchers):
            await asyncio.sleep(0)


async def leave(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_one_reads_the_log_for_all_at_its_end(alone: Alone) -> None:
    after = alone.core.state.position.index
    watchers = [Taker() for _ in range(WATCHERS)]
    tasks = [serve(alone, watcher, after) for watcher in watchers]
    written = [(await alone.node.write(put(), deadline_ns=None)).index for _ in range(5)]
    await until(alone, *watchers)
    assert [watcher.taken for watcher in watchers] == [written] * WATCHERS
    assert alone.node.live_watches.count == alone.node.figures().watch_count == WATCHERS
    assert alone.node.watches.count == 1
    await leave(*tasks)


async def test_an_entry_goes_round_in_many_turns_of_the_loop(alone: Alone) -> None:
    turns, seen = LoopTurns(), Counter[int]()

    class Counting(Taker):
        def take(self, applied: AppliedEffects) -> bool:
            seen[turns.count] += 1
            return super().take(applied)

    watchers = [Counting() for _ in range(10 * live.HANDED_PER_TURN)]
    tasks = [serve(alone, watcher, alone.core.state.position.index) for watcher in watchers]
    await alone.node.write(put(), deadline_ns=None)
    await until(alone, *watchers)
    assert sum(seen.values()) == len(watchers)
    assert max(seen.values()) <= live.HANDED_PER_TURN
    turns.close()
    await leave(*tasks)


async def test_who_cannot_take_another_at_once_goes_on_alone_and_comes_back(alone: Alone) -> None:
    after = alone.core.state.position.index
    quick, slow = Taker(), Taker([True, False, False])
    tasks = [serve(alone, watcher, after) for watcher in (quick, slow)]
    for _ in range(3):
        await alone.node.write(put(), deadline_ns=None)
    await until(alone, quick)
    assert slow.taken == [after + 1]
    await until(alone, slow)
    assert slow.waited == 2
    await alone.node.write(put(), deadline_ns=None)
    await until(alone, quick, slow)
    assert quick.taken == slow.taken == [after + 1, after + 2, after + 3, after + 4]
    assert alone.node.watches.count == 1
    await leave(*tasks)


@pytest.mark.parametrize("seed", range(10))
async def test_whoever_comes_lags_and_goes_takes_each_entry_once_and_in_order(
    alone: Alone, seed: int
) -> None:
    rng = random.Random(seed)
    begun: list[tuple[int, Taker, asyncio.Task[None]]] = []
    gone: list[tuple[int, Taker]] = []
    for _ in range(60):
        for _ in range(rng.randrange(4)):
            await alone.node.write(put(), deadline_ns=None)
        for _ in range(rng.randrange(3)):
            end = alone.core.state.position.index
            after = rng.choice((end, end, rng.randrange(1, end + 1)))
            taker = Taker([rng.random() < 0.7 for _ in range(rng.randrange(60))])
            begun.append((after, taker, serve(alone, taker, after)))
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if begun and rng.random() < 0.3:
            after, taker, task = begun.pop(rng.randrange(len(begun)))
            await leave(task)
            gone.append((after, taker))
    await alone.node.write(put(), deadline_ns=None)
    await until(alone, *(taker for _, taker, _ in begun))
    end = alone.core.state.position.index
    for after, taker, _ in begun:
        assert taker.taken == list(range(after + 1, end + 1))
    for after, taker in gone:
        assert taker.taken == list(range(after + 1, after + 1 + len(taker.taken)))
    if begun:
        await leave(*(task for _, _, task in begun))


async def test_whose_watch_fails_is_told_alone(alone: Alone) -> None:
    after = alone.core.state.position.index
    revoked, other = Taker(error=PermissionDenied("the token was revoked")), Taker()
    ended, goes_on = serve(alone, revoked, after), serve(alone, other, after)
    for _ in range(2):
        await alone.node.write(put(), deadline_ns=None)
    with pytest.raises(PermissionDenied):
        await ended
    await until(alone, other)
    assert other.taken == [after + 1, after + 2]
    await leave(goes_on)


async def test_a_node_in_quarantine_tells_everybody(alone: Alone) -> None:
    tasks = [serve(alone, Taker(), alone.core.state.position.index) for _ in range(3)]
    await asyncio.sleep(0)
    alone.core.quarantine("its card is broken")
    for task in tasks:
        with pytest.raises(Quarantined):
            await task
    with pytest.raises(Quarantined):
        await serve(alone, Taker(), alone.core.state.position.index)


async def test_a_bug_in_reading_the_log_is_told_to_everybody(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    tasks = [serve(alone, Taker(), alone.core.state.position.index) for _ in range(3)]
    await asyncio.sleep(0)
    monkeypatch.setattr(alone.node.watches, "_effects_of", fail)
    await alone.node.write(put(), deadline_ns=None)
    for task in tasks:
        with pytest.raises(AssertionError):
            await task


async def test_only_so_many_are_served_and_the_one_who_reads_for_all_is_none_of_them(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "WATCHERS_MAX", 3)
    monkeypatch.setattr("appliance.node.watches.WATCHERS_MAX", 3)
    after = alone.core.state.position.index
    watchers = [Taker([False]) for _ in range(3)]
    tasks = [serve(alone, watcher, after) for watcher in watchers]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await serve(alone, Taker(), after)
    for _ in range(5):
        await alone.node.write(put(), deadline_ns=None)
    # All of them leave the end in one round, and each opens a watch of its own.
    await until(alone, *watchers)
    assert [watcher.waited for watcher in watchers] == [1, 1, 1]
    await leave(*tasks)


async def test_behind_the_end_or_before_what_is_kept_a_watch_is_refused_as_ever(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = serve(alone, Taker(), alone.core.state.position.index)
    await asyncio.sleep(0)
    with pytest.raises(IndexNotReached):
        await serve(alone, Taker(), alone.core.state.position.index + 1)
    monkeypatch.setattr(alone.node.watches, "earliest_index", lambda: alone.core.state.position.index)
    with pytest.raises(HistoryGone):
        await serve(alone, Taker(), 0)
    await leave(present)
