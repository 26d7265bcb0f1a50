"""Watches: a thousand of them, slow ones among them, after a restart, and behind what was trimmed."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from appliance.clock import system_clock
from appliance.errors import ConditionFailed, HistoryGone, IndexNotReached, NoLeader
from appliance.limits import KIB
from appliance.model import Entry
from appliance.node import log_sizes, watches
from appliance.node.barriers import BarrierDone
from appliance.node.options import NodeOptions
from appliance.node.watches import AppliedEffects
from appliance.storage.memory import MemoryDisk
from raftberry.internal.v1 import command_pb2
from tests.node.harness import put
from tests.node.test_runtime import Alone

WATCHERS = 1_000
SLOW = 200
STALLED = 50
ENTRIES = 25
VALUE_BYTES = 16 * KIB
BOUND_BYTES = 100 * KIB


async def end(alone: Alone) -> None:
    await alone.node.stop(deadline_ns=system_clock.monotonic_ns())
    await alone.node.close()


async def take(watch: AsyncIterator[AppliedEffects], count: int) -> list[int]:
    return [(await anext(watch)).index for _ in range(count)]


async def write(alone: Alone, count: int) -> list[int]:
    """The indexes of the entries."""
    return [
        (await alone.node.write(put(value=os.urandom(VALUE_BYTES)), deadline_ns=None)).index
        for _ in range(count)
    ]


async def test_a_thousand_watchers_see_everything_and_the_slow_ones_hold_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watches, "WATCH_QUEUE_BYTES_MAX", BOUND_BYTES)
    alone = Alone()
    await alone.node.write(put(), deadline_ns=None)
    after = alone.core.state.position.index
    open_watches = [alone.node.watches.watch(after) for _ in range(WATCHERS)]
    fast = [asyncio.create_task(take(watch, ENTRIES)) for watch in open_watches[SLOW:]]
    await asyncio.sleep(0)
    indexes = await write(alone, ENTRIES)
    assert await asyncio.gather(*fast) == [indexes] * (WATCHERS - SLOW)
    found = alone.node.watches
    assert found._decoded_bytes <= BOUND_BYTES
    assert len(found._decoded) < ENTRIES / 2
    assert not found._waiting
    caught_up = await asyncio.gather(*(take(watch, ENTRIES) for watch in open_watches[:SLOW]))
    assert caught_up == [indexes] * SLOW
    assert found._decoded_bytes <= BOUND_BYTES
    await end(alone)


async def test_a_watcher_who_wants_nothing_of_it_goes_through_the_log_in_many_turns() -> None:
    """Nothing else would run meanwhile: it sends nothing, and what is in memory needs no thread."""
    alone = Alone()
    await alone.node.write(put(), deadline_ns=None)
    after = alone.core.state.position.index
    indexes = await write(alone, ENTRIES)
    assert alone.core.log.is_hot(after + 1)
    turns, is_over = 0, asyncio.Event()

    async def count_turns() -> None:
        nonlocal turns
        while not is_over.is_set():
            turns += 1
            await asyncio.sleep(0)

    watch = alone.node.watches.watch(after)
    other = asyncio.create_task(count_turns())
    assert await take(watch, ENTRIES) == indexes
    is_over.set()
    await other
    await watch.aclose()
    assert turns >= ENTRIES * VALUE_BYTES // watches.HOT_BYTES_PER_TURN
    await end(alone)


def let_entries_leave_memory(alone: Alone) -> None:
    """The journal in memory gives the entries themselves; one on a card gives copies."""
    log = alone.core.log
    read = log._cold_read

    def read_copies(first: int, count_max: int, bytes_max: int) -> list[Entry]:
        return [(bytes(bytearray(entry[0])), *entry[1:]) for entry in read(first, count_max, bytes_max)]

    log._cold_read = read_copies
    log.evict(alone.core.state.position.index, 0)
    assert not log.is_hot(alone.core.state.position.index)


@pytest.mark.parametrize("value_bytes", [10, VALUE_BYTES])
async def test_a_watcher_whose_client_takes_nothing_holds_a_few_kib(value_bytes: int) -> None:
    alone = Alone()
    first = (await alone.node.write(put(), deadline_ns=None)).index
    for _ in range(100):
        await alone.node.write(put(value=os.urandom(value_bytes)), deadline_ns=None)
    await alone.node.checkpoint()
    let_entries_leave_memory(alone)
    stalled = [alone.node.watches.watch(first - 1) for _ in range(STALLED)]
    tracemalloc.start()
    assert await asyncio.gather(*(take(watch, 1) for watch in stalled)) == [[first]] * STALLED
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < STALLED * 10 * KIB
    assert await take(stalled[0], 100) == list(range(first + 1, first + 101))
    await end(alone)


async def test_a_watch_resumes_after_a_restart() -> None:
    disk = MemoryDisk()
    before = Alone(disk)
    await before.node.write(put(), deadline_ns=None)
    after = before.core.state.position.index
    indexes = await write(before, 5)
    await end(before)
    again = Alone(disk)
    assert await take(again.node.watches.watch(after), 5) == indexes
    await end(again)


async def test_behind_what_was_trimmed_a_watch_is_told_the_earliest_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_sizes, "MARK_BYTES", KIB)
    alone = Alone(options=NodeOptions(watch_keep_bytes=40 * KIB))
    indexes = await write(alone, 6)
    await alone.node.checkpoint()
    indexes += await write(alone, 1)
    earliest = alone.node.watches.earliest_index()
    assert earliest > indexes[0]
    with pytest.raises(
        HistoryGone, match=f"earliest index to resume behind is {earliest}: query what was missed"
    ):
        await anext(alone.node.watches.watch(earliest - 1))
    kept = [index for index in indexes if index > earliest]
    assert await take(alone.node.watches.watch(earliest), len(kept)) == kept
    await end(alone)


@pytest.mark.parametrize("is_cold", [False, True])
async def test_a_watch_that_the_trim_overtakes_hears_that_and_nothing_false(
    monkeypatch: pytest.MonkeyPatch, is_cold: bool
) -> None:
    """What took effect of an entry is forgotten with the entry, also where a watcher has read it already."""
    monkeypatch.setattr(log_sizes, "MARK_BYTES", KIB)
    monkeypatch.setattr(watches, "WATCH_QUEUE_BYTES_MAX", 20 * KIB)
    alone = Alone(options=NodeOptions(watch_keep_bytes=40 * KIB))
    first = (await alone.node.write(put(), deadline_ns=None)).index
    refused = command_pb2.Operation(put=command_pb2.PutKey(key="k", value=b"refused", if_mod_revision=999))
    with pytest.raises(ConditionFailed):
        await alone.node.write(refused, deadline_ns=None)
    await write(alone, 2)
    if is_cold:
        alone.core.log.evict(alone.core.state.position.index, 0)
    slow = alone.node.watches.watch(first - 1)
    assert await take(slow, 1) == [first]
    for _ in range(2):
        await write(alone, 6)
        await alone.node.checkpoint()
    await write(alone, 1)
    assert alone.node.watches.earliest_index() > first + 1
    with pytest.raises(HistoryGone, match=f"behind index {first} was trimmed"):
        await anext(slow)
    await end(alone)


async def test_behind_an_index_that_the_log_has_not_reached_a_watch_is_told_the_last_one() -> None:
    """The cluster was restored from a backup, say: what comes at these indexes is not what the client saw."""
    alone = Alone()
    last = (await write(alone, 2))[-1]
    with pytest.raises(IndexNotReached, match=f"ends at index {last}: .* query what is wanted") as caught:
        await anext(alone.node.watches.watch(last + 1))
    assert caught.value.last_index == last
    at_end = alone.node.watches.watch(last)
    assert await asyncio.gather(take(at_end, 1), write(alone, 1)) == [[last + 1]] * 2
    assert alone.node.watches.count == 1
    await end(alone)


async def test_a_node_that_lags_asks_the_cluster_before_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Alone()
    last = (await write(alone, 1))[-1]
    asked: list[BarrierDone] = []
    monkeypatch.setattr(alone.core, "read_barrier", lambda _, done: asked.append(done))
    watching = asyncio.create_task(take(alone.node.watches.watch(last + 2), 1))
    without_leader = asyncio.create_task(take(alone.node.watches.watch(last + 2), 1))
    await asyncio.sleep(0)
    asked[1](NoLeader("no majority"))
    with pytest.raises(NoLeader):
        await without_leader
    await write(alone, 2)
    asked[0](None)
    await asyncio.sleep(0)
    assert await write(alone, 1) == [last + 3] == await watching
    await end(alone)
