"""A machine and the process on it: the production NodeCore with simulated workers, links and clocks.

Invariant: every entry into the core goes through `Process.call`, one at a time, with this machine's clock as
PySyncObj's; after each the checkers look. What a paused process misses, it finds in order when it goes on.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.consensus import ConsensusOptions
from appliance.consensus.events import ConsensusEvent
from appliance.errors import CorruptData, StorageFailed
from appliance.model import ClusterId, Configuration, Member, MemberId
from appliance.node.core import NodeCore
from appliance.node.identity import Self
from appliance.node.options import NodeOptions
from appliance.state import Applied, StateOptions
from appliance.storage.memory import MemoryDisk
from raftberry.internal.v1 import peer_pb2
from tests.simulation.disk import DiskSpeed, SimWorkers
from tests.simulation.lmdb_disk import LmdbDisk, open_disk
from tests.simulation.schedule import MICROSECOND_NS, MILLISECOND_NS, Action, MachineClock, Schedule

WAKE_US_MAX = (40, 300, 2_000)
UPKEEP_AFTER_NS = 20 * MICROSECOND_NS
"""Behind a cycle: what comes meanwhile is in between."""


class Watcher(Protocol):
    """The world, as a process sees it: told of everything, asked for the way out."""

    def started(self, process: Process) -> None: ...

    def peers_changed(self, process: Process, peers: Sequence[Member]) -> None: ...

    def stepped(self, process: Process) -> None: ...

    def sending(self, process: Process, member: MemberId, frame: peer_pb2.Frame, *, is_bulk: bool) -> bool:
        """The way out; called before the frame leaves."""

    def applied(self, process: Process, applied: Applied) -> None: ...

    def traced(self, machine: Machine, line: str) -> None: ...

    def passing_job(self, process: Process, name: str, phase: str) -> None: ...

    def crashing(self, process: Process, phase: str) -> None:
        """phase: of its commits (SimWorkers.phase)."""

    def died(self, process: Process) -> None: ...

    def ended_by_itself(self, process: Process) -> None:
        """Without a bug: whoever watches over services starts it again."""

    def crashed_by_itself(self, process: Process, error: Exception) -> None: ...


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The same on every machine."""

    cluster_id: ClusterId
    members: tuple[Member, ...]
    node: NodeOptions
    consensus: ConsensusOptions
    state: StateOptions


class Machine:
    """Disk, clocks and identity; what runs on it comes and goes."""

    def __init__(
        self,
        member: Member,
        cluster: ClusterOptions,
        schedule: Schedule,
        rng: random.Random,
        *,
        speed: DiskSpeed,
        clock: MachineClock,
        disk: MemoryDisk,
        station: int = 0,
    ) -> None:
        """station: of a copy of another machine; peers have the address of the original."""
        self.member, self.cluster, self.schedule, self.rng = member, cluster, schedule, rng
        self.member_id, self.name = member.member_id, member.name
        self.disk, self.speed, self.clock = disk, speed, clock
        self.station = station or member.member_id
        self.process: Process | None = None
        self.flipped: dict[int, tuple[bytes, bytes]] = {}
        """Entries that a flipped bit spoiled at rest: (spoiled, as written)."""

        self.lost_disk: MemoryDisk | None = None
        """What the disk held before an older image was put in its place."""

        self.wake_us_max = WAKE_US_MAX[0]
        """How long its loop is busy with other things before a cycle: more arrives meanwhile on a slow board."""

        self.is_shut_out = False
        """Its peers found it below its word. Assumed here: the machine knows that after a restart too."""

        self.start_count = 0
        self.address = member.peer_address
        self.known = Configuration(1, cluster.members)
        """Of the identity file: whom it was told of when it joined, or has heard of since."""

        self.is_gone = False
        """The board is dead."""

        self.is_removed = False
        """It was told that it is no member any more, and knows it after a restart too."""

    @property
    def is_up(self) -> bool:
        return self.process is not None

    def start(self, watcher: Watcher) -> Process:
        assert self.process is None
        self.start_count += 1
        process = self.process = Process(self, watcher)
        try:
            process.begin()
        except Exception:
            self.process, process.is_alive = None, False
            raise
        return process

    def crash(self, *, is_kernel_finishing: bool = False) -> None:
        """The power goes, or kill -9: what was not committed is gone."""
        process = self.process
        if process is None:
            return
        watcher = process.watcher
        watcher.crashing(process, process.workers.phase(is_kernel_finishing=is_kernel_finishing))
        if is_kernel_finishing:
            process.workers.finish_in_kernel()
        elif isinstance(self.disk, LmdbDisk):
            process.workers.tear_in_kernel(self.disk.tear)
        self.process = None
        process.is_alive = False
        watcher.died(process)


