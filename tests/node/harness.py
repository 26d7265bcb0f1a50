"""Real cores in one thread: frames, disks and time move only when a test says so.

Invariant: `settle` lets no time pass. Cycles run as on a real node: after a wake, and at `next_wake_ns`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pysyncobj.syncobj as syncobj

from appliance import features
from appliance.consensus import ConsensusOptions
from appliance.model import ClusterId, Member, MemberId
from appliance.node.core import NodeCore
from appliance.node.identity import Self
from appliance.node.options import NodeOptions
from appliance.state import StateOptions
from appliance.storage.memory import MemoryDisk, MemoryJournal, MemoryStore
from raftberry.internal.v1 import command_pb2, peer_pb2

Result = TypeVar("Result")

MILLISECOND_NS = 1_000_000


@dataclass
class FakeClock:
    now_ns: int = 1_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return 1_800_000_000_000_000_000 + self.now_ns


@dataclass
class ManualWorkers:
    """A committer that works only while it is not stalled."""

    is_stalled: bool = False
    jobs: deque[tuple[Callable[[], object], Callable[..., None]]] = field(default_factory=deque)

    def write(self, name: str, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        self.jobs.append((work, done))

    def read(self, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        self.jobs.append((work, done))

    def run(self) -> bool:
        has_run = False
        while self.jobs and not self.is_stalled:
            work, done = self.jobs.popleft()
            done(work())
            has_run = True
        return has_run


@dataclass
class Machine:
    core: NodeCore
    workers: ManualWorkers
    member: Member
    disk: MemoryDisk
    is_woken: bool = True
    wake_ns: int = 0
    cycle_count: int = 0


class Cluster:
    """refuses: frames for which `send` says that the lane is full."""

    def __init__(
        self, size: int = 3, options: NodeOptions | None = None, levels: Mapping[int, int] | None = None
    ) -> None:
        """levels: feature level that the software of a member (by number) knows, where it is another version's."""
        self._levels = dict(levels or {})
        self.clock = FakeClock()
        self.frames: deque[tuple[MemberId, MemberId, bytes]] = deque()
        self.sent: list[tuple[int, MemberId, MemberId, peer_pb2.Frame]] = []
        self.refuses: Callable[[MemberId, MemberId, peer_pb2.Frame], bool] = lambda *_: False
        self.loses: Callable[[MemberId, MemberId, peer_pb2.Frame], bool] = lambda *_: False
        self.links: set[frozenset[MemberId]] = set()
        members = tuple(
            Member(MemberId(number), f"n{number}", number, f"n{number}:1") for number in range(1, size + 1)
        )
        self._members = members
        self.machines = {
            member.member_id: self._machine(member, members, options or NodeOptions()) for member in members
        }

    def _machine(
        self,
        member: Member,
        members: tuple[Member, ...],
        options: NodeOptions,
        *,
        disk: MemoryDisk | None = None,
        address: str = "",
    ) -> Machine:
        workers, me = ManualWorkers(), member.member_id
        disk = MemoryDisk() if disk is None else disk

        def wake() -> None:
            self.machines[me].is_woken = True

        core = NodeCore(
            Self(me, member.name, ClusterId(5), members, 100 + me, "test", peer_address=address),
            MemoryJournal(disk),
            MemoryStore(disk),
            workers=workers,
            send=lambda to, frame, _bulk: self._send(me, to, frame),
            wake=wake,
            clock=self.clock,
            rng=random.Random(me),
            options=options,
            consensus_options=ConsensusOptions(),
            state_options=StateOptions(feature_level_max=self._levels.get(me, features.LEVEL)),
        )
        return Machine(core, workers, member, disk)

    # links -----------------------------------------------------------------------------------------------

    def _send(self, sender: MemberId, receiver: MemberId, frame: peer_pb2.Frame) -> bool:
        if frozenset((sender, receiver)) not in self.links or self.refuses(sender, receiver, frame):
            return False
        self.sent.append((self.clock.now_ns, sender, receiver, frame))
        if not self.loses(sender, receiver, frame):
            self.frames.append((sender, receiver, frame.SerializeToString()))
        return True

    def connect(self, *pairs: tuple[int, int]) -> None:
        for one, other in pairs or _all_pairs(len(self.machines)):
            pair = frozenset((MemberId(one), MemberId(other)))
            if pair not in self.links and self._meet(MemberId(one), MemberId(other)):
                self.links.add(pair)
                self.machines[MemberId(one)].core.on_up(MemberId(other))
                self.machines[MemberId(other)].core.on_up(MemberId(one))

    def _meet(self, one: MemberId, other: MemberId) -> bool:
        """Both say hello, and are welcome."""
        refusals = []
        for sender, receiver in ((one, other), (other, one)):
            hello = self.machines[sender].core.hello(receiver)
            refusals.append(self.machines[receiver].core.check_hello(hello))
        return refusals == [None, None]

    def restart(self, member: int, *, level: int = features.LEVEL, address: str = "") -> Machine:
        """The process ends and starts again, with software that knows this level. Its links are gone.

        address: where its options say that it is now.
        """
        number = MemberId(member)
        for other in self.machines:
            if other != number:
                self.disconnect(member, other)
        self._levels[member] = level
        old = self.machines[number]
        old.core.retire()
        self.machines[number] = self._machine(
            old.member, self._members, NodeOptions(), disk=old.disk.copy(), address=address
        )
        return self.machines[number]

    def disconnect(self, one: int, other: int) -> None:
        ends = {MemberId(one), MemberId(other)}
        self.links.discard(frozenset(ends))
        self.frames = deque(frame for frame in self.frames if {frame[0], frame[1]} != ends)
        self.machines[MemberId(one)].core.on_down(MemberId(other))
        self.machines[MemberId(other)].core.on_down(MemberId(one))

    # time ------------------------------------------------------------------------------------------------

    def settle(self, rounds_max: int = 10_000) -> None:
        """Everything that happens now."""
        for _ in range(rounds_max):
            if not self._turn():
                return
        raise AssertionError("it never comes to rest")

    def _turn(self) -> bool:
        is_busy = False
        for machine in self.machines.values():
            is_busy |= machine.workers.run()
            if machine.is_woken:
                self._cycle(machine)
                is_busy = True
        for _ in range(len(self.frames)):
            sender, receiver, data = self.frames.popleft()
            self.machines[receiver].core.on_frame(sender, peer_pb2.Frame.FromString(data))
            is_busy = True
        return is_busy

    def _cycle(self, machine: Machine) -> None:
        machine.is_woken = False
        machine.cycle_count += 1
        machine.core.cycle()
        machine.core.upkeep()
        machine.wake_ns = max(machine.core.next_wake_ns(), self.clock.now_ns + MILLISECOND_NS)

    def run_for(self, duration_ms: int) -> None:
        end_ns = self.clock.now_ns + duration_ms * MILLISECOND_NS
        self.settle()
        while (next_ns := min(machine.wake_ns for machine in self.machines.values())) < end_ns:
            self.clock.now_ns = max(self.clock.now_ns, next_ns)
            for machine in self.machines.values():
                machine.is_woken |= machine.wake_ns <= self.clock.now_ns
            self.settle()
        self.clock.now_ns = end_ns

    # roles -----------------------------------------------------------------------------------------------

    def elect(self, duration_ms: int = 5_000) -> Machine:
        """Connect everybody, and let time pass until there is a leader that has founded the cluster."""
        self.connect()
        self.run_for(duration_ms)
        return self.leader

    @property
    def leader(self) -> Machine:
        return next(machine for machine in self.machines.values() if machine.core.engine.is_leader)

    @property
    def followers(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if not machine.core.engine.is_leader]


@contextmanager
def cluster(
    size: int = 3, options: NodeOptions | None = None, levels: Mapping[int, int] | None = None
) -> Iterator[Cluster]:
    made = Cluster(size, options, levels)
    kept, syncobj.monotonicTime = syncobj.monotonicTime, lambda: made.clock.now_ns / 1e9
    try:
        yield made
    finally:
        syncobj.monotonicTime = kept


def put(key: str = "k", value: bytes = b"v") -> command_pb2.Operation:
    return command_pb2.Operation(put=command_pb2.PutKey(key=key, value=value))


def _all_pairs(size: int) -> list[tuple[int, int]]:
    return [(one, other) for one in range(1, size + 1) for other in range(one + 1, size + 1)]
