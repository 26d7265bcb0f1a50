"""What an operator sees: a leader dies, a node is stopped and goes on, a cable is pulled, an old card is put back."""

from __future__ import annotations

import pytest

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


def other_leader(world: World, old: object) -> bool:
    leader = world.leader()
    return leader is not None and leader is not old


def test_a_killed_leader_is_replaced_at_once() -> None:
    with calm_world() as world:
        old = leader_of(world)
        old.crash()
        taken_ns = run_until(world, lambda: other_leader(world, old))
        assert taken_ns < 500 * MILLISECOND_NS, "its broken streams say that it is gone"
        finish(world)


def test_a_stopped_follower_comes_back_without_an_election() -> None:
    with calm_world() as world:
        leader, follower = leader_of(world), follower_of(world)
        terms = len(world.raft.leaders)
        assert follower.process is not None
        follower.process.pause()
        world.run_for(4 * SECOND_NS)
        follower.process.resume()
        world.run_for(3 * SECOND_NS)
        assert len(world.raft.leaders) == terms
        assert leader_of(world) is leader
        finish(world)


def test_a_stopped_leader_comes_back_as_a_follower() -> None:
    with calm_world() as world:
        old = leader_of(world)
        assert old.process is not None
        old.process.pause()
        world.run_for(4 * SECOND_NS)
        old.process.resume()
        world.run_for(2 * SECOND_NS)
        assert leader_of(world) is not old
        assert not old.process.core.engine.is_leader
        finish(world)


def test_a_leader_that_is_cut_off_stops_leading_and_the_others_go_on() -> None:
    with calm_world() as world:
        old = leader_of(world)
        isolate(world, old)
        run_until(world, lambda: other_leader(world, old))
        world.run_for(3 * SECOND_NS)
        assert old.process is not None
        assert not old.process.core.engine.is_leader
        finish(world)


def test_a_leader_whose_disk_stalls_lets_another_lead() -> None:
    with calm_world() as world:
        old = leader_of(world)
        old.speed.stalled_until_ns = world.schedule.now_ns + 6 * SECOND_NS
        taken_ns = run_until(world, lambda: other_leader(world, old))
        assert taken_ns < 4 * SECOND_NS
        finish(world)


def test_leadership_is_handed_over_without_a_gap() -> None:
    with calm_world() as world:
        old = leader_of(world)
        process = old.process
        assert process is not None
        for client in world.clients:
            client.is_stopped = True
        world.run_for(SECOND_NS)
        process.call(lambda: process.core.handover.on_request(""))
        taken_ns = run_until(world, lambda: other_leader(world, old))
        assert taken_ns < 200 * MILLISECOND_NS
        finish(world)


def test_a_node_whose_card_is_older_than_its_word_is_shut_out() -> None:
    with calm_world() as world:
        forgetful = follower_of(world)
        image = forgetful.disk.copy()
        world.run_for(2 * SECOND_NS)
        forgetful.crash()
        world.faults.losses.put_back(forgetful, image)
        world.restart(forgetful)
        world.run_for(2 * SECOND_NS)
        assert forgetful.process is not None
        assert "must not vote" in forgetful.process.core.quarantine_reason
        finish(world)


def test_an_idle_cluster_writes_nothing() -> None:
    with calm_world() as world:
        for client in world.clients:
            client.is_stopped = True
        world.run_for(10 * SECOND_NS)
        written = world.counts["job_journal_after"] + world.counts["job_store_after"]
        world.run_for(60 * SECOND_NS)
        assert world.counts["job_journal_after"] + world.counts["job_store_after"] == written


@pytest.mark.parametrize("is_watched", [False, True])
def test_a_follower_that_is_watched_hears_of_a_commit_at_once(*, is_watched: bool) -> None:
    """Elsewhere the news wait for entries to go with."""
    with stage() as s:
        leader, follower, _ = s.nodes
        s.elect(leader)
        process_of(follower).core.engine.want_news(is_wanted=is_watched)
        s.put(leader)
        s.wait(100)
        call = s.put(leader)
        s.until(lambda: bool(call.outcome), "acknowledged")
        s.wait(2)
        has_applied = process_of(follower).core.engine.applied_index >= call.index
        assert has_applied == is_watched
        s.finish()


def test_an_election_that_could_not_begin_does_not_wait_for_its_chance() -> None:
    """A pre-vote is won in the moment in which the last link breaks; a healthy leader is not deposed for it later."""
    with stage() as s:
        a, b, f = s.nodes
        s.elect(a)
        s.cut(a, b)
        s.cut(a, f)
        s.hold(b, f)
        s.stand(f)
        s.wait(20)
        for frame in s.links.under_way(b.member_id, f.member_id, "live"):
            s.links.deliver(b.member_id, f.member_id, 1)
            if frame.WhichOneof("kind") == "pre_vote_reply":
                break
        s.links.cut(b.member_id, f.member_id)
        s.connect(a, b)
        s.wait(2_000)
        s.connect(f)
        s.wait(500)
        engine = process_of(a).core.engine
        s.expect(engine.is_leader and engine.term == 1, "stable_leader")
        s.finish()
