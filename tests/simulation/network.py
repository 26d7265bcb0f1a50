"""The links between machines, as appliance/peers makes them: one stream a lane and direction.

Invariant: a stream is FIFO; a link is up at an end while its own live stream and the peer's are both accepted; nothing
is delivered before up or after the stream ended. A cut cable holds what is under way, as TCP does, until it is mended
or a keepalive gives up; a process that dies is noticed at once where the cable is whole.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.simulation.schedule import MICROSECOND_NS, MILLISECOND_NS, SECOND_NS, Action, Schedule

LANE_BYTES_MAX = 64_000
HELLO_TIMEOUT_NS = 3 * SECOND_NS
LANES = ("live", "bulk")
REPEATED_MAX = 6


class Endpoint(Protocol):
    """A process, as the network sees it."""

    member: MemberId
    station: int
    """Where it is: its member id, unless it is a copy that peers have no address of."""

    @property
    def is_alive(self) -> bool: ...

    def call(self, action: Action) -> None: ...

    def hello(self, to_member: MemberId) -> bytes: ...

    def check_hello(self, data: bytes) -> peer_pb2.Refusal | None: ...

    def on_frame(self, member: MemberId, data: bytes) -> None: ...

    def on_up(self, member: MemberId) -> None: ...

    def on_down(self, member: MemberId) -> None: ...

    def on_refused(self, refusal: peer_pb2.Refusal) -> None: ...


@dataclass(slots=True, eq=False)
class Stream:
    """From one process to another. moving: (arrival, frame) in order."""

    source: End
    target: End
    lane: str
    moving: deque[tuple[int, bytes]] = field(default_factory=deque)
    held: list[bytes] = field(default_factory=list)
    bytes: int = 0
    last_arrival_ns: int = 0
    is_accepted: bool = False
    is_broken: bool = False
    is_pumping: bool = False


@dataclass(slots=True, eq=False)
class End:
    """What a process knows of its link to one peer."""

    process: Endpoint
    peer: MemberId
    address: str
    dialled: dict[str, Stream] = field(default_factory=dict)
    claimed: dict[str, Stream] = field(default_factory=dict)
    is_up: bool = False
    recent: deque[tuple[Endpoint, bytes]] = field(default_factory=lambda: deque(maxlen=REPEATED_MAX))
    """What came last on the live lane, and from which process."""

    backoff_ns: int = 50 * MILLISECOND_NS


class Network:
    def __init__(self, schedule: Schedule, rng: random.Random) -> None:
        self._schedule, self._rng = schedule, rng
        self._ends: dict[tuple[int, MemberId], End] = {}
        self._processes: dict[int, Endpoint] = {}
        self._addresses: dict[int, str] = {}
        self._blocked: dict[tuple[MemberId, MemberId], int] = {}
        self._slow_until: dict[tuple[int, MemberId], int] = {}
        self.delay_ns_max = 5 * MILLISECOND_NS
        self.spike_rate = self.repeat_rate = 0.0
        """repeat_rate: how often a link that comes up again brings what the old one had brought last."""

        self.counts: Counter[str] = Counter()

    # processes -------------------------------------------------------------------------------------------

    def join(self, process: Endpoint, address: str, peers: Mapping[MemberId, str]) -> None:
        """A process started at address: it dials its peers where it believes them to be, and they dial it."""
        self._processes[process.station], self._addresses[process.station] = process, address
        self.set_peers(process, peers)

    def set_peers(self, process: Endpoint, peers: Mapping[MemberId, str]) -> None:
        """Links with exactly these from now on; one whose address is another is dialled anew."""
        for key in [key for key in self._ends if key[0] == process.station]:
            if peers.get(key[1]) != self._ends[key].address:
                self._drop(self._ends.pop(key), is_told=True)
        for peer, address in peers.items():
            if (process.station, peer) not in self._ends:
                end = self._ends[process.station, peer] = End(process, peer, address)
                for lane in LANES:
                    self._dial_later(end, lane, self._rng.randint(0, 20) * MILLISECOND_NS)

    def leave(self, process: Endpoint) -> None:
        """The process died: its kernel resets every connection."""
        self._processes.pop(process.station, None)
        for key in [key for key in self._ends if key[0] == process.station]:
            self._drop(self._ends.pop(key), is_told=False)

    def _drop(self, end: End, *, is_told: bool) -> None:
        if is_told and end.is_up:
            end.is_up = False
            self.counts["down"] += 1
            end.process.on_down(end.peer)
        streams = [*end.dialled.values(), *end.claimed.values()]
        if is_told:
            end.dialled.clear()
            end.claimed.clear()
        for stream in streams:
            self.break_stream(stream)

    # faults ----------------------------------------------------------------------------------------------

    def block(self, source: MemberId, target: MemberId) -> None:
        """Nothing passes from source to target until `unblock`."""
        if (source, target) in self._blocked:
            return
        since = self._blocked[source, target] = self._schedule.now_ns
        patience_ns = self._rng.randint(2 * SECOND_NS, 6 * SECOND_NS)

        def keepalive() -> None:
            if self._blocked.get((source, target)) == since:
                self.break_link(source, target)

        self._schedule.after(patience_ns, keepalive)

    def unblock_all(self) -> None:
        for pair in list(self._blocked):
            self.unblock(*pair)
        self._slow_until.clear()

    def unblock(self, source: MemberId, target: MemberId) -> None:
        self._blocked.pop((source, target), None)
        for stream in self._streams(source, target):
            self._pump_at(stream, self._schedule.now_ns + self._delay_ns())

    def slow(self, source: MemberId, target: MemberId, duration_ns: int) -> None:
        """Head-of-line stall: what is sent from now on waits until then."""
        self._slow_until[source, target] = self._schedule.now_ns + duration_ns

    def break_link(self, one: MemberId, other: MemberId) -> None:
        """Both lanes, both directions."""
        for stream in self._streams(one, other) + self._streams(other, one):
            self.break_stream(stream)

    def break_lane(self, source: MemberId, target: MemberId, lane: str) -> None:
        for stream in self._streams(source, target):
            if stream.lane == lane:
                self.break_stream(stream)

    def break_stream(self, stream: Stream) -> None:
        """Some of what is under way still arrives; each end notices in its own time."""
        if stream.is_broken:
            return
        stream.is_broken = True
        arriving = self._rng.randint(0, len(stream.moving))
        while len(stream.moving) > arriving:
            stream.moving.pop()
        for end, other, notice in (
            (stream.source, stream.target, self._lost_at_source),
            (stream.target, stream.source, self._lost_at_target),
        ):
            delay_ns = self._delay_ns()
            if self._is_blocked(other.process.member, end.process.member):
                delay_ns += self._rng.randint(0, 3 * SECOND_NS)
            self._schedule.after(delay_ns, partial(end.process.call, partial(notice, stream)))

    # sending ---------------------------------------------------------------------------------------------

    def send(self, source: int, target: MemberId, data: bytes, lane: str) -> bool:
        end = self._ends.get((source, target))
        stream = end.dialled.get(lane) if end is not None and end.is_up else None
        if stream is None or not stream.is_accepted or stream.bytes + len(data) > LANE_BYTES_MAX:
            return False
        if stream.is_broken:
            return True
        arrival = self._schedule.now_ns + self._delay_ns()
        arrival = max(arrival, stream.last_arrival_ns + 1, self._slow_until.get((source, target), 0))
        stream.last_arrival_ns = arrival
        stream.moving.append((arrival, data))
        stream.bytes += len(data)
        self._pump_at(stream, arrival)
        return True

    def _pump_at(self, stream: Stream, when_ns: int) -> None:
        if stream.is_pumping or not stream.moving:
            return
        stream.is_pumping = True
        self._schedule.at(max(when_ns, stream.moving[0][0]), lambda: self._pump(stream))

    def _pump(self, stream: Stream) -> None:
        """Deliver what has arrived."""
        stream.is_pumping = False
        target, source = stream.target, stream.source.process.member
        if self._is_blocked(source, target.process.member):
            return
        while stream.moving and stream.moving[0][0] <= self._schedule.now_ns:
            data = stream.moving.popleft()[1]
            stream.bytes -= len(data)
            self.counts["delivered"] += 1
            target.process.call(partial(self._receive, stream, data))
        self._pump_at(stream, self._schedule.now_ns)

    def _receive(self, stream: Stream, data: bytes) -> None:
        end = stream.target
        if end.claimed.get(stream.lane) is not stream:
            return
        if stream.lane == "live":
            end.recent.append((stream.source.process, data))
        if end.is_up and not stream.held:
            end.process.on_frame(end.peer, data)
        else:
            stream.held.append(data)

    # links -----------------------------------------------------------------------------------------------

    def _dial_later(self, end: End, lane: str, delay_ns: int) -> None:
        self._schedule.after(delay_ns, lambda: end.process.call(lambda: self._dial(end, lane)))

    def _dial(self, end: End, lane: str) -> None:
        member = end.process.member
        if self._ends.get((end.process.station, end.peer)) is not end or lane in end.dialled:
            return
        target = self._ends.get((end.peer, member))
        is_cut = self._is_blocked(member, end.peer) or self._is_blocked(end.peer, member)
        process = self._processes.get(end.peer)
        is_there = process is not None and self._addresses[end.peer] == end.address
        if not is_there or is_cut or (lane == "bulk" and "live" not in end.dialled):
            self._dial_again(end, lane)
            return
        if target is None:
            assert process is not None
            self._knock(end, lane, process)
            return
        stream = end.dialled[lane] = Stream(end, target, lane)
        hello = end.process.hello(end.peer)
        self._schedule.after(
            3 * self._delay_ns(), lambda: target.process.call(lambda: self._accept(stream, hello))
        )
        self._schedule.after(
            HELLO_TIMEOUT_NS, lambda: None if stream.is_accepted else self.break_stream(stream)
        )

    def _knock(self, end: End, lane: str, process: Endpoint) -> None:
        """At a process that has no link with the dialler: it may learn of a member here, and dial back."""
        hello = end.process.hello(end.peer)
        is_answered = False

        def answered(refusal: peer_pb2.Refusal | None) -> None:
            nonlocal is_answered
            if is_answered or self._ends.get((end.process.station, end.peer)) is not end:
                return
            is_answered = True
            self._dial_again(end, lane)
            if refusal is not None and lane == "live":
                self.counts["refused"] += 1
                end.process.on_refused(refusal)

        def judge() -> None:
            refusal = process.check_hello(hello)
            self._schedule.after(self._delay_ns(), lambda: end.process.call(lambda: answered(refusal)))

        self._schedule.after(3 * self._delay_ns(), lambda: process.call(judge))
        self._schedule.after(HELLO_TIMEOUT_NS, lambda: end.process.call(lambda: answered(None)))

    def _dial_again(self, end: End, lane: str) -> None:
        end.backoff_ns = min(2 * end.backoff_ns, SECOND_NS)
        self._dial_later(end, lane, int(end.backoff_ns * self._rng.uniform(0.5, 1.0)))

    def _accept(self, stream: Stream, hello: bytes) -> None:
        """At the target: the verdict, and the newest stream of a lane replaces the older."""
        end = stream.target
        if stream.is_broken:
            return
        refusal = end.process.check_hello(hello)
        if self._ends.get((end.process.station, end.peer)) is not end:
            self.break_stream(stream)  # the hello changed the links: the next one finds the new one
            return
        if refusal is None:
            older = end.claimed.get(stream.lane)
            if older is not None:
                self._lost_at_target(older)
                self.break_stream(older)
            end.claimed[stream.lane] = stream
            if stream.lane == "live":
                self._update(end)
        answered = partial(self._answered, stream, refusal)
        self._schedule.after(self._delay_ns(), partial(stream.source.process.call, answered))

    def _answered(self, stream: Stream, refusal: peer_pb2.Refusal | None) -> None:
        end = stream.source
        if end.dialled.get(stream.lane) is not stream:
            return
        if refusal is not None:
            self.counts["refused"] += 1
            del end.dialled[stream.lane]
            self._dial_again(end, stream.lane)
            end.process.on_refused(refusal)
            return
        stream.is_accepted = True
        end.backoff_ns = 50 * MILLISECOND_NS
        self._update(end)

    def _update(self, end: End) -> None:
        stream = end.dialled.get("live")
        if end.is_up or stream is None or not stream.is_accepted or "live" not in end.claimed:
            return
        end.is_up = True
        self.counts["up"] += 1
        end.process.on_up(end.peer)
        self._repeat(end)
        for claimed in list(end.claimed.values()):
            held, claimed.held = claimed.held, []
            for data in held:
                end.process.on_frame(end.peer, data)

    def _repeat(self, end: End) -> None:
        """Delivered again after a reconnect, in order: by whoever sends what it has no answer to."""
        if self.repeat_rate == 0.0 or self._rng.random() >= self.repeat_rate:
            return
        sender = end.claimed["live"].source.process
        for _, data in [item for item in end.recent if item[0] is sender]:
            self.counts["repeated"] += 1
            end.process.on_frame(end.peer, data)

    def _lost_at_source(self, stream: Stream) -> None:
        end = stream.source
        if end.dialled.get(stream.lane) is stream:
            del end.dialled[stream.lane]
            self._lost(end, stream)
            self._dial_again(end, stream.lane)

    def _lost_at_target(self, stream: Stream) -> None:
        end = stream.target
        if end.claimed.get(stream.lane) is stream:
            del end.claimed[stream.lane]
            self._lost(end, stream)

    def _lost(self, end: End, stream: Stream) -> None:
        if end.is_up and stream.lane == "live":
            end.is_up = False
            self.counts["down"] += 1
            end.process.on_down(end.peer)

    # helpers ---------------------------------------------------------------------------------------------

    def _streams(self, source: int, target: MemberId) -> list[Stream]:
        end = self._ends.get((source, target))
        return list(end.dialled.values()) if end else []

    def _is_blocked(self, source: MemberId, target: MemberId) -> bool:
        return (source, target) in self._blocked

    def _delay_ns(self) -> int:
        delay_ns = self._rng.randint(50 * MICROSECOND_NS, self.delay_ns_max)
        if self.spike_rate and self._rng.random() < self.spike_rate:
            self.counts["spike"] += 1
            delay_ns += self._rng.randint(10 * MILLISECOND_NS, 2 * SECOND_NS)
        return delay_ns
