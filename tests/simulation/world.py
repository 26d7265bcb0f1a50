"""A cluster, its clients, its faults and its checkers, from one seed.

The course of a run: machines start, clients work under faults, everything is mended, the cluster must come to rest
on one state and take a new write. Invariant: the same seed and options have the same trace, whatever the hash seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field

from appliance.consensus import ConsensusOptions
from appliance.errors import CorruptData, StorageFailed
from appliance.model import ClusterId, Configuration, Member, MemberId
from appliance.node.options import NodeOptions
from appliance.state import Applied, StateOptions
from appliance.state.configuration import founding_configuration
from appliance.storage.memory import MemoryDisk
from raftberry.internal.v1 import peer_pb2
from tests.simulation import seams
from tests.simulation.checkers import (
    Checker,
    PromiseChecker,
    RaftChecker,
    StateChecker,
    VoteChecker,
    WatchChecker,
)
from tests.simulation.checkers.disks import DiskView
from tests.simulation.checkers.reference import Reference
from tests.simulation.checkers.registers import check_registers
from tests.simulation.disk import DiskSpeed, draw_speed
from tests.simulation.failure import CheckFailed, require
from tests.simulation.faults import Faults
from tests.simulation.history import History
from tests.simulation.lmdb_disk import Cards, LmdbDisk
from tests.simulation.members import MemberFaults
from tests.simulation.network import Network
from tests.simulation.node import WAKE_US_MAX, ClusterOptions, Machine, Process, active
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS, MachineClock, Schedule
from tests.simulation.workload import Client

HEAL_NS_MAX = 30 * SECOND_NS
REST_NS_MAX = 15 * SECOND_NS
ACKNOWLEDGED_MIN, FAULTS_MIN, FAULT_KINDS_MIN = 1_000, 5, 3
FAULT_NS_MAX = 150 * SECOND_NS
"""A seed that lacks something goes on until then."""

PROBE_NS_MAX = 5 * SECOND_NS
LMDB_EVERY = 50
"""Seeds; one of them runs on real files."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fixed before a seed draws the rest. size None: drawn. kinds None: drawn."""

    seed: int
    size: int | None = None
    fault_ns: int = 30 * SECOND_NS
    kinds: frozenset[str] | None = None
    is_tiny: bool | None = None
    """None: drawn, and with it the sizes of batches and chunks, and how fast the machines are."""

    operations_per_second: int = 90
    """What all clients together begin, while they are answered soon."""

    is_on_lmdb: bool | None = None
    """None: one seed of fifty."""

    is_changing: bool = False
    """The membership changes; False: drawn."""


@dataclass(slots=True)
class Report:
    seed: int
    size: int
    simulated_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    trace_digest: str = ""
    failure: str | None = None
    shortfall: str = ""
    """What it did less than a seed shall do."""


