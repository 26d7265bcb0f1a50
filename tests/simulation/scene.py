"""What every family of faults works on, and what a family is.

To add a kind: a method that returns whether it struck, and its name with a mean time in `kinds`. A family that breaks
something for a while mends it by itself, and at once in `end`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.simulation.network import Network
from tests.simulation.node import Machine
from tests.simulation.schedule import Schedule

Strike = Callable[[], bool]


@dataclass(slots=True)
class Scene:
    """restart: starts a machine that is down, unless it must stay down."""

    machines: Sequence[Machine]
    network: Network
    schedule: Schedule
    rng: random.Random
    restart: Callable[[Machine], None]
    counts: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    def any_machine(self) -> Machine:
        return self.rng.choice(self.machines)

    def running(self) -> Machine | None:
        machine = self.any_machine()
        return machine if machine.process is not None else None

    def leader(self) -> Machine | None:
        leaders = [
            (machine.process.core.engine.term, machine)
            for machine in self.machines
            if machine.process is not None and machine.process.core.engine.is_leader
        ]
        return max(leaders, key=lambda pair: pair[0])[1] if leaders else None


class Family(Protocol):
    @property
    def kinds(self) -> Mapping[str, tuple[int, Strike]]:
        """Mean nanoseconds between two faults of a kind, where a seed has it at all, and what it does."""

    def end(self) -> None:
        """Mend everything."""
