"""What nodes show each other for a dashboard: only while somebody looks, bounded, never trusted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest

from appliance.consensus import EventLog
from appliance.errors import Overloaded
from appliance.model import MemberId
from appliance.node import observing as module
from appliance.node.observing import Observation, Observer, Observing
from raftberry.internal.v1 import peer_pb2
from tests.node.harness import FakeClock

PEER = MemberId(2)


class Links:
    def __init__(self) -> None:
        self.sent: list[tuple[MemberId, peer_pb2.Frame]] = []

    def send(self, member: MemberId, frame: peer_pb2.Frame) -> bool:
        self.sent.append((member, peer_pb2.Frame.FromString(frame.SerializeToString())))
        return True

    def frame(self) -> peer_pb2.Frame:
        return peer_pb2.Frame(from_member=1, term=3)

    def peers(self) -> Mapping[MemberId, str]:
        return {PEER: "node-2"}

    def kinds(self) -> list[str]:
        return [frame.WhichOneof("kind") or "" for _, frame in self.sent]


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "TICK_S", 0.001)
        self.clock, self.links = FakeClock(), Links()
        self.events = EventLog(self.clock.wall_ns)
        self.observing = Observing("node-1", lambda: {"term": 3}, self.events, self.clock, self.links)

    def observe_frame(self) -> None:
        frame = peer_pb2.Frame()
        frame.observe.SetInParent()
        self.observing.on_frame(PEER, frame)

    def observation_frame(self, **fields: object) -> None:
        frame = peer_pb2.Frame(observation=peer_pb2.Observation(**fields))  # type: ignore[arg-type]
        self.observing.on_frame(PEER, frame)

    async def until_sent(self, kind: str, count: int = 1) -> None:
        async with asyncio.timeout(60):
            while self.links.kinds().count(kind) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def first(observer: Observer) -> Observation:
    async with asyncio.timeout(60):
        async for observation in observer:
            return observation
    raise AssertionError("the observer ended")


async def test_nothing_runs_while_nobody_looks(world: World) -> None:
    world.events.record("committed", 3, 9)
    assert world.observing._task is None
    assert world.events.listeners == []
    assert world.links.sent == []


async def test_a_page_is_told_status_and_recent_events_at_once_and_asks_the_peers(world: World) -> None:
    world.events.record("granted_vote", 3, 9, PEER, reason="why")
    observation = await first(world.observing.observe())
    assert observation.status == {"term": 3}
    (event,) = observation.events
    assert (event["kind"], event["peer"], event["attributes"]) == (
        "granted_vote",
        "node-2",
        {"reason": "why"},
    )
    assert world.links.kinds() == ["observe"]
    world.observing.close()


async def test_a_peer_that_asked_is_told_and_its_lease_ends(world: World) -> None:
    world.observe_frame()
    await world.until_sent("observation")
    world.events.record("committed", 3, 10)
    await world.until_sent("observation", 2)
    world.clock.now_ns += module.LEASE_NS + 1
    assert world.observing._task is not None
    async with asyncio.timeout(60):
        await world.observing._task
    body = world.links.sent[0][1].observation
    assert json.loads(body.status) == {"term": 3}


async def test_what_a_peer_says_is_shown_under_its_own_name(world: World) -> None:
    observer = world.observing.observe()
    await first(observer)
    world.observation_frame(sent_unix_nano=5, status=b'{"name":"node-9"}', events=b'[{"kind":"committed"}]')
    observation = await first(observer)
    while observation.node == "node-1":
        observation = await first(observer)
    assert (observation.node, observation.sent_unix_nano) == ("node-2", 5)
    assert observation.events == [{"kind": "committed"}]
    world.observing.close()


@pytest.mark.parametrize("status", [b"{", b"[]", b"\xff", b"x" * (module.STATUS_BYTES_MAX + 1)])
async def test_what_a_peer_says_and_is_no_object_is_passed_over(world: World, status: bytes) -> None:
    observer = world.observing.observe()
    world.observation_frame(status=status)
    assert [observation.node for observation in observer._queue] == ["node-1"]
    world.observing.close()


async def test_an_observation_of_an_unknown_member_is_passed_over(world: World) -> None:
    observer = world.observing.observe()
    world.observing.on_frame(MemberId(77), peer_pb2.Frame(observation=peer_pb2.Observation(status=b"{}")))
    assert len(observer._queue) == 1
    world.observing.close()


async def test_a_slow_page_loses_the_oldest_and_is_told_how_many(world: World) -> None:
    observer = Observer(lambda _: None)
    for number in range(module.QUEUE_MAX + 3):
        observer.put(Observation("node-1", number, number))
    assert observer.missed_count == 3
    assert (await first(observer)).sent_unix_nano == 3


async def test_pages_are_bounded(world: World) -> None:
    for _ in range(module.OBSERVERS_MAX):
        world.observing.observe()
    with pytest.raises(Overloaded, match="32 pages follow this node already"):
        world.observing.observe()
    world.observing.close()


async def test_a_flood_of_events_is_folded_and_counted(world: World) -> None:
    for number in range(3_000):
        world.events.record("matched", 3, number, PEER)
        world.events.record("committed", 3, number)
    observation = world.observing._observation(world.events.since(0), None)
    folded = {event["kind"]: (event["index"], event["count"]) for event in observation.events}
    # 4,096 events are kept: half of each kind.
    assert folded == {"matched": (2_999, 2_048), "committed": (2_999, 2_048)}


async def test_an_election_stays_in_sight_however_much_was_replicated_since(world: World) -> None:
    world.events.record("became_leader", 3, 1)
    for number in range(2_000):
        world.events.record("committed", 3, number)
    first_event, *others = world.observing._recent()
    assert first_event.kind == "became_leader"
    assert len(others) == module.EVERYDAY_AT_FIRST


async def test_events_beyond_what_the_log_keeps_are_counted_as_missed(world: World) -> None:
    observer = world.observing.observe()
    world.observing.close()
    observer._queue.clear()
    for number in range(5_000):
        world.events.record("committed", 3, number)
    world.observing._tick(has_status=False)
    assert observer._queue[0].missed_count == 5_000 - 4_096
