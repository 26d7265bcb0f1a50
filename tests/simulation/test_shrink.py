"""A seed that fails is shrunk to the faults that it needs."""

from __future__ import annotations

import pytest

from tests.simulation.node import Machine
from tests.simulation.schedule import SECOND_NS
from tests.simulation.swarm import shrink
from tests.simulation.world import Plan, World

KINDS = frozenset({"crash_one", "stall_link", "reset_link", "cut_pair", "pause_one"})


def plan_with_a_crash_among_others() -> Plan:
    """The first seed that draws a crash and at least two kinds beside it."""
    plans = (Plan(seed, size=3, fault_ns=40 * SECOND_NS, kinds=KINDS) for seed in range(1_000))
    drawn = ((plan, World(plan).faults.kinds) for plan in plans)
    return next(plan for plan, kinds in drawn if "crash_one" in kinds and len(kinds) >= 3)


def test_a_disk_that_forgets_when_the_power_fails_is_shrunk_to_the_power_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crash = Machine.crash

    def forget(self: Machine, *, is_kernel_finishing: bool = False) -> None:
        crash(self, is_kernel_finishing=is_kernel_finishing)
        self.disk.entries.clear()
        self.disk.state = self.disk.boot_count = None

    plan = plan_with_a_crash_among_others()
    with monkeypatch.context() as patch:
        patch.setattr(Machine, "crash", forget)
        found = shrink(plan)
    assert found is not None
    kinds, failure = found
    assert kinds == {"crash_one"}, failure


def test_a_seed_that_passes_is_not_shrunk() -> None:
    assert shrink(plan_with_a_crash_among_others()) is None
