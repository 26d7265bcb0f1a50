"""Membership, step by step: a cluster grows and shrinks, learners count for nothing, changes do not overlap (H13)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.consensus import Engine
from appliance.errors import NotApplied, OutcomeUnknown
from appliance.model import Configuration, Role
from appliance.state.membership import AddLearner, Change, PromoteMember, RemoveMember
from tests.simulation.failure import CheckFailed
from tests.simulation.node import Machine
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS
from tests.simulation.script import (
    calm_world,
    finish,
    follower_of,
    isolate,
    leader_of,
    process_of,
    run_until,
    stage,
)
from tests.simulation.world import World

Outcome = Configuration | NotApplied | OutcomeUnknown


def ask(world: World, machine: Machine, change: Change, *, patience_s: int = 10) -> list[Outcome]:
    """What the caller hears goes into the list."""
    heard: list[Outcome] = []
    process = machine.process
    assert process is not None
    deadline_ns = process.core.clock.monotonic_ns() + patience_s * SECOND_NS
    process.call(lambda: process.core.change_members(change, deadline_ns, heard.append))
    return heard


def change(world: World, machine: Machine, wanted: Change) -> Configuration:
    heard = ask(world, machine, wanted)
    run_until(world, lambda: bool(heard), bound_ns=15 * SECOND_NS)
    outcome = heard[0]
    assert isinstance(outcome, Configuration), outcome
    return outcome


def join(world: World, through: Machine, name: str, *, promote: bool = True) -> Machine:
    machine = world.add_machine(name)
    machine.speed.commit_ns_median = MILLISECOND_NS
    configuration = change(
        world, through, AddLearner(machine.member_id, name, machine.address, promote=promote)
    )
    world.connect_machine(machine, configuration)
    return machine


def role_of(machine: Machine) -> Role:
    assert machine.process is not None
    return machine.process.core.role


def is_voter(machine: Machine) -> bool:
    assert machine.process is not None
    return machine.member_id in machine.process.core.state.configuration.voters


def test_a_cluster_grows_from_one_to_five_and_shrinks_to_three_under_load() -> None:
    with calm_world(seed=3, size=1, is_tiny=False) as world:
        first = world.machines[0]
        for name in ("b", "c", "d", "e"):
            machine = join(world, first, name)
            run_until(world, lambda machine=machine: is_voter(machine))  # type: ignore[misc]
        acknowledged = world.history.counts["acknowledged"]
        for machine in (world.machines[1], leader_of(world)):
            configuration = change(world, first, RemoveMember(machine.member_id))
            run_until(world, lambda machine=machine: machine.is_removed)  # type: ignore[misc]
        assert len(configuration.voters) == 3
        world.run_for(2 * SECOND_NS)
        assert world.history.counts["acknowledged"] > acknowledged
        finish(world)


def test_a_leader_that_is_removed_hands_over_as_soon_as_what_is_in_flight_has_arrived() -> None:
    """Not when writes go on because nobody took over in time: they are in flight again in the same moment."""
    with calm_world(seed=3, size=3) as world:
        leader = leader_of(world)
        process = leader.process
        assert process is not None
        core = process.core
        while core.log.last_index == core.engine.commit_index:
            world.run_for(MILLISECOND_NS // 10)
        ask(world, leader, RemoveMember(leader.member_id))
        taken_ns = run_until(world, lambda: world.leader() not in (None, leader))
        assert taken_ns < core.consensus_options.election_timeout_min_ns
        run_until(world, lambda: leader.is_removed)
        finish(world)


def test_a_learner_follows_and_neither_votes_nor_counts_nor_stands() -> None:
    with calm_world(seed=2, size=3) as world:
        learner = join(world, follower_of(world), "copy", promote=False)
        run_until(world, lambda: role_of(learner) is Role.LEARNER)
        leader, heir, other = (
            leader_of(world),
            *[m for m in world.machines[:3] if m is not leader_of(world)],
        )
        for machine in (heir, other):
            isolate(world, machine)
        world.run_for(5 * SECOND_NS)
        committed = world.raft.commit_index
        world.run_for(5 * SECOND_NS)
        assert world.raft.commit_index == committed, "a leader and a learner are no majority of three voters"
        assert role_of(learner) is Role.LEARNER
        assert role_of(leader) is not Role.LEADER
        finish(world)


def test_a_learner_is_promoted_only_when_it_has_caught_up() -> None:
    with calm_world(seed=5, size=3) as world:
        machine = world.add_machine("late")
        added = AddLearner(machine.member_id, "late", machine.address, promote=False)
        configuration = change(world, leader_of(world), added)
        heard = ask(world, follower_of(world), PromoteMember(machine.member_id), patience_s=3)
        run_until(world, lambda: bool(heard))
        assert "the learner is not connected to the leader; nothing was changed" in str(heard[0])
        world.connect_machine(machine, configuration)
        change(world, follower_of(world), PromoteMember(machine.member_id))
        finish(world)


def test_a_removed_leader_hands_over_first_and_learns_that_it_was_removed() -> None:
    with calm_world(seed=6, size=3) as world:
        leader = leader_of(world)
        change(world, leader, RemoveMember(leader.member_id))
        run_until(world, lambda: leader.is_removed)
        assert leader_of(world) is not leader
        terms = len(world.raft.leaders)
        world.run_for(5 * SECOND_NS)
        assert len(world.raft.leaders) == terms, "it disturbs nobody"
        finish(world)


def test_a_board_that_is_replaced_while_another_is_away_is_found_by_it() -> None:
    """The one that was away knows neither the new board nor, at first, that the old one is gone."""
    with calm_world(seed=7, size=3) as world:
        away, dead = follower_of(world), [m for m in world.machines if m is not follower_of(world)][-1]
        if dead is leader_of(world):
            dead = next(m for m in world.machines if m not in (away, leader_of(world)))
        join(world, leader_of(world), "fourth")
        run_until(world, lambda: is_voter(world.machines[3]))
        away.crash()
        dead.is_gone = True
        dead.crash()
        heard = ask(world, leader_of(world), RemoveMember(dead.member_id))
        run_until(world, lambda: bool(heard), bound_ns=15 * SECOND_NS)
        world.restart(away)
        finish(world)


def test_a_removal_that_would_stop_the_cluster_is_refused_with_the_reason() -> None:
    with calm_world(seed=8, size=3) as world:
        leader, dead = leader_of(world), follower_of(world)
        other = next(m for m in world.machines if m not in (leader, dead))
        dead.crash()
        world.run_for(SECOND_NS)
        heard = ask(world, leader, RemoveMember(other.member_id))
        run_until(world, lambda: bool(heard))
        assert (
            f"without {other.name} the cluster needs 2 of 2 voters, and {dead.name} is not connected"
            in str(heard[0])
        )
        change(world, leader, RemoveMember(dead.member_id))
        dead.is_gone = True
        finish(world)


def test_no_board_of_the_swarm_dies_while_a_removal_counts_on_it() -> None:
    """Two voters of which one is dead are beyond help: an operator who makes them so is no fault to survive."""
    with calm_world(seed=8, size=3) as world:
        remove, replace = (world.members.kinds[kind][1] for kind in ("remove_leader", "replace_member"))
        assert remove()
        assert not replace(), "of the two that are left none may die, and the third is busy leaving"
        assert not any(machine.is_gone for machine in world.machines)
        run_until(world, lambda: world.counts["member_removed"] == 1)
        finish(world)


def test_no_removal_of_the_swarm_counts_on_a_board_that_is_dead() -> None:
    with calm_world(seed=1, size=3) as world:
        remove, replace = (world.members.kinds[kind][1] for kind in ("remove_leader", "replace_member"))
        assert replace()
        assert not leader_of(world).is_gone
        assert not remove(), "the dead one goes first"
        run_until(world, lambda: world.counts["member_added"] == 1, bound_ns=30 * SECOND_NS)
        finish(world)


@pytest.mark.parametrize("delay_ms", range(1_950, 2_050, 25))
def test_a_run_is_not_over_before_the_one_removed_at_last_was_told(delay_ms: int) -> None:
    with calm_world(seed=6, size=3) as world:
        leader, member = leader_of(world), follower_of(world)

        def remove() -> None:
            ask(world, leader, RemoveMember(member.member_id))

        world.schedule.after(delay_ms * MILLISECOND_NS, remove)
        finish(world)
        assert member.is_removed


def overlapping_removals(world: World) -> None:
    """A leader that is cut off is told to remove both others, by force."""
    leader = leader_of(world)
    others = [machine for machine in world.machines if machine is not leader]
    isolate(world, leader)
    for machine in others:
        ask(world, leader, RemoveMember(machine.member_id, force=True))
    world.run_for(8 * SECOND_NS)


def test_overlapping_changes_are_not_accepted() -> None:
    with calm_world(seed=9, size=3) as world:
        leader = leader_of(world)
        overlapping_removals(world)
        assert leader_of(world) is not leader
        finish(world)


def test_h13_overlapping_changes_make_two_majorities(monkeypatch: pytest.MonkeyPatch) -> None:
    never: Callable[[Engine], bool] = lambda _: False  # noqa: E731 - a property needs a function
    monkeypatch.setattr(Engine, "is_configuration_pending", property(never))
    with calm_world(seed=9, size=3) as world, pytest.raises(CheckFailed) as failed:
        overlapping_removals(world)
    assert str(failed.value).partition(":")[0] in {"state_machine_safety", "leader_completeness"}


def test_a_leader_of_a_later_term_asks_anew_whether_a_learner_has_caught_up() -> None:
    """What it knew of the learner when it led before is no reason: 400 entries passed meanwhile."""
    with stage() as s:
        a, b, c = s.nodes
        s.elect(a)
        core = process_of(a).core
        learner = s.world.add_machine("late")
        learner.speed.commit_ns_median = MILLISECOND_NS
        heard = ask(s.world, a, AddLearner(learner.member_id, "late", learner.address), patience_s=2)
        s.until(lambda: bool(heard), "added")
        s.hold(b, a)
        s.hold(c, a)
        s.world.connect_machine(learner, core.log.configuration)
        s.until(lambda: learner.member_id in core.log.configuration.voters, "promoted")
        s.hold(a, b, c)
        s.cut(a, b, c, learner)
        s.crash(learner)
        s.wait(2_500)
        s.elect(b)
        s.connect(a, b, c)
        s.wait(300)
        assert learner.member_id not in core.log.configuration.voters, "its promotion was truncated"
        for _ in range(20):
            s.propose(b, 20, size=1_000)
            s.wait(100)
        s.nodes = s.world.machines
        s.wait(10_000)
        s.start(learner)
        for machine in (a, b, c):
            s.links.cut(machine.member_id, learner.member_id)
        s.hand_over(b, a)
        s.links.connect(a.member_id, learner.member_id)
        s.until(lambda: core.engine.is_connected(learner.member_id), "connected")
        s.hold(a, learner)
        s.until(lambda: core.engine.is_leader and core.engine.has_committed_in_term, "elected")
        s.wait(30)
        s.expect(len(core.log.configuration.voters) == 3, "caught_up")
        s.release(a, learner)
        s.finish()


def test_what_one_disk_of_two_holds_is_acknowledged_only_when_the_removal_of_the_other_is_durable() -> None:
    with stage(2) as s:
        a, b = s.nodes
        s.elect(a)
        s.hold(a, b)
        call = s.put(a)
        s.wait(50)
        core = process_of(a).core
        s.stall(a, 2_000)
        ask(s.world, a, RemoveMember(b.member_id, force=True))
        s.wait(100)
        assert len(core.log.configuration.voters) == 1
        assert core.log.durable_index < core.log.configuration.index
        s.expect(call.outcome == "", "durable_on_majority")
        s.wait(3_000)
        s.expect(call.outcome == "ok", "answered_in_time")
