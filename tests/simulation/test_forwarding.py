"""What a follower forwards, and what it hears when the same frame reaches a node twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.simulation.ablation_guards import refuse_what_was_taken
from tests.simulation.node import Machine, Process
from tests.simulation.schedule import SECOND_NS
from tests.simulation.script import calm_world, finish, follower_of, isolate, leader_of, run_until
from tests.simulation.world import World

Fall = Callable[[World, Machine], None]


def depose(world: World, leader: Machine) -> None:
    isolate(world, leader)
    run_until(world, lambda: leader_of(world) is not leader)
    world.network.unblock_all()


def restart(world: World, leader: Machine) -> None:
    leader.crash()
    world.restart(leader)


FALLS = pytest.mark.parametrize("fall", [depose, restart])


@FALLS
def test_a_forward_that_comes_again_to_a_leader_that_fell_is_not_refused(fall: Fall) -> None:
    """It proposed it the first time: once refused, it is sent under a new number, and applied twice."""
    assert not refused_of_a_second_delivery(fall)


@FALLS
def test_without_the_rule_it_is_refused(fall: Fall, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_what_was_taken(monkeypatch)
    assert refused_of_a_second_delivery(fall)


def refused_of_a_second_delivery(fall: Fall) -> set[int]:
    """Numbers of the frame that the leader took, and refuses when it comes once more behind its fall."""
    with calm_world(seed=3, size=3) as world:
        leader, follower = leader_of(world), follower_of(world)
        forwarded: list[peer_pb2.Frame] = []
        refused: list[peer_pb2.ForwardRefused] = []
        send = world.sending

        def sending(process: Process, member: MemberId, frame: peer_pb2.Frame, *, is_bulk: bool) -> bool:
            if frame.HasField("forward") and process.machine is follower and member == leader.member_id:
                forwarded.append(frame)
            if frame.HasField("forward_refused") and process.machine is leader:
                refused.append(frame.forward_refused)
            return send(process, member, frame, is_bulk=is_bulk)

        world.sending = sending  # type: ignore[method-assign]
        run_until(world, lambda: bool(forwarded))
        first = forwarded[0]
        world.run_for(SECOND_NS)
        fall(world, leader)
        process = leader.process
        assert process is not None
        run_until(world, lambda: process.core.engine.leader is not None and not process.core.engine.is_leader)
        answers = len(refused)
        process.call(lambda: process.core.on_frame(follower.member_id, first))
        assert len(refused) > answers, "that it does not lead is said"
        finish(world)
        return {number for answer in refused for number in answer.requests} & set(first.forward.requests)
