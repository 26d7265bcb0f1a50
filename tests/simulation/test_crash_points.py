"""A crash before and after each durable step of append, commit, checkpoint, trim and install.

Before: the step is not on the disk. After: it is, and nobody has been told. On one node, and on all at once.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.simulation.node import Process
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS
from tests.simulation.script import calm_world, finish, follower_of
from tests.simulation.world import World

POINTS = [
    *(("journal", number) for number in (1, 2, 3, 5, 13)),
    *(("store", number) for number in (1, 2)),
    *(("install", number) for number in (1, 2, 3, 5)),
]


class CrashAt:
    """Crashes one node or all when a kind of job passes a phase for the number-th time from now on."""

    def __init__(self, world: World, job: str, number: int, phase: str, *, is_all: bool) -> None:
        self._world, self._job, self._phase, self._is_all = world, job, phase, is_all
        self._left = number
        self.has_struck = False
        world.on_job = self._pass

    def _pass(self, process: Process, job: str, phase: str) -> None:
        if (job, phase) != (self._job, self._phase) or self.has_struck:
            return
        self._left -= 1
        if self._left > 0:
            return
        self.has_struck = True
        victims = self._world.machines if self._is_all else [process.machine]
        for machine in victims:
            machine.crash()
            self._world.schedule.after(300 * MILLISECOND_NS, partial(self._world.restart, machine))


@pytest.mark.parametrize("is_all", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize(("job", "number"), POINTS)
def test_nothing_is_lost_by_a_crash_at(job: str, number: int, phase: str, is_all: bool) -> None:
    with calm_world(seed=3) as world:
        lagging = follower_of(world)
        lagging.crash()
        world.run_for(SECOND_NS)
        world.restart(lagging)
        crash = CrashAt(world, job, number, phase, is_all=is_all)
        world.run_for(2 * SECOND_NS)
        finish(world)
        assert world.counts["event_installed"] >= 1, "the follower came back behind the log"
        assert crash.has_struck


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_a_cluster_of_one_loses_nothing_by_a_crash_at(number: int, phase: str) -> None:
    with calm_world(seed=4, size=1) as world:
        crash = CrashAt(world, "journal", number, phase, is_all=True)
        world.run_for(2 * SECOND_NS)
        finish(world)
        assert crash.has_struck
