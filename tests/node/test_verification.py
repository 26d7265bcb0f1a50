"""Nodes that hash their state at one entry: who differs from a majority steps aside, and nobody else."""

from __future__ import annotations

from appliance.state.operations import verify_state
from tests.node.harness import Cluster, Machine, cluster, put


def spoil(machine: Machine) -> None:
    """As a bug or a flipped bit in memory would: the state differs, and nothing on the disk says so."""
    machine.core.state._tables.keys.revision += 1


def verify(made: Cluster) -> int:
    """The index at which all hash."""
    done: list[int] = []
    leader = made.leader.core
    leader.submit(verify_state(), made.clock.now_ns + 10**10, lambda outcome: done.append(outcome.index))
    made.run_for(1_000)
    return done[0]


def aside(made: Cluster) -> list[str]:
    return [machine.core.me.name for machine in made.machines.values() if machine.core.quarantine_reason]


def write(made: Cluster) -> None:
    made.leader.core.submit(put(), made.clock.now_ns + 10**10, lambda _: None)
    made.run_for(1_000)


def test_equal_nodes_find_themselves_equal() -> None:
    with cluster() as made:
        made.elect()
        write(made)
        index = verify(made)
        for machine in made.machines.values():
            found = machine.core.verification.round(index)
            assert len(found.hashes) == 3
            assert found.is_equal
            assert machine.core.verification.alarm == ""
        assert aside(made) == []


def test_a_follower_that_differs_from_a_majority_steps_aside() -> None:
    with cluster() as made:
        made.elect()
        odd = made.followers[0]
        spoil(odd)
        verify(made)
        assert aside(made) == [odd.core.me.name]
        assert "differs from that of" in odd.core.quarantine_reason
        assert "must be rebuilt from its peers" in odd.core.quarantine_reason


def test_a_leader_that_differs_steps_aside_too_and_the_others_go_on() -> None:
    with cluster() as made:
        odd = made.elect()
        spoil(odd)
        odd.core.submit(verify_state(), made.clock.now_ns + 10**10, lambda _: None)
        made.run_for(1_000)
        assert aside(made) == [odd.core.me.name]
        for machine in made.machines.values():
            if machine is not odd:
                made.disconnect(odd.core.me.member_id, machine.core.me.member_id)
        made.run_for(5_000)
        leading = [one for one in made.machines.values() if one.core.engine.is_leader and one is not odd]
        assert len(leading) == 1


def test_where_no_majority_agrees_nobody_steps_aside_and_everybody_says_so() -> None:
    with cluster(2) as made:
        made.elect()
        spoil(made.followers[0])
        verify(made)
        assert aside(made) == []
        for machine in made.machines.values():
            assert "nodes hold different states at index" in machine.core.verification.alarm


def test_a_majority_must_be_heard_from() -> None:
    """Two of five that agree against one are no majority: the one may be right."""
    with cluster(5) as made:
        made.elect()
        odd, *others = made.followers
        silent = {machine.core.me.member_id for machine in others[:2]}
        made.loses = lambda sender, _, frame: sender in silent and frame.WhichOneof("kind") == "state_hash"
        spoil(odd)
        verify(made)
        assert aside(made) == []
        made.loses = lambda *_: False
        verify(made)
        assert aside(made) == [odd.core.me.name]
