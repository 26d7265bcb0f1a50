"""Faults that pass: slow and full cards, wrong clocks, split networks, long absences, mauled and repeated frames.

Invariant: everything here is mended by itself after a while; no node is lost by it.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from raftberry.internal.v1 import peer_pb2
from tests.simulation.node import Machine
from tests.simulation.scene import Scene, Strike
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS

MAULED_MAX = 12
"""A transfer begins anew after one: a follower that needs it would never come back."""

YEAR_NS = 365 * 24 * 3_600 * SECOND_NS
DRIFT_PPM_MAX = 200_000
"""Far beyond any crystal: the election must not depend on it."""


class Mishaps:
    def __init__(self, scene: Scene) -> None:
        self._scene, self._rng = scene, scene.rng
        self.maul_rate = scene.rng.choice((0.0, 0.0, 0.02, 0.2))
        scene.network.repeat_rate = scene.rng.choice((0.0, 0.0, 0.3, 1.0))
        self.kinds: dict[str, tuple[int, Strike]] = {
            "slow_disk": (6 * SECOND_NS, self._slow_disk),
            "full_disk": (10 * SECOND_NS, self._full_disk),
            "full_store": (8 * SECOND_NS, self._full_store),
            "wall_jump": (5 * SECOND_NS, self._wall_jump),
            "clock_drift": (6 * SECOND_NS, self._clock_drift),
            "split": (8 * SECOND_NS, self._split),
            "absence": (15 * SECOND_NS, self._absence),
        }

    def end(self) -> None:
        self.maul_rate = self._scene.network.repeat_rate = 0.0
        for machine in self._scene.machines:
            machine.disk.is_full, machine.speed.slow_until_ns = False, 0
            machine.clock.set_rate(0)
            self._grow(machine)

    def maul(self, frame: peer_pb2.Frame) -> peer_pb2.Frame:
        """A chunk of a snapshot whose bytes were changed on the way: nobody may take it in."""
        is_spent = self.maul_rate == 0.0 or self._scene.counts["mauled_chunk"] >= MAULED_MAX
        if is_spent or not frame.snapshot_chunk.data or self._rng.random() >= self.maul_rate:
            return frame
        self._scene.counts["mauled_chunk"] += 1
        mauled = peer_pb2.Frame()
        mauled.CopyFrom(frame)
        mauled.snapshot_chunk.data = flip_bit(frame.snapshot_chunk.data, self._rng.getrandbits(32))
        return mauled

    # cards -----------------------------------------------------------------------------------------------

    def _slow_disk(self) -> bool:
        """Every commit takes many times as long: a card that collects its garbage."""
        speed = self._scene.any_machine().speed
        speed.slow_factor = self._rng.choice((5, 20, 100))
        speed.slow_until_ns = self._scene.schedule.now_ns + self._rng.randint(500, 8_000) * MILLISECOND_NS
        return True

    def _full_disk(self) -> bool:
        """No commit succeeds: the process ends, and ends again at each start until there is room."""
        machine = self._scene.running()
        if machine is None:
            return False
        disk = machine.disk
        disk.is_full = True

        def free() -> None:
            disk.is_full = False

        self._scene.schedule.after(self._rng.randint(300, 6_000) * MILLISECOND_NS, free)
        return True

    def _full_store(self) -> bool:
        """The quota is reached: what needs space is refused, all else goes on."""
        machine = self._scene.running()
        if machine is None or machine.process is None:
            return False
        core = machine.process.core
        core.options = dataclasses.replace(core.options, store_bytes_max=1)
        delay_ns = self._rng.randint(300, 4_000) * MILLISECOND_NS
        self._scene.schedule.after(delay_ns, lambda: self._grow(machine))
        return True

    def _grow(self, machine: Machine) -> None:
        if machine.process is not None:
            machine.process.core.options = machine.cluster.node

    # clocks ----------------------------------------------------------------------------------------------

    def _wall_jump(self) -> bool:
        """The wall clock is set, rightly or wrongly, by up to years."""
        clock = self._scene.any_machine().clock
        scale = self._rng.choice((SECOND_NS, 3_600 * SECOND_NS, YEAR_NS))
        clock.wall_offset_ns += self._rng.randint(-3, 3) * scale
        return True

    def _clock_drift(self) -> bool:
        """The monotonic clock runs too fast or too slow for some seconds."""
        machine = self._scene.any_machine()
        machine.clock.set_rate(self._rng.randint(-DRIFT_PPM_MAX, DRIFT_PPM_MAX))
        delay_ns = self._rng.randint(1, 20) * SECOND_NS
        self._scene.schedule.after(delay_ns, lambda: machine.clock.set_rate(0))
        return True

    # cables and power ------------------------------------------------------------------------------------

    def _split(self) -> bool:
        """Two or three groups that hear nothing of each other: 2/1, 2/2/1, 3/2/2."""
        machines = list(self._scene.machines)
        if len(machines) < 3:
            return False
        self._rng.shuffle(machines)
        groups = 2 if len(machines) == 3 else self._rng.choice((2, 3))
        place = {machine.member_id: number % groups for number, machine in enumerate(machines)}
        pairs = [
            (one.member_id, other.member_id)
            for one in machines
            for other in machines
            if place[one.member_id] != place[other.member_id]
        ]
        for pair in pairs:
            self._scene.network.block(*pair)

        def mend() -> None:
            for pair in pairs:
                self._scene.network.unblock(*pair)

        self._scene.schedule.after(self._rng.randint(200, 6_000) * MILLISECOND_NS, mend)
        return True

    def _absence(self) -> bool:
        """A node is away so long that nobody has the log it needs: the others write checkpoints and trim."""
        machine = self._scene.running()
        if machine is None or len(self._scene.machines) < 3:
            return False
        machine.crash()
        delay_ns = self._rng.randint(5_000, 15_000) * MILLISECOND_NS
        self._scene.schedule.after(delay_ns - SECOND_NS, self._checkpoint_everywhere)
        self._scene.schedule.after(delay_ns, lambda: self._scene.restart(machine))
        return True

    def _checkpoint_everywhere(self) -> None:
        for machine in self._scene.machines:
            process = machine.process
            if process is not None:
                process.call(partial(process.core.checkpoint, lambda _: None))


def flip_bit(data: bytes, number: int) -> bytes:
    """One bit of data is another."""
    place = number % (8 * len(data))
    return data[: place // 8] + bytes([data[place // 8] ^ 1 << place % 8]) + data[place // 8 + 1 :]