class World:
    def __init__(self, plan: Plan, trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self._trace, self._digest = trace, hashlib.sha256()
        rng = self._rng("world")
        self.schedule = Schedule()
        self.cards = Cards()
        self.network = Network(self.schedule, self._rng("network"))
        size = plan.size or rng.choices((1, 2, 3, 5, 7), (2, 1, 6, 4, 1))[0]
        cluster = _cluster(rng, size, is_tiny=rng.random() < 0.8 if plan.is_tiny is None else plan.is_tiny)
        self.machines = [self._machine(member, cluster, rng) for member in cluster.members]
        self._by_id = {machine.member_id: machine for machine in self.machines}
        self.reference = Reference()
        self.views = {machine.station: DiskView(machine) for machine in self.machines}
        self.copies: list[Machine] = []
        self.raft = RaftChecker(self._by_id, self.views)
        self.promises = PromiseChecker(self.views, self.raft)
        self.state = StateChecker(self.reference)
        self.watches = WatchChecker(self.schedule, self._rng("watches"), self.reference)
        self.checkers: Sequence[Checker] = (
            self.raft,
            self.promises,
            VoteChecker(),
            self.state,
            self.watches,
        )
        self.history = History(self.reference)
        self.counts: Counter[str] = Counter()
        self.members = MemberFaults(self, self._rng("members"), self.counts, is_certain=plan.is_changing)
        self.faults = Faults(
            self.machines,
            self.network,
            self.schedule,
            self._rng("faults"),
            self.restart,
            self.copy,
            members=self.members,
            only=plan.kinds,
        )
        client_count, burst_max = rng.randint(3, 9), rng.choice((2, 4, 8, 16))
        self.clients = [
            Client(
                number,
                self.machines,
                self.history,
                self.schedule,
                self._rng(f"client-{number}"),
                think_ns_max=client_count * (burst_max + 1) * SECOND_NS // plan.operations_per_second,
                burst_max=burst_max,
            )
            for number in range(1, client_count + 1)
        ]
        self.on_job: Callable[[Process, str, str], None] = lambda *_: None

    # the course ------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Raises CheckFailed."""
        with self.opened(), closing(self.cards):
            self.start()
            self.faults.start()
            self.run_for(self.plan.fault_ns)
            while self.plan.kinds is None and self.shortfall() and self.schedule.now_ns < FAULT_NS_MAX:
                self.faults.ease()
                self.run_for(SECOND_NS)
            self.heal()
            self.check_end()
        return self.report()

    def opened(self) -> AbstractContextManager[None]:
        """Within it PySyncObj reads simulated clocks: for scripts that drive a world by themselves."""
        is_drawn = self.plan.is_tiny is None
        sizes = seams.draw_sizes(self._rng("sizes")) if is_drawn else seams.TINIEST
        return seams.applied(active.seconds, self._rng("pysyncobj"), sizes, self.counts)

    def start(self) -> None:
        for machine in self.machines:
            self.restart(machine)
        for client in self.clients:
            client.start()

    def run_for(self, duration_ns: int) -> None:
        self.schedule.run_until(self.schedule.now_ns + duration_ns)

    def heal(self) -> None:
        """Mend all, let the clients finish, wait until everybody stands at the same index."""
        self.faults.end()
        for copy in self.copies:
            copy.crash()
        for client in self.clients:
            client.is_stopped = True
        self._rest(HEAL_NS_MAX)
        self._probe()
        self._rest(REST_NS_MAX, with_watchers=True)

    def _rest(self, bound_ns: int, *, with_watchers: bool = False) -> None:
        """Until nobody waits and all stand at one index; keys may still expire, and be applied a moment later.

        with_watchers: one who moved to another node just now may have to read from its disk what it has not seen.
        """
        deadline = self.schedule.now_ns + bound_ns
        self.run_for(SECOND_NS)
        while self.schedule.now_ns < deadline and (
            not self._is_at_rest() or (with_watchers and self.watches.behind(self.raft.commit_index))
        ):
            self.run_for(SECOND_NS // 5)

    def check_end(self) -> None:
        positions = {
            machine.name: self._position(machine) for machine in self.machines if self._takes_part(machine)
        }
        require(
            set(positions.values()) == {self.raft.commit_index},
            "convergence",
            f"applied {positions}, committed {self.raft.commit_index}",
        )
        for machine in self.machines:
            if self._takes_part(machine) and machine.process is not None:
                self._compare(machine.process)
        untold = ", ".join(self._untold())
        require(not untold, "removed_is_told", f"{untold} was removed and does not know it")
        self.watches.check_end(self.raft.commit_index)
        self.history.check_nothing_lost()
        self.counts["checked_register_reads"] += check_registers(self.history.writes, self.history.reads)
        for machine in self.faults.losses.must_be_out:
            kind = self.faults.losses.suspects[machine.name]
            require(machine.is_shut_out, "amnesia", f"{machine.name} ({kind}) takes part")

    def _compare(self, process: Process) -> None:
        """A spoiled block may be read here for the first time: then it must be noticed."""
        try:
            self.state.compare_hash(process)
            self.state.compare_content(process)
        except CorruptData as error:
            process.core.quarantine(str(error))

    def report(self) -> Report:
        counts = self.counts.copy()
        counts.update({f"fault_{kind}": count for kind, count in self.faults.counts.items()})
        counts.update({f"client_{kind}": count for kind, count in self.history.counts.items()})
        counts.update({f"network_{kind}": count for kind, count in self.network.counts.items()})
        counts.update({f"watch_{kind}": count for kind, count in self.watches.counts.items()})
        counts.update({f"lmdb_{kind}": count for kind, count in self.cards.counts.items()})
        counts["committed_entries"] = self.raft.commit_index - 1
        counts["terms"] = len(self.raft.leaders)
        for name, checked in (("raft", self.raft.counts), ("promise", self.promises.counts)):
            counts.update({f"checked_{name}_{kind}": count for kind, count in checked.items()})
        counts["checked_hashes"] = self.state.hash_count
        for machine in self.machines:
            if machine.process is not None:
                self._count_process(machine.process, counts)
        simulated_s = self.schedule.now_ns / SECOND_NS
        digest, shortfall = self._digest.hexdigest(), self.shortfall()
        return Report(self.plan.seed, len(self.machines), simulated_s, counts, digest, shortfall=shortfall)

    def shortfall(self) -> str:
        """What a seed of the swarm still lacks; a seed that proves little shall not count as one that proved much."""
        acknowledged, faults = self.history.counts["acknowledged"], self.faults.struck()
        lacking = [
            f"{acknowledged} of {ACKNOWLEDGED_MIN} writes acknowledged" * (acknowledged < ACKNOWLEDGED_MIN),
            f"{sum(faults.values())} of {FAULTS_MIN} faults" * (sum(faults.values()) < FAULTS_MIN),
            f"{len(faults)} of {FAULT_KINDS_MIN} kinds of faults" * (len(faults) < FAULT_KINDS_MIN),
        ]
        return ", ".join(filter(None, lacking))

    # what processes tell (Watcher) -----------------------------------------------------------------------

    def started(self, process: Process) -> None:
        self.counts["starts"] += 1
        peers = process.core.contacts.peers
        known = [m.member_id for m in self.machines if m.member_id in peers]
        ordered = [*known, *(member for member in peers if member not in known)]
        addresses = {member: peers[member].peer_address for member in ordered}
        self.network.join(process, process.machine.address, addresses)
        for checker in self.checkers:
            checker.started(process)

    def peers_changed(self, process: Process, peers: Sequence[Member]) -> None:
        self.network.set_peers(process, {peer.member_id: peer.peer_address for peer in peers})

    def stepped(self, process: Process) -> None:
        if process.core.quarantine_reason:
            return
        for checker in self.checkers:
            checker.stepped(process)

    def sending(self, process: Process, member: MemberId, frame: peer_pb2.Frame, *, is_bulk: bool) -> bool:
        for checker in self.checkers:
            checker.sending(process, member, frame)
        data = self.faults.maul(frame).SerializeToString(deterministic=True)
        return self.network.send(process.station, member, data, "bulk" if is_bulk else "live")

    def applied(self, process: Process, applied: Applied) -> None:
        for checker in self.checkers:
            checker.applied(process, applied)

    def traced(self, machine: Machine, line: str) -> None:
        kind = line.split(" ", 1)[0]
        self.counts[f"event_{kind}"] += 1
        if kind == "quarantined" and not self.faults.is_suspect(machine):
            raise CheckFailed("amnesia", f"{machine.name} lost nothing and is shut out: {line}")
        machine.is_shut_out |= kind == "quarantined"
        machine.is_removed |= kind == "removed"
        text = f"{self.schedule.now_ns:>14} {machine.name} {line}"
        self._digest.update(text.encode())
        if self._trace is not None:
            self._trace(text)

    def passing_job(self, process: Process, name: str, phase: str) -> None:
        self.counts[f"job_{name}_{phase}"] += 1
        self.on_job(process, name, phase)

    def crashing(self, process: Process, phase: str) -> None:
        self.counts[f"crash_{phase}"] += 1

    def died(self, process: Process) -> None:
        self.traced(process.machine, "died")
        self._count_process(process, self.counts)
        self.network.leave(process)
        for client in self.clients:
            client.process_died(process)
        if process.machine.disk.fail_next_commit:
            process.machine.disk.fail_next_commit = False

    def ended_by_itself(self, process: Process) -> None:
        self._start_again(process.machine)

    def _start_again(self, machine: Machine) -> None:
        """As the service manager does."""
        delay_ns = machine.rng.randint(100, 2_000) * MILLISECOND_NS
        self.schedule.after(delay_ns, lambda: self.restart(machine))

    def crashed_by_itself(self, process: Process, error: Exception) -> None:
        if isinstance(error, CheckFailed):
            raise error
        raise CheckFailed("no_bug", f"{process.machine.name}: {type(error).__name__}: {error}") from error

    # helpers ---------------------------------------------------------------------------------------------

    def restart(self, machine: Machine) -> None:
        """Does nothing if it runs, or must not."""
        if machine.process is not None or machine.is_shut_out or machine.is_removed or machine.is_gone:
            return
        self.traced(machine, "starts")
        try:
            machine.start(self)
        except CheckFailed:
            raise
        except CorruptData as error:
            self.traced(machine, f"quarantined reason={error}")
        except StorageFailed as error:
            self.traced(machine, f"ended reason={error}")
            self._start_again(machine)
        except Exception as error:
            raise CheckFailed("no_bug", f"{machine.name} does not start: {error}") from error

    def copy(self, machine: Machine, disk: MemoryDisk) -> None:
        """A second holder of the machine's identity starts on a copy of its disk."""
        rng = self._rng(f"{machine.name}-copy")
        clock = MachineClock(self.schedule, boot_offset_ns=0, wall_offset_ns=0)
        copy = Machine(
            dataclasses.replace(machine.member, name=f"{machine.name}-copy"),
            machine.cluster,
            self.schedule,
            rng,
            speed=draw_speed(rng),
            clock=clock,
            disk=disk,
            station=rng.getrandbits(63) + 1,
        )
        self.copies.append(copy)
        self.views[copy.station] = DiskView(copy)
        self.restart(copy)

    def add_machine(self, name: str) -> Machine:
        """See members.Site."""
        number = len(self._by_id) + 1
        rng = self._rng(f"machine-{number}")
        member_id = MemberId(rng.getrandbits(63) + 1)
        member = Member(member_id, name, 0, f"10.0.2.{number}:7441", is_voter=False)
        machine = self._machine(member, self.machines[0].cluster, rng)
        self._by_id[member_id] = machine
        self.views[machine.station] = DiskView(machine)
        return machine

    def connect_machine(self, machine: Machine, configuration: Configuration) -> None:
        """See members.Site."""
        machine.known = configuration
        self.machines.append(machine)
        self.restart(machine)

    def leader(self) -> Machine | None:
        leaders = [m for m in self.machines if m.process is not None and m.process.core.engine.is_leader]
        return max(leaders, key=lambda m: m.process.core.engine.term if m.process else 0, default=None)

    def _is_at_rest(self) -> bool:
        taking_part = [machine for machine in self.machines if self._takes_part(machine)]
        positions = {self._position(machine) for machine in taking_part}
        return (
            positions == {self.raft.commit_index}
            and not any(client.is_busy for client in self.clients)
            and self.leader() is not None
            and not self._untold()
        )

    def _probe(self) -> None:
        """The cluster takes a new write within a few seconds."""
        probe = Client(
            999, self._voters(), self.history, self.schedule, self._rng("probe"), think_ns_max=SECOND_NS // 20
        )
        acknowledged = self.history.counts["acknowledged"]
        self.clients.append(probe)
        probe.start()
        deadline = self.schedule.now_ns + PROBE_NS_MAX
        while self.schedule.now_ns < deadline and self.history.counts["acknowledged"] == acknowledged:
            self.run_for(SECOND_NS // 20)
        probe.is_stopped = True
        require(
            self.history.counts["acknowledged"] > acknowledged,
            "liveness",
            "everything was mended, and no write is taken; " + self.describe(),
        )

    def describe(self) -> str:
        """Who stands where, for a message."""
        parts = []
        for machine in self.machines:
            if machine.process is None:
                parts.append(f"{machine.name}: down")
                continue
            core = machine.process.core
            engine = core.engine
            parts.append(
                f"{machine.name}: {core.role.value} term {engine.term} leader {core.leader_name() or 'none'} commit "
                f"{engine.commit_index} applied {engine.applied_index} durable {core.log.durable_index} last "
                f"{core.log.last_index} anchor {core.log.anchor.index} connected {len(engine.connected)}"
            )
        return "; ".join(parts)

    def _voters(self) -> list[Machine]:
        return [machine for machine in self.machines if self._takes_part(machine)]

    def _takes_part(self, machine: Machine) -> bool:
        is_member = self._membership().member(machine.member_id) is not None
        return is_member and not machine.is_shut_out and not machine.is_gone

    def _membership(self) -> Configuration:
        """The latest that any process has applied."""
        processes = [machine.process for machine in self.machines if machine.process is not None]
        known = [process.core.state.configuration for process in processes]
        founders = founding_configuration(self.machines[0].cluster.members)
        return max((founders, *known), key=lambda configuration: configuration.version)

    def _untold(self) -> list[str]:
        """Names of those that were removed, still run, and do not know it."""
        removed = self._membership().removed
        return [
            machine.name
            for machine in self.machines
            if machine.member_id in removed
            and not (machine.is_removed or machine.is_gone or machine.is_shut_out)
        ]

    def _position(self, machine: Machine) -> int:
        return 0 if machine.process is None else machine.process.core.engine.applied_index

    def _count_process(self, process: Process, counts: Counter[str]) -> None:
        core = process.core
        counts.update({f"dropped_{reason}": count for reason, count in core.engine.dropped_count.items()})
        counts["snapshots_sent"] += core.sender.completed_count
        counts["snapshots_failed"] += core.receiver.failed_count
        counts["cycles"] += process.cycle_count

    def _machine(self, member: Member, cluster: ClusterOptions, rng: random.Random) -> Machine:
        clock = MachineClock(
            self.schedule,
            boot_offset_ns=rng.randint(0, 1_000) * SECOND_NS,
            wall_offset_ns=rng.randint(-500, 500) * MILLISECOND_NS,
        )
        speed: DiskSpeed = draw_speed(rng)
        machine_rng = self._rng(member.name)
        disk = self._disk()
        machine = Machine(member, cluster, self.schedule, machine_rng, speed=speed, clock=clock, disk=disk)
        if self.plan.is_tiny is None:
            machine.wake_us_max = self._rng(f"{member.name}/loop").choice(WAKE_US_MAX)
        return machine

    def _disk(self) -> MemoryDisk:
        is_on_lmdb, seed = self.plan.is_on_lmdb, self.plan.seed
        is_lmdb = seed % LMDB_EVERY == LMDB_EVERY - 1 if is_on_lmdb is None else is_on_lmdb
        return LmdbDisk(self.cards) if is_lmdb else MemoryDisk()

    def _rng(self, purpose: str) -> random.Random:
        """Seeded by text, which Python hashes by SHA-512: independent of PYTHONHASHSEED."""
        return random.Random(f"{self.plan.seed}/{purpose}")


def _cluster(rng: random.Random, size: int, *, is_tiny: bool) -> ClusterOptions:
    members = tuple(
        Member(MemberId(rng.getrandbits(63) + 1), f"node-{number}", number, f"10.0.0.{number}:7441")
        for number in range(1, size + 1)
    )
    keep = rng.choice((0, 0, 1_000, 8_000)) if is_tiny else 1 << 26
    node = NodeOptions(
        journal_bytes_max=rng.choice((1_500, 6_000, 20_000)) if is_tiny else 1 << 28,
        watch_keep_bytes=keep,
        checkpoint_bytes_min=rng.choice((300, 1_500, 6_000)) if is_tiny else 1 << 20,
    )
    consensus = ConsensusOptions(hot_bytes_max=rng.choice((0, 1_000, 10_000)) if is_tiny else 1 << 24)
    state = StateOptions(page_bytes=rng.choice((128, 512)))
    return ClusterOptions(ClusterId(rng.getrandbits(63) + 1), members, node, consensus, state)
