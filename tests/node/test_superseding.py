"""A cluster that was made a new one of one of its nodes: who is told, who stands by, who goes on."""

from __future__ import annotations

from dataclasses import replace

from appliance.limits import OUTLIVED_AFTER_NS
from appliance.model import ClusterId, MemberId, Role
from raftberry.internal.v1 import peer_pb2
from tests.node.harness import MILLISECOND_NS, Cluster, Machine, cluster

NEW = ClusterId(6)
LONG_MS = OUTLIVED_AFTER_NS // MILLISECOND_NS + 1_000


def told_by_first(made: Cluster, machine: Machine) -> peer_pb2.Refusal:
    """n1 was made the cluster NEW, and the machine dials it."""
    first = made.machines[MemberId(1)].core
    first.me = replace(first.me, cluster_id=NEW, superseded=(ClusterId(5),))
    refusal = first.check_hello(machine.core.hello(first.me.member_id))
    assert refusal is not None
    machine.core.on_refused(refusal)
    return refusal


def test_two_old_members_that_come_back_stand_by_before_they_are_a_cluster() -> None:
    with cluster() as made:
        second, third = list(made.machines.values())[1:]
        marks: list[str] = []
        second.core.on_removed = marks.append
        refusal = told_by_first(made, second)
        assert refusal.reason == peer_pb2.Refusal.REASON_SUPERSEDED
        assert "n1 was made the new cluster 0000000000000006" in refusal.message
        assert second.core.role is Role.REMOVED
        assert "its cluster 0000000000000005 was superseded by 0000000000000006" in marks[0]
        made.connect((2, 3))
        made.run_for(30_000)
        assert not third.core.engine.is_leader
        assert third.core.state.position.index == 1


def test_a_majority_that_came_back_a_moment_ago_stands_by_too() -> None:
    with cluster() as made:
        made.connect((2, 3))
        made.run_for(10_000)
        assert made.leader.core.me.member_id in (2, 3)
        told_by_first(made, made.leader)
        assert [machine.core.role for machine in made.machines.values()].count(Role.REMOVED) == 1


def test_a_majority_that_has_long_worked_goes_on_and_says_so() -> None:
    with cluster() as made:
        made.connect((2, 3))
        made.run_for(LONG_MS)
        outlived: list[ClusterId] = []
        for machine in list(made.machines.values())[1:]:
            machine.core.superseding.on_outlived = outlived.append
            told_by_first(made, machine)
            told_by_first(made, machine)
            assert machine.core.role in (Role.LEADER, Role.FOLLOWER)
            assert "this cluster goes on, and there are two now" in machine.core.superseding.alarm()
        assert outlived == [NEW, NEW]
        # The alarm goes when nobody says it any more: the member was removed, or its node ended.
        made.run_for(31_000)
        assert not made.leader.core.superseding.alarm()


def test_what_was_outlived_once_is_outlived_after_a_restart() -> None:
    with cluster() as made:
        second = made.machines[MemberId(2)]
        second.core.me = replace(second.core.me, outlived=(NEW,))
        restarted = type(second.core.superseding)(second.core)
        second.core.superseding = restarted
        told_by_first(made, second)
        assert second.core.role is not Role.REMOVED


def test_the_word_about_another_cluster_or_of_a_stranger_shuts_nobody_out() -> None:
    with cluster() as made:
        core = made.elect().core
        for superseded, successor in ((7, NEW), (5, 5)):
            core.on_refused(
                peer_pb2.Refusal(
                    reason=peer_pb2.Refusal.REASON_SUPERSEDED,
                    superseded_cluster_id=superseded,
                    cluster_id=successor,
                )
            )
        assert core.role is Role.LEADER
        hello = core.hello(MemberId(2))
        hello.hello.cluster_id = 99
        refusal = made.machines[MemberId(2)].core.check_hello(hello)
        assert refusal is not None
        assert refusal.reason == peer_pb2.Refusal.REASON_OTHER_CLUSTER
