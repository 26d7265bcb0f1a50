"""Scripts for the guards of elections and of reads: who leads, and who may say so (H16, H17, H18).

Each leads to the point where only the guard helps, passes with the guard on, and is judged by the checkers that
always look, or by an expectation of its own.
"""

from __future__ import annotations

from appliance.model import Role
from appliance.state.membership import AddLearner
from tests.simulation.failure import require
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS
from tests.simulation.script import (
    calm_world,
    finish,
    isolate,
    leader_of,
    process_of,
    run_until,
    stage,
)


def a_vote_comes_twice() -> None:
    """Two stand at once, of five: one has its own vote and b's, twice; the other has three."""
    with stage(5) as s:
        a, b, c, d, e = s.nodes
        s.elect(a)
        s.crash(a)
        s.start(a)
        s.links.delay_ns = 5 * MILLISECOND_NS
        s.wait(1_000)
        s.stand(a, c)
        s.until(lambda: process_of(a).core.engine.role is Role.CANDIDATE, "elected")
        s.hold(a, c, d, e)
        s.hold(c, a, b)
        s.until(lambda: process_of(c).core.engine.role is not Role.FOLLOWER, "elected")
        s.wait(20)
        s.links.repeat(b.member_id, a.member_id, "vote", -1)
        s.wait(100)
        s.finish()


def a_candidate_is_left_behind() -> None:
    """Its term is higher than the leader's, and nobody grants it a pre-vote: somebody must tell the leader."""
    with stage() as s:
        leader, candidate, _ = s.nodes
        s.elect(leader)
        s.pause(leader)
        s.wait(600)
        s.stand(candidate)
        s.until(lambda: process_of(candidate).core.engine.role is Role.CANDIDATE, "elected")
        s.cut(candidate)
        s.resume(leader)
        s.wait(300)
        call = s.put(leader)
        s.connect(candidate)
        s.wait(1_000)
        s.stand(leader)
        s.wait(1_000)
        s.expect(call.outcome == "ok", "answered_in_time")
        s.expect(process_of(candidate).core.engine.applied_index >= call.index, "converged")
        s.finish()


def a_lone_voter_loses_its_term() -> None:
    """It asks nobody before it leads: its learner is the first that hears of the term, and may remember more of it."""
    with calm_world(size=1) as world:
        lone, learner = world.machines[0], world.add_machine("learner")
        learner.speed.commit_ns_median = MILLISECOND_NS
        core = process_of(lone).core
        heard: list[object] = []
        added = AddLearner(learner.member_id, learner.name, learner.address, promote=False)
        deadline_ns = lone.clock.monotonic_ns() + SECOND_NS
        process_of(lone).call(lambda: core.change_members(added, deadline_ns, heard.append))
        run_until(world, lambda: bool(heard))
        world.connect_machine(learner, core.log.configuration)
        run_until(
            world, lambda: process_of(learner).core.engine.applied_index >= core.log.configuration.index
        )
        lone.crash()
        world.restart(lone)
        election = process_of(lone).core.engine._election
        run_until(world, lambda: election.deadline_ns - lone.clock.monotonic_ns() < 10 * MILLISECOND_NS)
        lone.speed.stalled_until_ns = world.schedule.now_ns + 60 * SECOND_NS
        run_until(world, lambda: process_of(lone).core.engine.is_leader)
        world.run_for(300 * MILLISECOND_NS)
        lone.crash()
        lone.speed.stalled_until_ns = 0
        isolate(world, learner)
        world.restart(lone)
        run_until(world, lambda: process_of(lone).core.engine.has_committed_in_term)
        world.run_for(300 * MILLISECOND_NS)
        finish(world)


def a_follower_returns_from_a_partition() -> None:
    """Nobody missed it, and nobody shall notice its return."""
    with stage() as s:
        leader, other, follower = s.nodes
        s.elect(leader)
        s.cut(follower, leader)
        s.hold(follower, other)
        for _ in range(3):
            s.stand(follower)
            s.wait(600)
        s.links.cut(follower.member_id, other.member_id)
        s.release(follower, other)
        s.connect(follower)
        s.wait(500)
        engine = process_of(leader).core.engine
        s.expect(engine.is_leader and engine.term == 1, "stable_leader")
        s.finish()


def the_leader_is_killed() -> None:
    """Its broken streams say so: no election timeout need pass."""
    with calm_world() as world:
        old = leader_of(world)
        old.crash()
        taken_ns = run_until(world, lambda: world.leader() is not None)
        require(taken_ns < 500 * MILLISECOND_NS, "prompt_succession", f"took {taken_ns} ns")
        finish(world)


def the_leader_is_cut_off() -> None:
    """It stops leading in two election timeouts, as long as it has something of its own to write."""
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        s.cut(leader)
        for _ in range(30):
            if process_of(leader).core.engine.is_leader:
                s.propose(leader, 1)
            s.wait(100)
        s.expect(not process_of(leader).core.engine.is_leader, "no_lonely_leader")
        s.finish()


def the_leader_that_was_deposed_is_asked() -> None:
    """It doesn't know yet; what it says must not be older than what another leader acknowledged."""
    with stage() as s:
        old, new, _ = s.nodes
        s.elect(old)
        s.cut(old)
        s.elect(new)
        write = s.put(new)
        s.wait(100)
        s.expect(write.outcome == "ok", "answered_in_time")
        s.read(old)
        s.wait(100)
        s.finish()


def a_new_leader_is_asked_at_once() -> None:
    """It holds all that is committed, and does not know yet how far that is."""
    with stage() as s:
        old, new, _ = s.nodes
        s.elect(old)
        s.links.delay_ns = 5 * MILLISECOND_NS
        call = s.put(old)
        s.until(lambda: bool(call.outcome), "answered_in_time")
        s.crash(old)
        s.stand(new)
        s.until(lambda: process_of(new).core.engine.is_leader, "elected")
        read = s.read(new)
        s.wait(200)
        s.expect(read.outcome == "ok", "answered_in_time")
        s.finish()


def a_voter_restarts_between_two_candidates() -> None:
    """Of five, b has the votes of a and d; a forgets, or not, and is then asked by c, which stood in the same term."""
    with stage(5) as s:
        a, b, c, d, e = s.nodes
        s.elect(a)
        s.crash(a)
        s.start(a)
        s.links.delay_ns = 5 * MILLISECOND_NS
        s.wait(1_000)
        for node in (a, b, d, e):
            s.hold(node, c)
        s.hold(b, e)
        s.stand(c)
        s.wait(50)
        s.stand(b)
        s.until(lambda: process_of(b).core.engine.is_leader, "elected")
        s.hold(b, a, d)
        s.wait(20)
        s.cut(a, b)
        s.crash(a)
        s.start(a)
        s.release(e, c)
        s.release(d, c)
        s.until(lambda: process_of(c).core.engine.role is not Role.FOLLOWER, "elected")
        s.wait(100)
        s.finish()


def the_leader_is_asked_in_the_very_moment_of_its_fall() -> None:
    """It was confirmed just before: what confirmed it then says nothing of the read that comes now."""
    with stage() as s:
        old, new, _ = s.nodes
        s.elect(old)
        reads = process_of(old).core.engine._reads
        s.until(lambda: reads._confirmed == reads.begun, "converged")
        s.cut(old)
        s.stand(new)
        s.until(lambda: process_of(new).core.engine.is_leader, "elected")
        write = s.put(new)
        s.until(lambda: write.outcome == "ok", "answered_in_time")
        s.read(old)
        s.wait(100)
        s.finish()
