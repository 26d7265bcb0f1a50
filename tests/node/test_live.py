"""Watchers who are served: at the end of the log together, behind it alone, and from the one to the other and back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

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
    """Takes every entry; whether it can take another at once, `can_take` says from its end."""

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
        self._is_full = False


class Lagging(Taker):
    """What it has taken is on its way for a while."""

    async def ready(self) -> None:
        await asyncio.sleep(0.001)
        await super().ready()


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


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


async def settled() -> None:
    """Who was started has come to where it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


@contextmanager
def unheard(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is applied meanwhile is heard of when it ends: in one burst."""
    watches = alone.node.watches
    with monkeypatch.context() as held:
        held.setattr(watches, "_wake_all", lambda: None)
        yield
    watches._wake_all()


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


class Slow(Taker):
    """Each entry takes a little more than a third of a turn's time."""

    def __init__(self, now: list[int], turns: LoopTurns, seen: Counter[int]) -> None:
        super().__init__()
        self._now, self._turns, self._seen = now, turns, seen

    def take(self, applied: AppliedEffects) -> bool:
        self._now[0] += live.TURN_NS // 3 + 1
        self._seen[self._turns.count] += 1
        return super().take(applied)


@pytest.mark.parametrize("watcher_count", [1, 2, 30])
@pytest.mark.parametrize("is_behind", [False, True])
async def test_entries_are_taken_for_a_time_and_then_the_loop_has_its_turn(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, watcher_count: int, is_behind: bool
) -> None:
    """By many watchers, and many entries by few of them."""
    now, turns, seen = [0], LoopTurns(), Counter[int]()
    monkeypatch.setattr(live, "monotonic_ns", lambda: now[0])
    watchers = [Slow(now, turns, seen) for _ in range(watcher_count)]
    after, tasks = alone.core.state.position.index, list[asyncio.Task[None]]()

    def begin() -> None:
        tasks.extend(serve(alone, watcher, after) for watcher in watchers)

    if not is_behind:
        begin()
    await settled()
    with unheard(alone, monkeypatch):
        for _ in range(10):
            await alone.node.write(put(), deadline_ns=None)
    if is_behind:
        begin()
    await until(alone, *watchers)
    assert sum(seen.values()) == 10 * watcher_count
    # Of those who go on alone each takes one in a turn, whatever the others took.
    assert max(seen.values()) <= (watcher_count + 2 if is_behind else 3)
    turns.close()
    await leave(*tasks)


async def test_after_an_idle_time_an_entry_goes_round_at_once(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, turns = [0], LoopTurns()
    monkeypatch.setattr(live, "monotonic_ns", lambda: now[0])
    seen = [Counter[int](), Counter[int]()]
    for entry in seen:
        watchers = [Slow(now, turns, entry) for _ in range(3)]
        tasks = [serve(alone, watcher, alone.core.state.position.index) for watcher in watchers]
        await settled()
        await alone.node.write(put(), deadline_ns=None)
        await until(alone, *watchers)
        await leave(*tasks)
        now[0] += 100 * live.TURN_NS
    assert [list(entry.values()) for entry in seen] == [[3], [3]]
    turns.close()


async def test_who_cannot_take_another_at_once_goes_on_alone_and_comes_back(alone: Alone) -> None:
    after, is_ready = alone.core.state.position.index, asyncio.Event()

    class Waiting(Taker):
        async def ready(self) -> None:
            await is_ready.wait()
            await super().ready()

    quick, slow = Taker(), Waiting([True, False, False])
    tasks = [serve(alone, watcher, after) for watcher in (quick, slow)]
    for _ in range(3):
        await alone.node.write(put(), deadline_ns=None)
    await until(alone, quick)
    assert slow.taken == [after + 1]
    is_ready.set()
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
            taker = rng.choice((Taker, Lagging))([rng.random() < 0.7 for _ in range(rng.randrange(60))])
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


async def test_whoever_is_ahead_of_what_goes_round_takes_nothing_twice(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = alone.core.state.position.index
    first, ahead = Taker(), Taker()
    tasks = [serve(alone, first, after)]
    await settled()
    with unheard(alone, monkeypatch):
        for _ in range(3):
            await alone.node.write(put(), deadline_ns=None)
        tasks.append(serve(alone, ahead, after + 2))
        await settled()
        assert alone.node.watches.count == 1
    await until(alone, first, ahead)
    assert first.taken == [after + 1, after + 2, after + 3]
    assert ahead.taken == [after + 3]
    await leave(*tasks)


async def test_who_is_full_takes_no_more_of_a_burst(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    after = alone.core.state.position.index
    full, quick = Taker([False]), Taker()
    tasks = [serve(alone, watcher, after) for watcher in (quick, full)]
    await settled()
    with unheard(alone, monkeypatch):
        for _ in range(3):
            await alone.node.write(put(), deadline_ns=None)
    await until(alone, full, quick)
    assert full.taken == quick.taken == [after + 1, after + 2, after + 3]
    await leave(*tasks)


async def test_those_who_are_left_behind_go_on_from_their_own_index(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log behind the one who reads for all was trimmed; one is behind as well, one ahead, one comes now."""
    after = alone.core.state.position.index
    behind, ahead, late = Taker(), Taker(), Taker()
    told = serve(alone, behind, after)
    await settled()
    with unheard(alone, monkeypatch):
        for _ in range(3):
            await alone.node.write(put(), deadline_ns=None)
        tasks = [serve(alone, ahead, after + 3)]
        await settled()
        monkeypatch.setattr(alone.node.watches, "earliest_index", lambda: after + 3)
    with pytest.raises(HistoryGone):
        await told
    tasks.append(serve(alone, late, after + 3))
    await settled()
    await alone.node.write(put(), deadline_ns=None)
    await until(alone, ahead, late)
    assert ahead.taken == late.taken == [after + 4]
    await leave(*tasks)


async def test_whoever_comes_while_others_are_left_behind_is_served(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "DISMISSED_PER_TURN", 1)
    after = alone.core.state.position.index
    told = [serve(alone, Taker(), after) for _ in range(10)]
    await settled()
    with monkeypatch.context() as broken:
        broken.setattr(alone.node.watches, "_effects_of", raising(AssertionError("a bug")))
        await alone.node.write(put(), deadline_ns=None)
        await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
    assert not all(task.done() for task in told)
    late = Taker()
    task = serve(alone, late, after + 1)
    await asyncio.wait(told)
    assert all(isinstance(one.exception(), AssertionError) for one in told)
    await alone.node.write(put(), deadline_ns=None)
    await until(alone, late)
    assert late.taken == [after + 2]
    await leave(task)


async def test_a_full_one_is_left_behind_as_any_other(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    after = alone.core.state.position.index
    full = Taker([False])
    told, goes_on, told_too = (serve(alone, watcher, after) for watcher in (Taker(), full, Taker()))
    await settled()
    with unheard(alone, monkeypatch):
        for _ in range(2):
            await alone.node.write(put(), deadline_ns=None)
        effects, decoded = alone.node.watches._effects_of, list[int]()

        def fail_once(*arguments: Any) -> Any:
            decoded.append(1)
            if len(decoded) == 2:
                raise AssertionError("a bug")
            return effects(*arguments)

        monkeypatch.setattr(alone.node.watches, "_effects_of", fail_once)
    for task in (told, told_too):
        with pytest.raises(AssertionError):
            await task
    await until(alone, full)
    assert full.taken == [after + 1, after + 2]
    await leave(goes_on)


async def test_who_reads_for_all_is_in_nobody_s_context(alone: Alone) -> None:
    identity, seen = ContextVar("identity", default=""), list[str]()

    class Asking(Taker):
        def take(self, applied: AppliedEffects) -> bool:
            seen.append(identity.get())
            return super().take(applied)

    identity.set("the first")
    watchers = [Asking(), Asking()]
    tasks = [serve(alone, watcher, alone.core.state.position.index) for watcher in watchers]
    await settled()
    await alone.node.write(put(), deadline_ns=None)
    await until(alone, *watchers)
    assert seen == ["", ""]
    await leave(*tasks)


async def test_a_reading_that_is_cancelled_leaves_nobody_waiting(alone: Alone) -> None:
    """While it waits for an entry. Nobody does so but the last to leave; a gap would follow."""
    after = alone.core.state.position.index
    watcher = Taker()
    task = serve(alone, watcher, after)
    await settled()
    handing = alone.node.live_watches._handing
    assert handing is not None
    handing.cancel()
    for _ in range(3):
        await alone.node.write(put(), deadline_ns=None)
    await until(alone, watcher)
    assert watcher.taken == [after + 1, after + 2, after + 3]
    await leave(task)


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
    tasks = [serve(alone, Taker(), alone.core.state.position.index) for _ in range(3)]
    await settled()
    monkeypatch.setattr(alone.node.watches, "_effects_of", raising(AssertionError("a bug")))
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
