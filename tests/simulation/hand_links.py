"""Links that a script holds in its hands: every frame lies in a queue that can be held, let go or lost.

Invariant: a lane between two processes is FIFO, as a stream is; a cut loses what is under way, and both ends notice.
Nothing here draws from a random source, so that a script means the same for ever.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.simulation.network import Endpoint
from tests.simulation.schedule import MILLISECOND_NS, Schedule

Way = tuple[MemberId, MemberId]
"""(source, target)."""


@dataclass(slots=True)
class _Lane:
    frames: deque[bytes] = field(default_factory=deque)
    bytes: int = 0


class HandLinks:
    """In place of Network: what World and Process ask of it, and what a script does to it."""

    def __init__(self, schedule: Schedule, on_join: Callable[[Endpoint], None]) -> None:
        self._schedule, self._on_join = schedule, on_join
        self._processes: dict[MemberId, Endpoint] = {}
        self._cut: set[frozenset[MemberId]] = set()
        self._up: set[frozenset[MemberId]] = set()
        self._lanes: defaultdict[tuple[Way, str], _Lane] = defaultdict(_Lane)
        self._held: set[Way] = set()
        self.delivered: defaultdict[Way, list[bytes]] = defaultdict(list)
        self.bytes_max: Counter[tuple[Way, str]] = Counter()
        """The most that ever was under way on a lane."""

        self.lane_bytes_max = 1 << 30
        self.delay_ns = MILLISECOND_NS
        self.counts: Counter[str] = Counter()

    # what the world asks ---------------------------------------------------------------------------------

    def join(self, process: Endpoint, address: str, peers: Mapping[MemberId, str]) -> None:
        self._processes[process.member] = process
        self._on_join(process)
        for peer in peers:
            self._connect_later(process.member, peer)

    def set_peers(self, process: Endpoint, peers: Mapping[MemberId, str]) -> None:
        """Links stay as the script has them."""

    def leave(self, process: Endpoint) -> None:
        self._processes.pop(process.member, None)
        for pair in sorted(pair for pair in map(sorted, self._up) if process.member in pair):
            self._disconnect(*pair)

    def send(self, source: MemberId, target: MemberId, data: bytes, lane: str) -> bool:
        queue = self._lanes[(source, target), lane]
        if frozenset((source, target)) not in self._up or queue.bytes + len(data) > self.lane_bytes_max:
            return False
        queue.frames.append(data)
        queue.bytes += len(data)
        self.bytes_max[(source, target), lane] = max(queue.bytes, self.bytes_max[(source, target), lane])
        self._schedule.after(self.delay_ns, partial(self._flow, (source, target), lane))
        return True

    # what a script does ----------------------------------------------------------------------------------

    def hold(self, source: MemberId, target: MemberId) -> None:
        """Frames pile up."""
        self._held.add((source, target))

    def release(self, source: MemberId, target: MemberId) -> None:
        """What piled up arrives, in order."""
        self._held.discard((source, target))
        for lane in ("live", "bulk"):
            while self._deliver((source, target), lane):
                pass

    def deliver(self, source: MemberId, target: MemberId, count: int, lane: str = "live") -> None:
        """Some of what is held."""
        for _ in range(count):
            assert self._deliver((source, target), lane), "nothing is under way"

    def under_way(self, source: MemberId, target: MemberId, lane: str) -> list[peer_pb2.Frame]:
        return [peer_pb2.Frame.FromString(data) for data in self._lanes[(source, target), lane].frames]

    def replace(self, source: MemberId, target: MemberId, lane: str, data: bytes) -> None:
        """The next frame arrives as another one."""
        queue = self._lanes[(source, target), lane]
        queue.bytes += len(data) - len(queue.frames[0])
        queue.frames[0] = data

    def cut(self, one: MemberId, other: MemberId) -> None:
        self._cut.add(frozenset((one, other)))
        if frozenset((one, other)) in self._up:
            self._disconnect(one, other)

    def connect(self, one: MemberId, other: MemberId) -> None:
        self._cut.discard(frozenset((one, other)))
        self._connect_later(one, other)

    def repeat(self, source: MemberId, target: MemberId, kind: str, first: int, count: int = 1) -> None:
        """Frames of a kind that arrived come again; first counts from the oldest, or, below 0, from the latest."""
        frames = self.delivered[source, target]
        found = [data for data in frames if peer_pb2.Frame.FromString(data).WhichOneof("kind") == kind]
        chosen = found[first:][:count]
        assert chosen, f"no {kind} came"
        for data in chosen:
            self.inject(source, target, data)

    def inject(self, source: MemberId, target: MemberId, data: bytes) -> None:
        """A frame that nobody sent now: a stranger's, or one that comes a second time."""
        process = self._processes[target]
        process.call(partial(process.on_frame, source, data))

    # links -----------------------------------------------------------------------------------------------

    def _connect_later(self, one: MemberId, other: MemberId) -> None:
        self._schedule.after(self.delay_ns, partial(self._connect, one, other))

    def _connect(self, one: MemberId, other: MemberId) -> None:
        pair = frozenset((one, other))
        ends = [self._processes.get(member) for member in (one, other)]
        if pair in self._up or pair in self._cut or None in ends:
            return
        first, second = (end for end in ends if end is not None)
        for asker, judge in ((first, second), (second, first)):
            refusal = judge.check_hello(asker.hello(judge.member))
            if refusal is not None:
                asker.call(partial(asker.on_refused, refusal))
                return
        self._up.add(pair)
        first.call(partial(first.on_up, second.member))
        second.call(partial(second.on_up, first.member))

    def _disconnect(self, one: MemberId, other: MemberId) -> None:
        self._up.discard(frozenset((one, other)))
        for way in ((one, other), (other, one)):
            self._held.discard(way)
            for lane in ("live", "bulk"):
                self._lanes.pop((way, lane), None)
        for member, peer in ((one, other), (other, one)):
            process = self._processes.get(member)
            if process is not None:
                process.call(partial(process.on_down, peer))

    # frames ----------------------------------------------------------------------------------------------

    def _flow(self, way: Way, lane: str) -> None:
        if way not in self._held:
            self._deliver(way, lane)

    def _deliver(self, way: Way, lane: str) -> bool:
        queue, process = self._lanes[way, lane], self._processes.get(way[1])
        if not queue.frames or process is None:
            return False
        data = queue.frames.popleft()
        queue.bytes -= len(data)
        self.delivered[way].append(data)
        self.counts["delivered"] += 1
        process.call(partial(process.on_frame, way[0], data))
        return True
