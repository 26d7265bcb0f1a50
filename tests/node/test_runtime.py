"""The node on a real loop: what threads bring back, what callers leave behind, how it ends. No ports, no sleeps."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from appliance.clock import system_clock
from appliance.consensus import ConsensusOptions, Engine
from appliance.errors import CorruptData, NoLeader, Overloaded, Quarantined
from appliance.limits import KIB, SCANS_MAX
from appliance.model import ClusterId, Member, MemberId
from appliance.node import runtime, scan, watches
from appliance.node.core import NodeCore
from appliance.node.identity import Self
from appliance.node.options import NodeOptions
from appliance.node.runtime import Node
from appliance.node.scan import RunningScan
from appliance.node.workers import ThreadWorkers
from appliance.state import Applied, QuerySpec, StateOptions
from appliance.state.membership import RemoveMember
from appliance.storage.memory import MemoryDisk, MemoryJournal, MemoryStore
from tests.node.harness import MILLISECOND_NS, put

ME = MemberId(1)


class Alone:
    """A cluster of one."""

    def __init__(self, disk: MemoryDisk | None = None, options: NodeOptions | None = None) -> None:
        self.fatal: list[BaseException] = []
        self.workers = ThreadWorkers(asyncio.get_running_loop(), self.fatal.append)
        disk = disk or MemoryDisk()
        self.core = NodeCore(
            Self(ME, "n1", ClusterId(5), (Member(ME, "n1", 1, "n1:1"),), 9, "test"),
            MemoryJournal(disk),
            MemoryStore(disk),
            workers=self.workers,
            send=lambda *_: False,
            wake=lambda: self.node.wake(),  # noqa: PLW0108 - there is no node yet
            clock=system_clock,
            rng=random.Random(1),
            options=options or NodeOptions(),
            consensus_options=ConsensusOptions(
                heartbeat_ns=MILLISECOND_NS,
                election_timeout_min_ns=5 * MILLISECOND_NS,
                election_timeout_max_ns=6 * MILLISECOND_NS,
            ),
            state_options=StateOptions(),
        )
        self.node = Node(self.core, self.workers, self.fatal.append)
        self.node.start()


@pytest.fixture
async def alone() -> AsyncIterator[Alone]:
    made = Alone()
    await made.node.write(put(), deadline_ns=None)
    yield made
    await made.node.stop(deadline_ns=system_clock.monotonic_ns())
    await made.node.close()


async def brought_back(workers: ThreadWorkers) -> None:
    """Everything given to the committer so far was done, and its callbacks ran."""
    done = asyncio.Event()
    workers.write("journal", lambda: None, lambda _: done.set())
    await done.wait()


def failing(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


async def left_while_computed(running: RunningScan[object], is_begun: threading.Event) -> asyncio.Task[None]:
    """The cancelled task of a caller who reads."""

    async def read() -> None:
        async for _ in running:
            pass

    reading = asyncio.create_task(read())
    await asyncio.get_running_loop().run_in_executor(None, is_begun.wait)
    reading.cancel()
    return reading


async def test_damage_found_in_a_thread_is_a_quarantine_and_not_the_end(alone: Alone) -> None:
    alone.workers.write("store", failing(CorruptData("store", "a wrong checksum")), lambda _: None)
    await brought_back(alone.workers)
    assert "a wrong checksum" in alone.core.quarantine_reason
    assert alone.fatal == []


async def test_a_bug_in_what_a_thread_brings_back_ends_the_node(alone: Alone) -> None:
    bug = AssertionError("a bug")
    alone.workers.write("store", lambda: None, lambda _: failing(bug)())
    await brought_back(alone.workers)
    assert alone.fatal == [bug]


async def test_damage_found_by_a_query_is_told_as_quarantine(alone: Alone) -> None:
    def chunks() -> Iterator[object]:
        yield from ()
        raise CorruptData("store blocks", "a wrong checksum")

    running = RunningScan(
        chunks(), alone.core.store.snapshot(), alone.workers, position=alone.node.state.position, at_once=8
    )
    with pytest.raises(Quarantined, match="a wrong checksum"):
        [batch async for batch in running]
    assert "a wrong checksum" in alone.core.quarantine_reason


async def test_a_caller_may_leave_while_its_query_is_computed(alone: Alone) -> None:
    is_begun, may_end, is_closed = threading.Event(), threading.Event(), threading.Event()

    def chunks() -> Iterator[object]:
        try:
            is_begun.set()
            may_end.wait(10)
            yield object()
        finally:
            is_closed.set()

    running = RunningScan(
        chunks(), alone.core.store.snapshot(), alone.workers, position=alone.node.state.position, at_once=8
    )

    await left_while_computed(running, is_begun)
    closing = asyncio.create_task(running.aclose())
    await asyncio.sleep(0)
    may_end.set()
    await closing
    assert is_closed.is_set()


async def test_who_leaves_a_query_has_its_thread_end_soon_and_takes_no_other(alone: Alone) -> None:
    is_begun, is_abandoned = threading.Event(), threading.Event()
    ends: list[str] = []

    def chunks() -> Iterator[object]:
        try:
            yield object()
            is_begun.set()
            is_abandoned.wait(10)
            yield object()
            ends.append("computed on")
        finally:
            ends.append("items")

    reader = alone.core.store.snapshot()
    close = reader.close
    reader.close = lambda: (close(), ends.append("reader"))[0]  # type: ignore[method-assign, func-returns-value]
    may_abandon: list[Callable[[], None]] = []
    running = RunningScan(
        chunks(),
        reader,
        alone.workers,
        position=alone.node.state.position,
        at_once=8,
        abandon=lambda: may_abandon.append(is_abandoned.set),
        on_close=lambda: ends.append("room"),
    )

    reading = await left_while_computed(running, is_begun)
    leaving = asyncio.create_task(running.aclose())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([reading, leaving])
    # The second of two threads is free, and the thread that computes has not ended yet.
    assert await asyncio.wait_for(alone.workers.in_pool(lambda: "an answer"), 5) == "an answer"
    assert ends == []
    may_abandon.pop()()
    await running.aclose()
    assert ends == ["items", "reader", "room"]
    assert not may_abandon


async def test_who_leaves_before_a_thread_is_free_has_nothing_computed(alone: Alone) -> None:
    may_end = threading.Event()
    others = [asyncio.create_task(alone.workers.in_pool(may_end.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    begun: list[int] = []
    reader = alone.core.store.snapshot()
    running = RunningScan(map(begun.append, [1]), reader, alone.workers, position=reader.position, at_once=8)
    reading = asyncio.ensure_future(anext(aiter(running)))
    await asyncio.sleep(0)
    reading.cancel()
    closing = asyncio.create_task(running.aclose())
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.gather(closing, *others)
    assert begun == []
    with pytest.raises(AssertionError):
        reader.get("meta", b"")


async def test_a_caller_who_leaves_before_its_checkpoint_ends_harms_nobody(alone: Alone) -> None:
    leaving = asyncio.create_task(alone.node.checkpoint())
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await alone.node.checkpoint()).index >= 2
    assert alone.fatal == []


async def test_a_stop_does_not_wait_for_a_checkpoint_without_end(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LAST_CHECKPOINT_S_MAX", 0)
    monkeypatch.setattr(alone.core.receiver, "_incoming", object())
    monkeypatch.setattr(alone.core.receiver, "cycle", lambda: None)
    await asyncio.wait_for(alone.node.stop(deadline_ns=system_clock.monotonic_ns()), 10)
    assert alone.core.quarantine_reason


async def test_a_query_says_the_index_that_it_shows_not_that_of_the_last_checkpoint(alone: Alone) -> None:
    await alone.node.checkpoint()
    await alone.node.write(put(), deadline_ns=None)
    result = await alone.node.query(QuerySpec("", ""))
    assert result.position == alone.node.state.position
    await result.aclose()


async def test_a_short_scan_takes_a_thread_once(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    hops = []
    real = alone.workers.in_pool

    async def counted(work: Callable[[], object]) -> object:
        hops.append(work)
        return await real(work)

    monkeypatch.setattr(alone.workers, "in_pool", counted)
    reader = alone.core.store.snapshot()
    running = RunningScan(iter("abc"), reader, alone.workers, position=reader.position, at_once=8)
    assert [batch async for batch in running] == [["a", "b", "c"]]
    await running.aclose()
    assert len(hops) == 1
    assert running.is_closed


async def test_a_batch_ends_with_the_item_that_reaches_its_bound(alone: Alone) -> None:
    reader = alone.core.store.snapshot()
    sizes = iter([3, 3, 3, 9, 1])
    running = RunningScan(
        sizes, reader, alone.workers, position=reader.position, at_once=8, size_of=lambda size: size
    )
    assert [batch async for batch in running] == [[3, 3, 3], [9], [1]]
    await running.aclose()


async def test_queries_that_nobody_takes_leave_the_nodes_own_work_its_readers(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "SCAN_WAIT_S", 0.01)
    for _ in range(2):
        stalled = [await alone.node.query(QuerySpec("", "")) for _ in range(SCANS_MAX)]
        with pytest.raises(Overloaded, match=f"{SCANS_MAX} queries .* ask another node"):
            await alone.node.query(QuerySpec("", ""))
        with pytest.raises(Overloaded):
            await alone.node.state_hash()
        for one in stalled:
            await one.aclose()
            await one.aclose()


async def test_a_query_waits_a_moment_for_another_to_end(alone: Alone) -> None:
    others = [await alone.node.query(QuerySpec("", "")) for _ in range(SCANS_MAX)]
    waiting = asyncio.create_task(alone.node.query(QuerySpec("", "")))
    await asyncio.sleep(0)
    assert not waiting.done()
    leaving = asyncio.create_task(alone.node.query(QuerySpec("", "")))
    await asyncio.sleep(0)
    leaving.cancel()
    for one in others:
        await one.aclose()
    await (await waiting).aclose()
    for one in [await alone.node.query(QuerySpec("", "")) for _ in range(SCANS_MAX)]:
        await one.aclose()


async def test_a_query_that_fails_as_it_begins_takes_no_room(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(alone.node.state, "begin_query", fail)
        for _ in range(SCANS_MAX + 1):
            with pytest.raises(AssertionError):
                await alone.node.query(QuerySpec("", ""))
    await (await alone.node.query(QuerySpec("", ""))).aclose()


async def test_who_watches_or_asks_a_node_in_quarantine_is_told(alone: Alone) -> None:
    watch = alone.node.watches.watch(None)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    alone.core.quarantine("its card is broken")
    with pytest.raises(Quarantined):
        await waiting
    with pytest.raises(Quarantined):
        await alone.node.query(QuerySpec("*", "*"))
    with pytest.raises(Quarantined):
        await alone.node.checkpoint()


async def test_who_stops_watching_leaves_nothing_behind(alone: Alone) -> None:
    for _ in range(5):
        waiting = asyncio.ensure_future(anext(alone.node.watches.watch(None)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert not alone.node.watches._waiting
    assert alone.node.watches.count == 0


async def test_decoded_entries_are_kept_by_size(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "WATCH_QUEUE_BYTES_MAX", 50 * KIB)
    watch = alone.node.watches.watch(alone.core.state.position.index)
    for _ in range(10):
        await alone.node.write(put(value=bytes(16 * KIB)), deadline_ns=None)
        applied = await anext(watch)
        assert applied.index == alone.core.state.position.index
    assert 0 < len(alone.node.watches._decoded) <= 3


async def test_of_two_backups_asked_for_at_one_moment_one_is_given(alone: Alone) -> None:
    """Both look before either of them waits for its checkpoint."""
    asked = [alone.node.backup(runtime.LOCAL, deadline_ns=None) for _ in range(2)]
    given = await asyncio.gather(*asked, return_exceptions=True)
    scans = [one for one in given if isinstance(one, RunningScan)]
    for one in scans:
        await one.aclose()
    assert len(scans) == 1
    assert [type(one) for one in given if one not in scans] == [Overloaded]
    # Whoever gets none, or leaves while it waits, keeps nobody else from one.
    leaving = asyncio.create_task(alone.node.backup(runtime.LOCAL, deadline_ns=None))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    await (await alone.node.backup(runtime.LOCAL, deadline_ns=None)).aclose()


async def test_nobody_waits_for_a_leader_that_is_not_heard(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = NoLeader("this node has heard no leader for 9.9 s")
    monkeypatch.setattr(Engine, "silence", lambda _: silence)
    for asked in (
        alone.node.change_members(RemoveMember(ME), deadline_ns=None),
        alone.node.transfer_leadership("", deadline_ns=None),
    ):
        with pytest.raises(NoLeader, match="has heard no leader"):
            await asked
    alone.core.quarantine("a wrong checksum")
    for asked in (
        alone.node.change_members(RemoveMember(ME), deadline_ns=None),
        alone.node.transfer_leadership("", deadline_ns=None),
    ):
        with pytest.raises(Quarantined, match="a wrong checksum"):
            await asked


async def test_upkeep_comes_behind_the_answer_that_its_cycle_brought(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    upkeep, applied = alone.core.upkeep, alone.core.writes.applied

    def watched_upkeep() -> None:
        order.append("upkeep")
        upkeep()

    def watched_applied(one: Applied) -> None:
        order.append("applied")
        applied(one)

    monkeypatch.setattr(alone.core, "upkeep", watched_upkeep)
    monkeypatch.setattr(alone.core.writes, "applied", watched_applied)
    told = asyncio.Event()

    def tell(_: object) -> None:
        order.append("told")
        told.set()

    alone.node.submit(put(), tell, deadline_ns=None)
    await told.wait()
    while order[-1] != "upkeep":
        await asyncio.sleep(0)
    place = order.index("applied")
    assert order[place : place + 3] == ["applied", "told", "upkeep"]
