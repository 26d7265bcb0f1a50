"""Faults that take a node out for good: damaged, wiped, restored, lying and copied cards.

Invariant: never more nodes than a majority can spare. What is promised then: all that was acknowledged stays, nobody
who lost anything takes part once a peer that knows better has met it, and no answer is wrong. Peers notice amnesia by
what they have seen of a node: so such a card comes back only while every sound peer is up, reachable and has seen more
than it holds, and nobody crashes until it is shut out. Two forgetful voters of three are beyond help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.storage.layout import decode_boot_count, decode_state
from appliance.storage.memory import MemoryDisk
from tests.simulation.lmdb_disk import blank_disk, spoil_boot_count, spoil_entry, spoil_record, spoil_state
from tests.simulation.mishaps import flip_bit
from tests.simulation.node import Machine
from tests.simulation.scene import Scene, Strike
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS

TRIES_MAX = 40


@dataclass(slots=True)
class _Image:
    """An older state of a card, to be put back."""

    kind: str
    machine: Machine
    disk: MemoryDisk
    tries: int = 0


class Losses:
    def __init__(self, scene: Scene, copy: Callable[[Machine, MemoryDisk], None]) -> None:
        """copy: starts a second process with a machine's identity on a copy of its disk."""
        self._scene, self._rng, self._copy = scene, scene.rng, copy
        self._budget = (len(scene.machines) - 1) // 2
        self.suspects: dict[str, str] = {}
        """Name of a machine -> what was done to it. Only these may ever be shut out."""

        self._forgetful: Machine | None = None
        self.must_be_out: list[Machine] = []
        self.kinds: dict[str, tuple[int, Strike]] = {
            "flip_entry": (25 * SECOND_NS, self._flip_entry),
            "flip_record": (25 * SECOND_NS, self._flip_record),
            "flip_state": (25 * SECOND_NS, self._flip_state),
            "older_copy": (25 * SECOND_NS, self._older_copy),
            "wipe": (25 * SECOND_NS, self._wipe),
            "lying_card": (25 * SECOND_NS, self._lying_card),
            "clone": (25 * SECOND_NS, self._clone),
        }

    def end(self) -> None:
        """Damage that nobody has read yet is met at the latest by a restart."""
        for machine in self._scene.machines:
            if machine.name in self.suspects and machine not in self.must_be_out and not machine.is_shut_out:
                machine.crash()
                self._scene.restart(machine)

    @property
    def is_doubtful(self) -> bool:
        """Somebody forgot, and its peers have not met it yet: what they know of it must not be lost as well."""
        return self._forgetful is not None and not self._forgetful.is_shut_out

    def _sound(self) -> Machine | None:
        """A machine that may be lost, if one may."""
        machine = self._scene.any_machine()
        is_spent = len(self.suspects) >= self._budget or self.is_doubtful
        return None if is_spent or machine.name in self.suspects else machine

    def _suspect(self, machine: Machine, kind: str) -> None:
        self.suspects[machine.name] = kind

    # bits ------------------------------------------------------------------------------------------------

    def _flip_entry(self) -> bool:
        machine = self._sound()
        if machine is None or not machine.disk.entries:
            return False
        index = self._rng.choice(sorted(machine.disk.entries))
        original = machine.disk.entries[index]
        flipped = flip_bit(original, self._rng.getrandbits(32))
        spoil_entry(machine.disk, index, flipped)
        machine.flipped[index] = (flipped, original)
        self._suspect(machine, "flip_entry")
        return True

    def _flip_record(self) -> bool:
        """Of the checkpoint: a block, a head, a key, a producer, a member."""
        machine = self._sound()
        if machine is None or not machine.disk.image.records:
            return False
        records = machine.disk.image.records
        key = self._rng.choice(sorted(records))
        spoil_record(machine.disk, key, flip_bit(records[key], self._rng.getrandbits(32)))
        self._suspect(machine, "flip_record")
        return True

    def _flip_state(self) -> bool:
        """Of the journal's own record, or its boot count, while the machine is off."""
        machine = self._sound()
        if machine is None or machine.process is None:
            return False
        machine.crash()
        disk = machine.disk
        machine.lost_disk = disk.copy()
        if disk.state is not None and (self._rng.random() < 0.5 or disk.boot_count is None):
            spoil_state(disk, flip_bit(disk.state, self._rng.getrandbits(32)))
        elif disk.boot_count is not None:
            spoil_boot_count(disk, flip_bit(disk.boot_count, self._rng.getrandbits(32)))
        self._suspect(machine, "flip_state")
        self.must_be_out.append(machine)
        self._scene.restart(machine)
        return True

    # older images ----------------------------------------------------------------------------------------

    def _older_copy(self) -> bool:
        return self._will_forget("older_copy", self._rng.randint(1_000, 5_000), lambda disk: disk.copy())

    def _wipe(self) -> bool:
        return self._will_forget("wipe", self._rng.randint(10, 500), blank_disk)

    def _lying_card(self) -> bool:
        """It said that commits were on the card; the power fails, and the last ones were not."""
        return self._will_forget("lying_card", self._rng.randint(5, 300), lambda disk: disk.copy())

    def _will_forget(self, kind: str, after_ms: int, image: Callable[[MemoryDisk], MemoryDisk]) -> bool:
        machine = self._sound()
        if machine is None or machine.process is None or self._forgetful is not None:
            return False
        self._suspect(machine, kind)
        made = _Image(kind, machine, image(machine.disk))
        self._scene.schedule.after(after_ms * MILLISECOND_NS, lambda: self._forget(made))
        return True

    def _forget(self, image: _Image) -> None:
        """Tried again for a while: only the peers' knowledge makes it harmless."""
        machine = image.machine
        if self._scene.is_over or image.tries >= TRIES_MAX or machine.is_shut_out:
            self.suspects.pop(machine.name, None)
            return
        if not self._is_known_to_all(machine, image.disk):
            image.tries += 1
            self._scene.schedule.after(50 * MILLISECOND_NS, lambda: self._forget(image))
            return
        machine.crash()
        self._forgetful = machine
        self.put_back(machine, image.disk)
        self._scene.counts[f"{image.kind}_struck"] += 1
        for other in self._scene.machines:
            other.disk.fail_next_commit = other.disk.is_full = False
        self._scene.restart(machine)

    def put_back(self, machine: Machine, disk: MemoryDisk) -> None:
        """An older image is in the machine, which is off."""
        machine.lost_disk, machine.disk = machine.disk, disk
        self.suspects.setdefault(machine.name, "older_copy")
        self.must_be_out.append(machine)

    def _is_known_to_all(self, machine: Machine, disk: MemoryDisk) -> bool:
        """Every sound peer is up, and has seen more of the machine than the image will claim."""
        # A start lays the journal out to where the store stands, if that is farther.
        held = max(decode_state(disk.state).hard_state.high_index, disk.image.position.index)
        boots = decode_boot_count(disk.boot_count) + 1
        if machine.process is None:
            return False
        for other in self._scene.machines:
            if other is machine or other.is_shut_out:
                continue
            if other.process is None or other.process.is_paused:
                return False
            known = other.process.core.acquaintances.memory_of(machine.member_id)
            if known.high_index <= held and known.boot_count <= boots:
                return False
        return True

    # two holders -----------------------------------------------------------------------------------------

    def _clone(self) -> bool:
        """The card was copied into a second machine, and both run: peers can't tell which of them is the right one."""
        machine = self._sound()
        if machine is None or machine.process is None or len(self._scene.machines) < 3:
            return False
        self._suspect(machine, "clone")
        self._copy(machine, machine.disk.copy())
        return True
