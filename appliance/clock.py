"""Time and chance as parameters: floors 0 to 3 read neither unless handed in.

The simulator hands in its own; `system_clock` and `system_random` are what a real node uses.
"""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: monotonic for intervals, wall for what is written into records."""

    def monotonic_ns(self) -> int: ...

    def wall_ns(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()


system_clock = SystemClock()


def system_random() -> random.Random:
    """A generator seeded by the operating system."""
    return random.Random(random.SystemRandom().getrandbits(128))