class Process:
    def __init__(self, machine: Machine, watcher: Watcher) -> None:
        self.machine, self.watcher, self.member = machine, watcher, machine.member_id
        self.station = machine.station
        self.is_alive, self.is_paused = True, False
        self.incarnation = machine.start_count
        self._missed: deque[Action] = deque()
        self._resumed_ns: int | None = None
        self._is_cycle_due = self._is_upkeep_due = False
        self._timer_ns: int | None = None
        self._due_ns = 0
        self._seen: tuple[object, ...] = ()
        self._schedule = machine.schedule
        self.workers = SimWorkers(self, machine.schedule, machine.rng, machine.speed)
        self.cycle_count = 0

    def begin(self) -> None:
        machine, cluster = self.machine, self.machine.cluster
        self.nonce = machine.rng.getrandbits(63) + 1
        active.now_s = machine.clock.monotonic_ns() / 1e9
        journal, store = open_disk(machine.disk)
        self.core = NodeCore(
            Self(
                self.member,
                machine.name,
                cluster.cluster_id,
                machine.known.members,
                self.nonce,
                "simulation",
                machine.known.version,
                machine.address,
            ),
            journal,
            store,
            workers=self.workers,
            send=self._send,
            wake=self.wake,
            clock=machine.clock,
            rng=machine.rng,
            options=cluster.node,
            consensus_options=cluster.consensus,
            state_options=cluster.state,
        )
        self.core.events.listeners.append(self._on_event)
        self.core.applied_listeners.append(lambda applied: self.watcher.applied(self, applied))
        self.core.contacts.on_members_heard = self._remember_members
        self.core.contacts.on_peers_changed = lambda peers: self.watcher.peers_changed(self, peers)
        self.watcher.started(self)
        self.call(self.core.request_wake)

    def _remember_members(self, members: Sequence[Member], version: int) -> None:
        self.machine.known = Configuration(version, tuple(members))

    # the loop --------------------------------------------------------------------------------------------

    def call(self, action: Action) -> None:
        if not self.is_alive:
            return
        if self.is_paused:
            self._missed.append(action)
            return
        active.now_s = self.machine.clock.monotonic_ns() / 1e9
        try:
            action()
        except CorruptData as error:
            self.core.quarantine(str(error))
        except StorageFailed as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - the top of the loop: it ends the process, and the run is told
            self.watcher.crashed_by_itself(self, error)
            return
        if self.is_alive:
            self._look()

    def _look(self) -> None:
        """The checkers look at what changed: a step that left all of it as it was has nothing new for them."""
        core, disk = self.core, self.machine.disk
        engine, log = core.engine, core.log
        seen = (
            engine.is_leader, engine.term, engine.commit_index, engine.applied_index, log.durable_index,
            log.last_index, log.appended_bytes, log.anchor, core.state.position, disk.state, disk.image,
        )  # fmt: skip
        if seen != self._seen:
            self._seen = seen
            try:
                self.watcher.stepped(self)
            except CorruptData as error:  # a checker read the spoiled record before the node did
                core.quarantine(str(error))

    def pause(self) -> None:
        """SIGSTOP."""
        self.is_paused = True

    def was_paused_within(self, duration_ns: int) -> bool:
        """It is stopped, or was not long ago."""
        resumed_ns = self._resumed_ns
        return self.is_paused or (resumed_ns is not None and self._schedule.now_ns - resumed_ns < duration_ns)

    def resume(self) -> None:
        """SIGCONT: everything that waited is there at once."""
        if not self.is_alive or not self.is_paused:
            return
        self.is_paused, self._resumed_ns = False, self._schedule.now_ns
        self.workers.start_next()
        missed, self._missed = self._missed, deque()
        while missed and self.is_alive:
            self.call(missed.popleft())

    def wake(self) -> None:
        if not self._is_cycle_due:
            self._is_cycle_due = True
            delay_us = self.machine.rng.randint(1, self.machine.wake_us_max)
            self._schedule.after(delay_us * MICROSECOND_NS, lambda: self.call(self._cycle))

    def _cycle(self) -> None:
        self._is_cycle_due = False
        self.cycle_count += 1
        self.core.cycle()
        if not self._is_upkeep_due:
            self._is_upkeep_due = True
            self._schedule.after(UPKEEP_AFTER_NS, lambda: self.call(self._upkeep))

    def _upkeep(self) -> None:
        self._is_upkeep_due = False
        self.core.upkeep()
        if self.core.quarantine_reason:
            return
        clock = self.machine.clock
        delay_ns = clock.real_ns(self.core.next_wake_ns() - clock.monotonic_ns())
        self._due_ns = self._schedule.now_ns + max(delay_ns, MILLISECOND_NS)
        self._set_timer()

    def _set_timer(self) -> None:
        """One timer stands; it is set anew only for something earlier, and by itself when it was too early."""
        if self._timer_ns is None or self._due_ns < self._timer_ns:
            due_ns = self._timer_ns = self._due_ns
            self._schedule.at(due_ns, lambda: self._fire(due_ns))

    def _fire(self, timer_ns: int) -> None:
        if timer_ns != self._timer_ns or not self.is_alive:
            return
        self._timer_ns = None
        if self._schedule.now_ns >= self._due_ns:
            self.call(self._cycle)
        else:
            self._set_timer()

    def _send(self, member: MemberId, frame: peer_pb2.Frame, is_bulk: bool) -> bool:
        return self.watcher.sending(self, member, frame, is_bulk=is_bulk)

    def _on_event(self, event: ConsensusEvent) -> None:
        self.watcher.traced(self.machine, str(event))

    # what the disk calls ---------------------------------------------------------------------------------

    def on_job(self, name: str, phase: str) -> None:
        self.watcher.passing_job(self, name, phase)

    def _end(self, error: StorageFailed) -> None:
        """A failed commit is fatal: the process ends without answering."""
        self.watcher.traced(self.machine, f"ended reason={error}")
        self.machine.crash()
        self.watcher.ended_by_itself(self)

    # what the network calls, within `call` ---------------------------------------------------------------

    def hello(self, to_member: MemberId) -> bytes:
        return self.core.hello(to_member).SerializeToString(deterministic=True)

    def check_hello(self, data: bytes) -> peer_pb2.Refusal | None:
        return self.core.check_hello(peer_pb2.Frame.FromString(data))

    def on_frame(self, member: MemberId, data: bytes) -> None:
        self.core.on_frame(member, peer_pb2.Frame.FromString(data))

    def on_up(self, member: MemberId) -> None:
        self.core.on_up(member)

    def on_down(self, member: MemberId) -> None:
        self.core.on_down(member)

    def on_refused(self, refusal: peer_pb2.Refusal) -> None:
        self.core.on_refused(refusal)


class Active:
    """What PySyncObj's clock says: that of the machine at work, which stands still while it works."""

    now_s = 0.0

    def seconds(self) -> float:
        return self.now_s


active = Active()
