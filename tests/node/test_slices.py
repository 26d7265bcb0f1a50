"""No turn of the loop looks at more than a slice of the series, however many there are. Counted, not timed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from appliance.api import convert, key_value
from appliance.api.key_value import KeyValueService
from appliance.api.slices import ITEMS_PER_MESSAGE
from appliance.clock import system_clock
from appliance.limits import APPLY_BYTES_MAX, KIB
from appliance.node import retention, watches
from appliance.node.access import Everyone
from appliance.node.clocks import SECOND_NS
from appliance.node.options import DROP_OLDEST, NodeOptions
from appliance.node.scan import capture
from appliance.node.turns import LONG_TURN_NS, PERIOD_NS, Turns
from appliance.state import KeyRecord, QuerySpec, StateMachine
from appliance.state.moment import ITEMS_PER_TURN
from appliance.state.oldest import Oldest
from appliance.state.operations import delete_key, delete_series, encode_columns, write_readings
from appliance.state.retention import Policy, set_policy
from appliance.state.series import Series
from appliance.state.series_table import SeriesTable
from raftberry.internal.v1 import command_pb2
from raftberry.v1 import key_value_pb2
from tests.node.harness import cluster, put
from tests.node.test_runtime import Alone
from tests.node.test_watches import end
from tests.state.fakes import Cluster

SERIES = 4 * ITEMS_PER_TURN + 5
OPTIONS = NodeOptions(retention_interval_ns=SECOND_NS)


def write_all(count: int = SERIES, time: int = 1) -> command_pb2.Operation:
    return write_readings(
        encode_columns(f"s{number:04}", "m", np.array([time]), np.array([1.5]), integer=False)
        for number in range(count)
    )


@contextmanager
def counted(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch, turn: Callable[[], int]
) -> Iterator[Counter[int]]:
    """Calls of a method, by turn."""
    calls: Counter[int] = Counter()
    real = getattr(owner, name)

    def counting(*arguments: object, **named: object) -> object:
        calls[turn()] += 1
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, counting)
        yield calls


class LoopTurns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._next()

    def _next(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def close(self) -> None:
        self._handle.cancel()


async def test_reads_of_many_series_take_a_slice_a_turn_and_show_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, turns = Alone(), LoopTurns()
    await alone.node.write(write_all(), deadline_ns=None)
    state = alone.node.state
    with counted(Series, "view", monkeypatch, lambda: turns.count) as views:
        running = asyncio.create_task(alone.node.query(QuerySpec("s*", "*")))
        latest = state.begin_latest("*", "")
        assert not latest.capture_some()
        await alone.node.write(write_all(SERIES + 3, time=2), deadline_ns=None)
        await alone.node.write(delete_series("*7", "*"), deadline_ns=None)
        result = await running
        found = [chunk async for chunks in result for chunk in chunks]
        await result.aclose()
    assert [chunk.sensor for chunk in found] == [f"s{number:04}" for number in range(SERIES)]
    assert {chunk.times.tolist()[0] for chunk in found} == {1}
    assert sum(views.values()) == SERIES
    await capture(latest)
    assert [one.time for one in latest.results()] == [1] * SERIES
    turns.close()
    await end(alone)


@pytest.mark.parametrize("limit", [0, 3])
async def test_keys_are_looked_for_and_sent_a_slice_a_turn_and_show_one_moment(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, turns = Cluster(), LoopTurns()
    names = [f"k{number:04}" for number in range(SERIES)]
    held.apply(*(put(name, b"1") for name in names))
    looks: Counter[int] = Counter()
    made: Counter[int] = Counter()
    make = convert.key_value_message

    class Reader(Everyone):
        def check_keys_read(self) -> Callable[[str], bool]:
            return self.may_read

        def may_read(self, key: str) -> bool:
            looks[turns.count] += 1
            return key >= names[ITEMS_PER_TURN + 9]

    async def barrier(*_: object, **__: object) -> None: ...

    def counting(record: KeyRecord) -> key_value_pb2.KeyValue:
        made[turns.count] += 1
        return make(record)

    monkeypatch.setattr(key_value, "present_caller", Reader)
    monkeypatch.setattr(convert, "key_value_message", counting)
    service: Any = KeyValueService(cast(Any, SimpleNamespace(state=held.state, read_barrier=barrier)))
    request = key_value_pb2.ListRequest(limit=limit)
    responses = []

    async def read() -> None:
        async for response in service.List(request, SimpleNamespace(time_remaining=lambda: None)):
            responses.append(response)
            await asyncio.sleep(0)

    position = held.state.position
    reading = asyncio.create_task(read())
    while not looks:
        await asyncio.sleep(0)
    held.apply(put(names[-1], b"2"), put("k9999", b"2"), delete_key(names[-2]), put(names[140], b"2"))
    await reading
    found = [(one.key, one.value) for response in responses for one in response.key_values]
    assert found == [(name, b"1") for name in names[ITEMS_PER_TURN + 9 :][: limit or SERIES]]
    assert {(response.index, response.term) for response in responses} == {(position.index, position.term)}
    assert max(looks.values()) <= ITEMS_PER_TURN
    assert sum(looks.values()) == (2 * ITEMS_PER_TURN if limit else SERIES)
    assert max(made.values()) <= ITEMS_PER_MESSAGE + 1
    turns.close()


def test_the_memory_of_deleted_series_is_given_up_a_slice_a_turn() -> None:
    with cluster(size=1) as made:
        leader = made.elect()
        leader.core.submit(write_all(), made.clock.now_ns + 10**10, lambda _: None)
        made.run_for(50)
        state = leader.core.state
        table: SeriesTable = state._tables.series
        state.apply(state.position.index + 1, state.position.term, _entry(delete_series("s*", "*")))
        assert (state.series_count, state.reading_count, len(table._gone)) == (0, 0, SERIES)
        leader.core.upkeep()
        assert len(table._gone) == SERIES - ITEMS_PER_TURN
        assert leader.is_woken
        made.run_for(50)
        assert not table._gone


async def test_a_query_that_nobody_waits_for_any_more_lets_go_of_its_moment() -> None:
    alone = Alone()
    await alone.node.write(write_all(), deadline_ns=None)
    running = asyncio.create_task(alone.node.query(QuerySpec("*", "*")))
    await asyncio.sleep(0)
    table: SeriesTable = alone.node.state._tables.series
    assert table.moments._open
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not table.moments._open
    await end(alone)


@pytest.mark.parametrize("what", ["view", "replace_captured"])
def test_a_checkpoint_of_many_heads_captures_and_releases_a_slice_a_turn(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.limits.BLOCK_READINGS_MAX", 1)
    with cluster(size=1) as made:
        leader = made.elect()
        leader.core.submit(write_all(), made.clock.now_ns + 10**10, lambda _: None)
        made.run_for(50)
        told: list[object] = []
        with counted(Series, what, monkeypatch, lambda: leader.cycle_count) as calls:
            leader.core.checkpoint(told.append)
            made.run_for(50)
        assert told == [leader.core.state.position]
        assert sum(calls.values()) == SERIES
        assert max(calls.values()) <= ITEMS_PER_TURN


def test_a_checkpoint_holds_what_was_there_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(size=1) as made:
        leader = made.elect()
        core = leader.core
        core.submit(write_all(), made.clock.now_ns + 10**10, lambda _: None)
        made.run_for(50)
        expected, position = core.state.hash(core.store.snapshot()), core.state.position
        leader.workers.is_stalled = True
        core.checkpoint(lambda _: None)
        core.upkeep()
        leader.workers.is_stalled = False
        core.state.apply(position.index + 1, position.term, _entry(write_all(SERIES, time=2)))
        for _ in range(SERIES // ITEMS_PER_TURN + 2):
            core.upkeep()
        leader.workers.run()
        with core.store.snapshot() as reader:
            restored = StateMachine.restore(reader)
        assert restored.position == position
        assert restored.hash(core.store.snapshot()) == expected


def _entry(operation: command_pb2.Operation) -> bytes:
    return command_pb2.Command(format=1, operations=[operation]).SerializeToString()


@pytest.mark.parametrize("by", ["age", "size"])
def test_retention_drops_a_few_series_an_entry(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = NodeOptions(retention_interval_ns=SECOND_NS, when_full=DROP_OLDEST)
    with cluster(size=1, options=OPTIONS if by == "age" else quota) as made:
        leader = made.elect()
        now = made.clock.wall_ns()
        for time in (now - 100 * 3_600 * SECOND_NS, now):
            leader.core.submit(write_all(100, time=time), made.clock.now_ns + 10**10, lambda _: None)
            made.run_for(50)
        drops: list[int] = []
        real = retention.drop_readings

        def dropping(names: list[tuple[str, str, int]]) -> command_pb2.Operation:
            drops.append(len(names))
            return real(names)

        monkeypatch.setattr(retention, "drop_readings", dropping)
        if by == "age":
            policy = set_policy(Policy("*", "*", 3_600 * SECOND_NS))
            leader.core.submit(policy, made.clock.now_ns + 10**10, lambda _: None)
        else:
            keeper = leader.core.housekeeping.retention
            keeper._drop(Oldest(now, [(f"s{number:04}", "m", now) for number in range(100)], 0, 1, 0))
        made.run_for(5_000)
        assert sum(drops) == 100
        assert max(drops) <= retention.DROPS_PER_ENTRY
        firsts = {series.first_time for series in leader.core.state.series("", "")}
        assert min(firsts) > now - 2 * 3_600 * SECOND_NS  # type: ignore[type-var, operator]


def test_a_tick_applies_a_bounded_number_of_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster() as made:
        leader = made.elect()
        behind = made.followers[0]
        pair = leader.core.me.member_id, behind.core.me.member_id
        made.disconnect(*pair)
        for number in range(40):
            leader.core.submit(put(f"k{number}", bytes(4 * KIB)), made.clock.now_ns + 10**10, lambda _: None)
            made.run_for(20)
        made.connect()
        with counted(StateMachine, "apply", monkeypatch, lambda: behind.cycle_count) as applied:
            made.run_for(500)
        assert behind.core.state.position == leader.core.state.position
        assert 1 < max(applied.values()) <= 2 * APPLY_BYTES_MAX // (4 * KIB)


async def test_watchers_are_woken_some_a_turn_and_none_is_forgotten() -> None:
    alone, turns = Alone(), LoopTurns()
    await alone.node.write(put(), deadline_ns=None)
    after = alone.core.state.position.index
    first_seen: Counter[int] = Counter()

    async def follow() -> list[int]:
        found, watch = [], alone.node.watches.watch(after)
        for _ in range(3):
            found.append((await anext(watch)).index)
            first_seen[turns.count] += len(found) == 1
        await watch.aclose()  # type: ignore[attr-defined]
        return found

    tasks = [asyncio.create_task(follow()) for _ in range(10 * watches.WAKES_PER_TURN)]
    await asyncio.sleep(0)
    for _ in range(3):
        await alone.node.write(put(), deadline_ns=None)
    expected = [after + 1, after + 2, after + 3]
    assert await asyncio.gather(*tasks) == [expected] * len(tasks)
    assert sum(first_seen.values()) == len(tasks)
    assert max(first_seen.values()) <= watches.WAKES_PER_TURN
    turns.close()
    await end(alone)


def test_long_turns_are_counted_and_the_longest_is_forgotten_after_two_minutes() -> None:
    now = 0
    turns = Turns(lambda: now)
    turns.observe("cycle", LONG_TURN_NS)
    turns.observe("lag", LONG_TURN_NS + 1)
    assert turns.long_counts == {"lag": 1}
    now += PERIOD_NS
    assert turns.longest_ns() == {"cycle": LONG_TURN_NS, "result": 0, "lag": LONG_TURN_NS + 1}
    now += PERIOD_NS
    assert turns.longest_ns() == {"cycle": 0, "result": 0, "lag": 0}
    assert turns.long_counts == {"lag": 1}


async def test_the_lag_of_the_loop_is_seen() -> None:
    turns = Turns(system_clock.monotonic_ns)
    task = asyncio.create_task(turns.sample_lag())
    await asyncio.sleep(0)
    began = system_clock.monotonic_ns()
    while system_clock.monotonic_ns() < began + 200_000_000:
        pass
    while not turns.long_counts["lag"]:
        await asyncio.sleep(0.01)
    task.cancel()
