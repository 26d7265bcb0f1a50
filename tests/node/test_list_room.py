"""What reads of many series hold at once is bounded, however they end; a series that is named needs no room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.api import convert
from appliance.api.reading import ReadingService
from appliance.errors import Overloaded, Quarantined
from appliance.node import runtime, scan
from appliance.node.scan import ScanRoom
from appliance.state import QuerySpec
from appliance.state.moment import ITEMS_PER_TURN
from raftberry.v1 import reading_pb2
from tests.node.test_runtime import Alone
from tests.node.test_slices import SERIES, write_all
from tests.node.test_watches import end

CONTEXT: Any = SimpleNamespace(time_remaining=lambda: 10.0)
METHODS = ("GetLatest", "ListSeries")
REQUESTS = {"GetLatest": reading_pb2.GetLatestRequest, "ListSeries": reading_pb2.ListSeriesRequest}

Open = Callable[..., Any]


class Reads:
    """Reads of one method, as the client port begins them."""

    def __init__(self, alone: Alone, method: str) -> None:
        self.alone = alone
        self.begin: Callable[[Any, Any], Any] = getattr(ReadingService(alone.node), method)
        self.request = REQUESTS[method]

    def open(self, sensor: str = "") -> Any:
        return self.begin(self.request(sensor=sensor, metric="m" if sensor else ""), CONTEXT)

    async def count(self, sensor: str = "") -> int:
        """Of the messages."""
        return len([message async for message in self.open(sensor)])

    @property
    def free(self) -> int:
        return self.alone.node._list_room._free


@pytest.fixture(params=METHODS)
async def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reads]:
    """With room for two of all series."""
    monkeypatch.setattr(runtime, "LISTED_SERIES_MAX", 2 * SERIES)
    monkeypatch.setattr(scan, "SCAN_WAIT_S", 0.01)
    alone = Alone()
    await alone.node.write(write_all(), deadline_ns=None)
    made = Reads(alone, request.param)
    yield made
    assert made.free == 2 * SERIES
    assert not alone.node.state._tables.series.moments._open
    await end(alone)


async def test_one_read_of_all_series_too_many_is_refused_and_those_of_few_are_not(reads: Reads) -> None:
    held = [reads.open() for _ in range(2)]
    for read in held:
        await anext(read)
    with pytest.raises(Overloaded, match=f"lists of {2 * SERIES} series .* ask another node"):
        await anext(reads.open())
    assert await reads.count("s0007") == 1
    await held.pop().aclose()
    assert await reads.count() == SERIES // ITEMS_PER_TURN + 1
    await held.pop().aclose()


async def test_queries_share_the_room_of_lists(reads: Reads) -> None:
    node = reads.alone.node
    held = [await node.query(QuerySpec("*", "*")) for _ in range(2)]
    assert reads.free == 0
    with pytest.raises(Overloaded, match="lists of"):
        await node.query(QuerySpec("*", "*"))
    named = await node.query(QuerySpec("s0007", "m"))
    assert [len(batch) async for batch in named] == [1]
    for one in held:
        await one.aclose()


async def test_of_the_room_to_look_only_that_for_what_was_found_is_kept(reads: Reads) -> None:
    held = [reads.open("s000*") for _ in range(30)]
    for read in held:
        await anext(read)
    assert reads.free == 2 * SERIES - 300
    for read in held:
        await read.aclose()


async def test_who_leaves_while_series_are_captured_or_room_is_waited_for_gives_it_back(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "SCAN_WAIT_S", 10)
    tasks = [asyncio.ensure_future(anext(reads.open())) for _ in range(4)]
    while reads.free:
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_a_read_that_fails_gives_its_room_back(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError("a bug")

    for name in ("latest_columns", "series_message"):
        monkeypatch.setattr(convert, name, fail)
    for _ in range(3):
        with pytest.raises(AssertionError):
            await anext(reads.open())


async def test_who_waited_for_room_on_a_node_in_quarantine_is_told(reads: Reads) -> None:
    reads.alone.core.quarantine("its card is broken")
    with pytest.raises(Quarantined):
        await reads.alone.node.room_to_list("*", "m")


async def test_few_series_never_wait(reads: Reads) -> None:
    room = reads.alone.node.room_to_list
    with await room("*", "m"), await room("", ""), await room("s0007", "m"):
        assert reads.free == 0


async def test_who_came_first_is_given_room_first() -> None:
    room = ScanRoom(10, "others are running")
    first = await room.take(6)
    given: list[int] = []

    async def take(count: int) -> None:
        with await room.take(count):
            given.append(count)

    tasks = [asyncio.create_task(take(count)) for count in (8, 1)]
    await asyncio.sleep(0)
    first.keep(9)
    first.keep(3)
    await asyncio.sleep(0)
    assert given == []
    first.give_back()
    first.give_back()
    await asyncio.gather(*tasks)
    assert given == [8, 1]
    assert room._free == 10
