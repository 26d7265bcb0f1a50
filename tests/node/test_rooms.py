"""A disk without room elsewhere: the leader knows, and refuses what a majority could not keep."""

from __future__ import annotations

import pytest

from appliance.errors import Overloaded
from appliance.model import Member, MemberId
from appliance.node.proposals import Completion
from appliance.node.rooms import Rooms
from appliance.state.operations import delete_series
from raftberry.internal.v1 import command_pb2, peer_pb2
from tests.node.harness import Cluster, FakeClock, Machine, cluster
from tests.node.test_retention import submit, write


@pytest.mark.parametrize("is_leader_full", [True, False])
def test_a_majority_without_room_refuses_writes_wherever_they_are_asked(is_leader_full: bool) -> None:
    with cluster() as made:
        leader, (one, other) = made.elect(), made.followers
        full, asked = ([leader], one) if is_leader_full else ([one, other], leader)
        for machine in full:
            machine.core.housekeeping.disk_has(0)
        made.run_for(25_000)
        assert "the disk has 0 MiB free" in refused(made, asked, write([1], [1.0]))
        submit(made, asked, delete_series("s", "t"))
        for machine in full:
            machine.core.housekeeping.disk_has(None)
        made.run_for(25_000)
        submit(made, asked, write([1], [1.0]))


def test_one_follower_of_three_without_room_stops_nobody() -> None:
    with cluster() as made:
        leader = made.elect()
        made.followers[0].core.housekeeping.disk_has(0)
        made.run_for(25_000)
        submit(made, leader, write([1], [1.0]))


@pytest.mark.parametrize(("full", "count"), [(1, 2), (2, 4), (2, 3)])
def test_half_of_the_nodes_full_is_no_majority_with_room(full: int, count: int) -> None:
    rooms = Rooms(FakeClock())
    names = [MemberId(number) for number in range(1, count + 1)]
    members = {name: Member(name, f"n{name}", name, "x:1") for name in names}
    for name in names[:full]:
        assert rooms.refusal(members, "") == ""
        rooms.heard(name, peer_pb2.ClockSample(no_room="full"))
    told = "; ".join(f"n{name}: full" for name in names[:full])
    assert rooms.refusal(members, "") == f"no majority of the nodes has room: refusing writes ({told})"


def refused(made: Cluster, machine: Machine, operation: command_pb2.Operation) -> str:
    """What the caller hears, at once or from the leader."""
    heard: list[Completion] = []
    try:
        machine.core.submit(operation, made.clock.now_ns + 10**10, heard.append)
    except Overloaded as error:
        return str(error)
    made.run_for(1_000)
    assert isinstance(heard[0].error, Overloaded), heard
    return str(heard[0].error)
