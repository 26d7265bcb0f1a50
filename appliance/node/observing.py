"""What every node of the cluster shows of itself, gathered on the node whose dashboard somebody looks at.

A node tells its observers its status once a second and its consensus events ten times a second. Observers are the
pages that are open here, and peers: one with an open page sends Observe every two seconds, for LEASE_NS each.
Invariant: while nobody looks, nothing runs, nothing is sent and consensus pays nothing: events are taken from what
the EventLog keeps anyway. A slow observer loses the oldest and is told how much; it holds nobody back. Loop thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from appliance.clock import Clock
from appliance.consensus import ConsensusEvent, EventLog
from appliance.errors import Overloaded
from appliance.model import MemberId, hex_id
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
STATUS_TICKS: Final = 10
RENEW_TICKS: Final = 20
LEASE_NS: Final = 6_000_000_000
"""Three renewals: one may be late, one lost."""

EVENTS_PER_TICK_MAX: Final = 48
"""More are folded together: a busy leader records thousands of acknowledgements a second."""

EVENTS_AT_FIRST: Final = 200
EVERYDAY_AT_FIRST: Final = 60
"""What happened before somebody looked."""

EVERYDAY: Final = frozenset({"appended", "matched", "committed"})

OBSERVERS_MAX: Final = 32
QUEUE_MAX: Final = 512
"""Observations that wait for one page: some ten seconds of five nodes."""

STATUS_BYTES_MAX: Final = 256 * 1024
"""A larger status or batch of events from a peer is not shown."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one node said at one moment. received_unix_nano - sent_unix_nano estimates how far its clock is off."""

    node: str
    sent_unix_nano: int
    received_unix_nano: int
    status: Mapping[str, Any] | None = None
    events: Sequence[Mapping[str, Any]] = ()
    missed_count: int = 0


class ObservingLinks(Protocol):
    """The way to the peers."""

    def send(self, member: MemberId, frame: peer_pb2.Frame) -> bool: ...

    def frame(self) -> peer_pb2.Frame: ...

    def peers(self) -> Mapping[MemberId, str]:
        """Every other member with its name."""


class Observer:
    """One open page. Iterate it; aclose() when the page is gone."""

    def __init__(self, leave: Callable[[Observer], None]) -> None:
        self._leave = leave
        self._queue: deque[Observation] = deque()
        self._arrived = asyncio.Event()
        self._is_closed = False
        self.missed_count = 0

    def put(self, observation: Observation) -> None:
        if len(self._queue) >= QUEUE_MAX:
            self._queue.popleft()
            self.missed_count += 1
        self._queue.append(observation)
        self._arrived.set()

    def close(self) -> None:
        """The iteration ends."""
        self._is_closed = True
        self._arrived.set()

    async def aclose(self) -> None:
        self._leave(self)

    async def __aiter__(self) -> AsyncIterator[Observation]:
        while not self._is_closed:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                yield self._queue.popleft()


