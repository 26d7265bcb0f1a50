"""The committer and the readers of a simulated machine, and how long its card takes.

Invariant: jobs run one after the other in the order given; a job's work is on the disk at its finish, the loop hears
of it a little later, so that a crash may fall before the commit, or between the commit and its news. A stopped
process finishes the job that is in the kernel and begins no other.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from appliance.errors import CorruptData, StorageFailed
from tests.simulation.schedule import MICROSECOND_NS, MILLISECOND_NS, Schedule

Result = TypeVar("Result")

SLOW_NS_MAX = 5_000 * MILLISECOND_NS


class Host(Protocol):
    """The process whose disk this is."""

    @property
    def is_alive(self) -> bool: ...

    @property
    def is_paused(self) -> bool: ...

    def call(self, action: Callable[[], None]) -> None:
        """On the process's loop: later if it is paused, never if it is dead."""

    def on_job(self, name: str, phase: str) -> None:
        """A job is about to be durable ("before") or has become so ("after"); may end the process."""


@dataclass(slots=True)
class DiskSpeed:
    """commit_ns_median: most take about this long; stalled_until_ns: nothing finishes before."""

    commit_ns_median: int
    stalled_until_ns: int = 0
    slow_until_ns: int = 0
    slow_factor: int = 1

    def draw_ns(self, rng: random.Random, now_ns: int) -> int:
        spread = self.commit_ns_median * rng.uniform(0.3, 2.0)
        if now_ns < self.slow_until_ns:
            return min(int(spread * self.slow_factor), SLOW_NS_MAX)
        return int(spread * rng.uniform(3, 15)) if rng.random() < 0.03 else int(spread)


@dataclass(slots=True)
class _Job:
    name: str
    work: Callable[[], object]
    done: Callable[..., None]


class SimWorkers:
    """appliance.node.workers.Workers on simulated time."""

    def __init__(self, host: Host, schedule: Schedule, rng: random.Random, speed: DiskSpeed) -> None:
        self._host, self._schedule, self._rng, self._speed = host, schedule, rng, speed
        self._queue: deque[_Job] = deque()
        self._running: _Job | None = None
        self._told_ns = 0
        self._untold = 0
        """Jobs that are done, and the loop does not know it yet."""

        self.counts: Counter[str] = Counter()

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def write(self, name: str, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        self._queue.append(_Job(name, work, done))
        self.start_next()

    def read(self, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        def run() -> None:
            result = work()  # damage that it finds is heard of on the loop, as from the pool
            self._schedule.after(
                self._rng.randint(1, 100) * MICROSECOND_NS, lambda: self._host.call(lambda: done(result))
            )

        delay_ns = self._rng.randint(50, 3_000) * MICROSECOND_NS
        self._schedule.after(delay_ns, lambda: self._host.call(run))

    def start_next(self) -> None:
        """Begin the next job, unless one is under way or the process is stopped."""
        if self._running is not None or not self._queue or self._host.is_paused or not self._host.is_alive:
            return
        self._running = self._queue.popleft()
        self._schedule.after(self._speed.draw_ns(self._rng, self._schedule.now_ns), self._finish)

    def finish_in_kernel(self) -> None:
        """The process dies while a job is in the kernel: it becomes durable all the same."""
        job = self._running
        if job is not None:
            with suppress(StorageFailed, CorruptData):
                job.work()

    def phase(self, *, is_kernel_finishing: bool) -> str:
        """Where a crash finds the commits: inside one, after one that the loop has not heard of yet, or at rest."""
        if self._running is not None:
            return "inside_new" if is_kernel_finishing else "inside_old"
        return "after" if self._untold else "at_rest"

    def tear_in_kernel(self, tear: Callable[[Callable[[], object]], None]) -> None:
        """Or it is on its way to the card when the power fails."""
        job = self._running
        if job is not None and job.name in ("journal", "store"):
            tear(job.work)

    def _finish(self) -> None:
        if not self._host.is_alive:
            return
        stalled_until = self._speed.stalled_until_ns
        if self._schedule.now_ns < stalled_until:
            self._schedule.at(stalled_until, self._finish)
            return
        job = self._running
        assert job is not None
        self._host.on_job(job.name, "before")
        if not self._host.is_alive:
            return
        try:
            result = job.work()
        except (StorageFailed, CorruptData) as error:
            self._running = None
            self._host.call(partial(_raise, error))
            return
        self._running = None
        self.counts[job.name] += 1
        self._host.on_job(job.name, "after")
        self._told_ns = max(
            self._told_ns + 1, self._schedule.now_ns + self._rng.randint(1, 200) * MICROSECOND_NS
        )
        self._untold += 1
        self._schedule.at(self._told_ns, lambda: self._host.call(partial(self._tell, job, result)))
        self.start_next()

    def _tell(self, job: _Job, result: object) -> None:
        self._untold -= 1
        job.done(result)


def _raise(error: Exception) -> None:
    raise error


def draw_speed(rng: random.Random) -> DiskSpeed:
    """From an SSD to a tired card."""
    return DiskSpeed(int(rng.choice([0.1, 1, 4, 15, 40]) * MILLISECOND_NS))
