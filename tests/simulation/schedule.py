"""Simulated time: a queue of what happens when, and each machine's view of it.

Invariant: actions run in order of (time, number), so that a seed has one course. Nothing here reads a real clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

MICROSECOND_NS = 1_000
MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000

EPOCH_NS = 1_767_225_600 * SECOND_NS
"""The wall clock at the start: 2026-01-01."""

Action = Callable[[], None]


class Schedule:
    def __init__(self) -> None:
        self.now_ns = SECOND_NS
        self._queue: list[tuple[int, int, Action]] = []
        self._count = 0

    def at(self, when_ns: int, action: Action) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when_ns if when_ns > self.now_ns else self.now_ns, self._count, action))

    def after(self, delay_ns: int, action: Action) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now_ns + delay_ns, self._count, action))

    def run_until(self, end_ns: int) -> None:
        """Everything that is due before end_ns, which is then the time."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] < end_ns:
            self.now_ns, _, action = pop(queue)
            action()
        self.now_ns = end_ns


class MachineClock:
    """A machine's clocks: its own time since boot, which may run too fast or too slow, and a wall clock."""

    def __init__(self, schedule: Schedule, *, boot_offset_ns: int, wall_offset_ns: int) -> None:
        self._schedule = schedule
        self._offset_ns, self.wall_offset_ns = boot_offset_ns, wall_offset_ns
        self._since_ns = self._ppm = 0

    def monotonic_ns(self) -> int:
        now_ns = self._schedule.now_ns
        if self._ppm:
            now_ns += (now_ns - self._since_ns) * self._ppm // 1_000_000
        return now_ns + self._offset_ns

    def wall_ns(self) -> int:
        return EPOCH_NS + self._schedule.now_ns + self.wall_offset_ns

    def set_rate(self, ppm: int) -> None:
        """From now on a million microseconds take this clock so many more; it never goes back."""
        now_ns = self.monotonic_ns()
        self._since_ns, self._ppm = self._schedule.now_ns, ppm
        self._offset_ns = now_ns - self._schedule.now_ns

    def real_ns(self, duration_ns: int) -> int:
        """How long the world takes for what takes this clock duration_ns."""
        return duration_ns * 1_000_000 // (1_000_000 + self._ppm) + 1 if self._ppm else duration_ns
