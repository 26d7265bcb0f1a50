"""Nodes that are elsewhere than the cluster knows find each other through one that stayed."""

from __future__ import annotations

from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.node.harness import cluster


def test_two_that_moved_at_once_are_told_of_each_other_by_the_one_that_stayed() -> None:
    """One of them leads: it reaches only the one that stayed, and the other, without a leader, can ask nobody."""
    with cluster() as made:
        made.elect()
        for member in (2, 3):
            made.restart(member, address=f"elsewhere-{member}:1")

        def stands(sender: MemberId, _: MemberId, frame: peer_pb2.Frame) -> bool:
            return sender == MemberId(1) and frame.WhichOneof("kind") == "pre_vote"

        made.loses = stands
        made.run_for(5_000)
        made.connect((1, 2), (1, 3))
        made.run_for(10_000)
        leader = made.leader.member.member_id
        other = MemberId(5 - leader)
        assert leader != MemberId(1)
        assert made.machines[leader].core.contacts.peers[other].peer_address == f"elsewhere-{other}:1"
        # What was true once must not be said for ever: it is said of peers that are linked.
        made.disconnect(1, other)
        made.restart(other, address=f"elsewhere-{other}:2")
        made.connect((leader, other))
        made.run_for(40_000)
        for number in (MemberId(1), leader):
            found = made.machines[number].core.state.configuration.member(other)
            assert found is not None
            assert found.peer_address == f"elsewhere-{other}:2"
