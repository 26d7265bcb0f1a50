"""Faults, each with a rate drawn from the seed (swarm testing: Groce et al., ISSTA 2012).

Invariant: a fault only does what the world can do to a machine: power, cables, cards, clocks, signals. What it broke
it mends by itself after a while, but for a node that is lost (losses.py), which its peers must keep out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from appliance.errors import NotApplied
from appliance.storage.memory import MemoryDisk
from raftberry.internal.v1 import peer_pb2
from tests.simulation.losses import Losses
from tests.simulation.members import MemberFaults
from tests.simulation.mishaps import Mishaps
from tests.simulation.network import LANES, Network
from tests.simulation.node import Machine, Process
from tests.simulation.scene import Family, Scene, Strike
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS, Schedule

NO_FAULTS = frozenset({"checkpoint", "transfer"})
"""What operators do: it happens beside the faults and is none."""

_MEMORY_LOSS = frozenset(
    {"crash_one", "crash_leader", "crash_all", "restart_storm", "fail_commit", "full_disk", "absence"}
)
KINDS_MIN = 5


class Faults:
    def __init__(
        self,
        machines: Sequence[Machine],
        network: Network,
        schedule: Schedule,
        rng: random.Random,
        restart: Callable[[Machine], None],
        copy: Callable[[Machine, MemoryDisk], None],
        *,
        members: MemberFaults,
        only: frozenset[str] | None,
    ) -> None:
        """only: the kinds a shrunk seed still has; None: what the seed draws."""
        self._machines, self._network, self._schedule, self._rng = machines, network, schedule, rng
        self._scene = Scene(machines, network, schedule, rng, restart)
        self.counts, self._restart = self._scene.counts, restart
        network.spike_rate = rng.choice((0.0, 0.0, 0.002, 0.01))
        network.delay_ns_max = rng.choice((1, 5, 20, 80)) * MILLISECOND_NS
        self.mishaps, self.losses = Mishaps(self._scene), Losses(self._scene, copy)
        families: tuple[Family, ...] = (self.mishaps, self.losses)
        self._families = families
        self._strikes: dict[str, tuple[int, Strike]] = dict(self._own_kinds())
        for family in families:
            self._strikes.update(family.kinds)
        self._scale = rng.uniform(0.8, 5.0)
        drawn = [kind for kind in self._strikes if rng.random() < 0.4]
        while len(drawn) < KINDS_MIN:
            drawn.append(rng.choice([kind for kind in self._strikes if kind not in drawn]))
        self._strikes.update(members.kinds)
        if members.drawn:
            # A node may be lost only while every peer is known to remember it: not while peers come and go.
            drawn = [kind for kind in drawn if kind not in self.losses.kinds] + members.drawn
        per_second = sum(SECOND_NS / self._strikes[kind][0] for kind in drawn)
        self._scale = max(self._scale, per_second * rng.uniform(0.5, 2.0))
        self.kinds = tuple(kind for kind in self._strikes if kind in drawn and (only is None or kind in only))

    def _own_kinds(self) -> dict[str, tuple[int, Strike]]:
        return {
            "crash_one": (4 * SECOND_NS, self._crash_one),
            "crash_leader": (5 * SECOND_NS, self._crash_leader),
            "crash_all": (12 * SECOND_NS, self._crash_all),
            "restart_storm": (15 * SECOND_NS, self._restart_storm),
            "pause_one": (5 * SECOND_NS, self._pause_one),
            "pause_leader": (7 * SECOND_NS, self._pause_leader),
            "cut_pair": (4 * SECOND_NS, self._cut_pair),
            "cut_one_way": (4 * SECOND_NS, self._cut_one_way),
            "isolate_leader": (6 * SECOND_NS, self._isolate_leader),
            "isolate_one": (6 * SECOND_NS, self._isolate_one),
            "reset_link": (2 * SECOND_NS, self._reset_link),
            "reset_lane": (2 * SECOND_NS, self._reset_lane),
            "stall_link": (2 * SECOND_NS, self._stall_link),
            "stall_disk": (4 * SECOND_NS, self._stall_disk),
            "fail_commit": (10 * SECOND_NS, self._fail_commit),
            "transfer": (3 * SECOND_NS, self._transfer),
            "checkpoint": (3 * SECOND_NS, self._checkpoint),
        }

    @property
    def all_kinds(self) -> list[str]:
        return list(self._strikes)

    def struck(self) -> dict[str, int]:
        """Kind -> how often; faults only."""
        return {
            kind: count
            for kind, count in self.counts.items()
            if kind in self._strikes and kind not in NO_FAULTS
        }

    def is_suspect(self, machine: Machine) -> bool:
        """It was lost by a fault: it may be shut out."""
        return machine.name.removesuffix("-copy") in self.losses.suspects

    def maul(self, frame: peer_pb2.Frame) -> peer_pb2.Frame:
        return frame if self.is_over else self.mishaps.maul(frame)

    @property
    def is_over(self) -> bool:
        return self._scene.is_over

    def start(self) -> None:
        for kind in self.kinds:
            self._next(kind)

    def end(self) -> None:
        """Mend everything."""
        self._scene.is_over = True
        self._network.unblock_all()
        self._network.spike_rate = 0.0
        self._network.delay_ns_max = 5 * MILLISECOND_NS
        for machine in self._machines:
            machine.speed.stalled_until_ns = 0
            machine.speed.commit_ns_median = min(machine.speed.commit_ns_median, 15 * MILLISECOND_NS)
            machine.disk.fail_next_commit = False
        for family in self._families:
            family.end()
        for machine in self._machines:
            if machine.process is not None:
                machine.process.resume()
            else:
                self._restart(machine)

    def ease(self) -> None:
        """Fewer of them from now on: a cluster that is never whole for a second does no work that could be lost."""
        self._scale *= 1.1

    def _next(self, kind: str) -> None:
        delay_ns = int(self._rng.expovariate(1.0) * self._strikes[kind][0] * self._scale)
        self._schedule.after(delay_ns, lambda: self._strike(kind))

    def _strike(self, kind: str) -> None:
        if self.is_over:
            return
        is_forbidden = kind in _MEMORY_LOSS and self.losses.is_doubtful
        if not is_forbidden and self._strikes[kind][1]():
            self.counts[kind] += 1
        self._next(kind)

    # power -----------------------------------------------------------------------------------------------

    def _crash_one(self) -> bool:
        return self._crash(self._rng.choice(self._machines))

    def _crash_leader(self) -> bool:
        return self._crash(self._scene.leader())

    def _crash_all(self) -> bool:
        for machine in self._machines:
            self._crash(machine)
        return True

    def _restart_storm(self) -> bool:
        machine = self._rng.choice(self._machines)
        for number in range(self._rng.randint(3, 8)):
            self._schedule.after(
                number * self._rng.randint(20, 400) * MILLISECOND_NS, lambda: self._blink(machine)
            )
        return True

    def _blink(self, machine: Machine) -> None:
        if not self.is_over and machine.process is not None and not self.losses.is_doubtful:
            machine.crash(is_kernel_finishing=self._rng.random() < 0.5)
            self._restart(machine)

    def _crash(self, machine: Machine | None) -> bool:
        """Half of the commits under way are on the card all the same."""
        if machine is None or machine.process is None:
            return False
        machine.crash(is_kernel_finishing=self._rng.random() < 0.5)
        delay_ns = self._rng.choice((50, 500, 2_000, 6_000)) * MILLISECOND_NS
        self._schedule.after(self._rng.randint(0, delay_ns), lambda: self._restart(machine))
        return True

    # signals ---------------------------------------------------------------------------------------------

    def _pause_one(self) -> bool:
        return self._pause(self._rng.choice(self._machines))

    def _pause_leader(self) -> bool:
        return self._pause(self._scene.leader())

    def _pause(self, machine: Machine | None) -> bool:
        process = machine.process if machine is not None else None
        if process is None or process.is_paused:
            return False
        process.pause()
        self._schedule.after(self._rng.randint(50, 5_000) * MILLISECOND_NS, process.resume)
        return True

    # cables ----------------------------------------------------------------------------------------------

    def _pair(self) -> tuple[Machine, Machine] | None:
        if len(self._machines) < 2:
            return None
        one, other = self._rng.sample(list(self._machines), 2)
        return one, other

    def _cut_pair(self) -> bool:
        pair = self._pair()
        return pair is not None and self._cut([pair, (pair[1], pair[0])])

    def _cut_one_way(self) -> bool:
        pair = self._pair()
        return pair is not None and self._cut([pair])

    def _isolate_leader(self) -> bool:
        return self._isolate(self._scene.leader())

    def _isolate_one(self) -> bool:
        return self._isolate(self._rng.choice(self._machines))

    def _isolate(self, machine: Machine | None) -> bool:
        if machine is None or len(self._machines) < 2:
            return False
        others = [other for other in self._machines if other is not machine]
        return self._cut([(machine, other) for other in others] + [(other, machine) for other in others])

    def _cut(self, pairs: Sequence[tuple[Machine, Machine]]) -> bool:
        for source, target in pairs:
            self._network.block(source.member_id, target.member_id)

        def mend() -> None:
            for source, target in pairs:
                self._network.unblock(source.member_id, target.member_id)

        self._schedule.after(self._rng.randint(100, 8_000) * MILLISECOND_NS, mend)
        return True

    def _reset_link(self) -> bool:
        pair = self._pair()
        if pair is not None:
            self._network.break_link(pair[0].member_id, pair[1].member_id)
        return pair is not None

    def _reset_lane(self) -> bool:
        """One stream of one direction ends; the others go on."""
        pair = self._pair()
        if pair is not None:
            self._network.break_lane(pair[0].member_id, pair[1].member_id, self._rng.choice(LANES))
        return pair is not None

    def _stall_link(self) -> bool:
        pair = self._pair()
        if pair is not None:
            duration_ns = self._rng.randint(50, 3_000) * MILLISECOND_NS
            self._network.slow(pair[0].member_id, pair[1].member_id, duration_ns)
        return pair is not None

    # cards -----------------------------------------------------------------------------------------------

    def _stall_disk(self) -> bool:
        machine = self._rng.choice(self._machines)
        duration_ns = self._rng.randint(500, 5_000) * MILLISECOND_NS
        machine.speed.stalled_until_ns = self._schedule.now_ns + duration_ns
        return True

    def _fail_commit(self) -> bool:
        """The process ends by itself; the service manager starts it again."""
        machine = self._rng.choice(self._machines)
        if machine.process is None:
            return False
        machine.disk.fail_next_commit = True
        return True

    # operators -------------------------------------------------------------------------------------------

    def _transfer(self) -> bool:
        leader = self._scene.leader()
        process = leader.process if leader is not None else None
        if process is None or len(self._machines) < 2:
            return False
        for number in range(10):
            delay_ns = number * 20 * MILLISECOND_NS
            self._schedule.after(delay_ns, lambda: process.call(lambda: self._ask_transfer(process)))
        return True

    def _ask_transfer(self, process: Process) -> None:
        try:
            process.core.begin_transfer("")
        except NotApplied:
            return
        self.counts["transfer_sent"] += 1

    def _checkpoint(self) -> bool:
        process = self._rng.choice(self._machines).process
        if process is not None:
            process.call(lambda: process.core.checkpoint(lambda _: None))
        return process is not None