class Observing:
    """describe: this node's status as JSON takes it. links None: this node has no peers now."""

    def __init__(
        self,
        name: str,
        describe: Callable[[], Mapping[str, Any]],
        events: EventLog,
        clock: Clock,
        links: ObservingLinks | None = None,
    ) -> None:
        self._name, self._describe, self._events, self._clock, self._links = (
            name,
            describe,
            events,
            clock,
            links,
        )
        self._observers: set[Observer] = set()
        self._leases_ns: dict[MemberId, int] = {}
        self._seen_count = 0
        self._is_fresh: set[MemberId] = set()
        self._task: asyncio.Task[None] | None = None

    # observers here ----------------------------------------------------------------------------------------

    def observe(self) -> Observer:
        """Raises Overloaded when too many pages are open."""
        if len(self._observers) >= OBSERVERS_MAX:
            raise Overloaded(
                f"{OBSERVERS_MAX} pages follow this node already; close one, or look at another node's"
            )
        observer = Observer(self._observers.discard)
        self._observers.add(observer)
        observer.put(self._observation(self._recent(), self._describe()))
        self._ask_peers()
        self._run()
        return observer

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for observer in list(self._observers):
            observer.close()

    # peers -------------------------------------------------------------------------------------------------

    def on_frame(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if frame.WhichOneof("kind") == "observe":
            self._on_observe(member)
        elif self._observers:
            observation = self._read(member, frame.observation)
            if observation is not None:
                self._tell(observation)

    def _on_observe(self, member: MemberId) -> None:
        now_ns = self._clock.monotonic_ns()
        if self._leases_ns.get(member, 0) < now_ns:
            self._is_fresh.add(member)
        self._leases_ns[member] = now_ns + LEASE_NS
        self._run()

    def _read(self, member: MemberId, message: peer_pb2.Observation) -> Observation | None:
        """None: not what we understand; a neighbouring version may send other things."""
        assert self._links is not None
        name = self._links.peers().get(member)
        if name is None or max(len(message.status), len(message.events)) > STATUS_BYTES_MAX:
            return None
        try:
            status = json.loads(message.status) if message.status else None
            events = json.loads(message.events) if message.events else []
        except ValueError:
            return None
        if not isinstance(status, dict | None) or not isinstance(events, list):
            return None
        return Observation(
            name, message.sent_unix_nano, self._clock.wall_ns(), status, events, message.missed_count
        )

    def _ask_peers(self) -> None:
        if self._links is None:
            return
        frame = self._links.frame()
        frame.observe.SetInParent()
        for member in self._links.peers():
            self._links.send(member, frame)

    # telling -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._task is None or self._task.done():
            self._seen_count = self._events.count
            self._task = asyncio.create_task(self._tick_while_watched(), name="observing")

    async def _tick_while_watched(self) -> None:
        ticks = 0
        while self._forget_leases() or self._observers:
            if self._observers and ticks % RENEW_TICKS == 0:
                self._ask_peers()
            self._tick(has_status=ticks % STATUS_TICKS == 0)
            ticks += 1
            await asyncio.sleep(TICK_S)

    def _forget_leases(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        self._leases_ns = {member: until for member, until in self._leases_ns.items() if until >= now_ns}
        return bool(self._leases_ns)

    def _tick(self, *, has_status: bool) -> None:
        kept = self._events.since(self._seen_count)
        missed_count = self._events.count - self._seen_count - len(kept)
        self._seen_count = self._events.count
        if kept or has_status:
            observation = self._observation(kept, self._describe() if has_status else None)
            observation = replace(observation, missed_count=missed_count)
            self._tell(observation)
            self._send(observation, [member for member in self._leases_ns if member not in self._is_fresh])
        if self._is_fresh:
            fresh, self._is_fresh = self._is_fresh, set()
            self._send(self._observation(self._recent(), self._describe()), fresh)

    def _tell(self, observation: Observation) -> None:
        for observer in self._observers:
            observer.put(observation)

    def _send(self, observation: Observation, members: Iterable[MemberId]) -> None:
        if self._links is None or not (members := list(members)):
            return
        frame = self._links.frame()
        body = frame.observation
        body.sent_unix_nano, body.missed_count = observation.sent_unix_nano, observation.missed_count
        if observation.status is not None:
            body.status = json.dumps(observation.status).encode()
        if observation.events:
            body.events = json.dumps(observation.events).encode()
        for member in members:
            self._links.send(member, frame)

    def _recent(self) -> list[ConsensusEvent]:
        """The latest events, and what was not everyday among those before: an election stays in sight."""
        kept = self._events.since(0)
        older, latest = kept[:-EVERYDAY_AT_FIRST], kept[-EVERYDAY_AT_FIRST:]
        rare = [event for event in older if event.kind not in EVERYDAY]
        return [*rare[EVERYDAY_AT_FIRST - EVENTS_AT_FIRST :], *latest]

    def _observation(self, events: Sequence[ConsensusEvent], status: Mapping[str, Any] | None) -> Observation:
        now_ns = self._clock.wall_ns()
        names = {} if self._links is None else self._links.peers()
        shown = [_event_object(event, names) for event in events]
        if len(shown) > max(EVENTS_PER_TICK_MAX, EVENTS_AT_FIRST if status else 0):
            shown = _folded(shown)
        return Observation(self._name, now_ns, now_ns, status, shown)


def _event_object(event: ConsensusEvent, names: Mapping[MemberId, str]) -> dict[str, Any]:
    """One event for the page. Times are milliseconds, with a fraction: JavaScript has no 64-bit integers."""
    found: dict[str, Any] = {
        "number": event.number,
        "kind": event.kind,
        "term": event.term,
        "index": event.index,
        "time_ms": event.wall_ns / 1e6,
    }
    if event.peer is not None:
        found["peer"] = names.get(event.peer, hex_id(event.peer))
    if event.attributes:
        found["attributes"] = dict(event.attributes)
    return found


def _folded(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of each kind and peer, the last, with how many it stands for; in order of time."""
    folded: dict[tuple[str, str, str], dict[str, Any]] = {}
    for event in events:
        reason = str(event.get("attributes", {}).get("reason", ""))
        key = (event["kind"], event.get("peer", ""), reason)
        count = folded.pop(key)["count"] + 1 if key in folded else 1
        folded[key] = {**event, "count": count}
    return list(folded.values())[-EVENTS_PER_TICK_MAX:]
