"""A calm world for scripts: no fault but those that the script makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.simulation.node import Machine
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS
from tests.simulation.world import Plan, World

NO_KINDS: frozenset[str] = frozenset()


@contextmanager
def calm_world(seed: int = 1, *, size: int = 3, is_tiny: bool = True) -> Iterator[World]:
    """Started, with a leader and clients at work."""
    world = World(Plan(seed, size=size, kinds=NO_KINDS, is_tiny=is_tiny))
    world.network.spike_rate, world.network.delay_ns_max = 0.0, 2 * MILLISECOND_NS
    for machine in world.machines:
        machine.speed.commit_ns_median = MILLISECOND_NS
    with world.opened():
        world.start()
        run_until(world, lambda: world.leader() is not None)
        world.run_for(SECOND_NS)
        yield world


def run_until(world: World, is_reached: Callable[[], bool], *, bound_ns: int = 10 * SECOND_NS) -> int:
    """Nanoseconds until the condition held, to a few milliseconds."""
    begun = world.schedule.now_ns
    while not is_reached():
        assert world.schedule.now_ns - begun < bound_ns, world.describe()
        world.run_for(5 * MILLISECOND_NS)
    return world.schedule.now_ns - begun


def leader_of(world: World) -> Machine:
    leader = world.leader()
    assert leader is not None, world.describe()
    return leader


def follower_of(world: World) -> Machine:
    leader = leader_of(world)
    return next(machine for machine in world.machines if machine is not leader)


def isolate(world: World, machine: Machine) -> None:
    for other in world.machines:
        if other is not machine:
            world.network.block(machine.member_id, other.member_id)
            world.network.block(other.member_id, machine.member_id)


def finish(world: World) -> None:
    """Mend, rest, and check all there is to check at the end."""
    world.heal()
    world.check_end()
