"""Nobody waits for ever, and nobody runs in circles: real cores, with time and frames in the test's hands."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from appliance.consensus import flow
from appliance.errors import NoLeader, NotApplied, OutcomeUnknown
from appliance.model import MemberId, Role
from appliance.node import batch
from raftberry.internal.v1 import peer_pb2
from tests.node.harness import MILLISECOND_NS, Cluster, Machine, cluster, put

DAY_MS = 86_400_000


def member(machine: Machine) -> MemberId:
    return machine.core.me.member_id


def deadline(made: Cluster, seconds: int = 10) -> int:
    return made.clock.now_ns + seconds * 1_000 * MILLISECOND_NS


def write(made: Cluster, machine: Machine, size: int = 1, seconds: int = 10) -> list[object]:
    outcomes: list[object] = []
    operation = put(value=bytes(size))
    machine.core.submit(
        operation, deadline(made, seconds), lambda done: outcomes.append(done.error or done.index)
    )
    return outcomes


def has_entries(frame: peer_pb2.Frame) -> bool:
    return bool(frame.append_entries.entries)


@pytest.mark.parametrize("is_told", [True, False])
def test_entries_that_did_not_get_through_are_sent_again(
    monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    monkeypatch.setattr(flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000)
    with cluster() as made:
        leader = made.elect()
        behind = made.followers[0]

        def is_to_behind(_: MemberId, to: MemberId, frame: peer_pb2.Frame) -> bool:
            return to == member(behind) and has_entries(frame)

        if is_told:
            made.refuses = is_to_behind
        else:
            made.loses = is_to_behind
        assert write(made, leader, 9_000) == []
        made.run_for(500)
        made.refuses = made.loses = lambda *_: False
        made.run_for(5_000)
        assert behind.core.engine.applied_index == leader.core.engine.applied_index


def test_a_full_lane_is_not_tried_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000)
    with cluster() as made:
        leader = made.elect()
        tries = []

        def refuses(_: MemberId, to: MemberId, frame: peer_pb2.Frame) -> bool:
            if to == member(made.followers[0]) and has_entries(frame):
                tries.append(made.clock.now_ns)
                return True
            return False

        made.refuses = refuses
        write(made, leader, 9_000)
        made.run_for(3_000)
        assert 10 < len(tries) < 30, "about once in a heartbeat"


def test_an_ack_that_did_not_fit_into_a_lane_is_sent_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000)
    with cluster() as made:
        leader = made.elect()
        gone, last = made.followers
        made.disconnect(member(leader), member(gone))
        made.disconnect(member(last), member(gone))
        made.refuses = lambda _, to, frame: to == member(leader) and frame.HasField("append_entries_reply")
        outcomes = write(made, leader, 9_000)
        made.run_for(100)
        assert outcomes == []
        made.refuses = lambda *_: False
        made.run_for(1_000)
        assert len(outcomes) == 1
        assert isinstance(outcomes[0], int)


def test_a_transfer_that_failed_leaves_nobody_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000)
    with cluster() as made:
        leader = made.elect()
        behind = made.followers[0]
        leader.core.engine.begin_snapshot_for(member(behind))
        made.loses = lambda _, to, frame: to == member(behind) and has_entries(frame)
        write(made, leader, 9_000)
        made.run_for(100)
        made.loses = lambda *_: False
        leader.core.engine.end_snapshot_for(member(behind), None)
        made.run_for(1_000)
        assert behind.core.engine.applied_index == leader.core.engine.applied_index


def test_a_read_at_the_leader_waits_for_no_timer() -> None:
    with cluster() as made:
        leader = made.elect()
        for _ in range(300):
            made.run_for(1)
            answers: list[NotApplied | None] = []
            leader.core.read_barrier(deadline(made), answers.append)
            made.settle()
            assert answers == [None]


def test_followers_hear_of_a_commit_within_the_hold() -> None:
    with cluster() as made:
        leader = made.elect()
        for _ in range(20):
            made.run_for(23)
            write(made, leader)
            made.run_for(7)
            applied = {machine.core.engine.applied_index for machine in made.machines.values()}
            assert applied == {leader.core.engine.commit_index}


def test_an_idle_leader_is_heard_every_heartbeat() -> None:
    with cluster() as made:
        leader = made.elect()
        follower = member(made.followers[0])
        made.sent.clear()
        made.run_for(3_000)
        times = [when for when, sender, to, _ in made.sent if sender == member(leader) and to == follower]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert max(gaps) <= 160 * MILLISECOND_NS


def test_a_node_that_led_long_ago_can_lead_again() -> None:
    with cluster() as made:
        first = made.elect()
        for other in made.followers:
            made.disconnect(member(first), member(other))
        made.run_for(5_000)
        made.connect()
        made.run_for(1_000)
        made.clock.now_ns += 60 * DAY_MS * MILLISECOND_NS
        made.run_for(5_000)
        for _ in range(100):
            if first.core.engine.is_leader:
                break
            made.leader.core.begin_transfer(first.core.me.name)
            made.run_for(200)
        assert first.core.role is Role.LEADER
        made.run_for(1_000)
        assert len(write(made, first)) == 0
        made.run_for(100)
        assert first.core.engine.confirmed_ns() is not None


def test_a_follower_with_a_stalled_card_does_not_run_in_circles() -> None:
    with cluster() as made:
        leader = made.elect()
        stalled = made.followers[0]
        stalled.workers.is_stalled = True
        write(made, leader)
        made.run_for(100)
        for other in made.machines.values():
            if other is not stalled:
                made.disconnect(member(stalled), member(other))
        began = stalled.cycle_count
        made.run_for(5_000)
        assert stalled.cycle_count - began < 100


def test_a_leader_that_leads_no_more_is_not_asked_in_a_loop() -> None:
    with cluster() as made:
        leader = made.elect()
        follower = made.followers[0]
        leader.core.engine._core.step_down()
        outcomes = write(made, follower)
        answers: list[NotApplied | None] = []
        follower.core.read_barrier(deadline(made), answers.append)
        made.settle(rounds_max=50)
        assert (outcomes, answers) == ([], [])
        made.run_for(5_000)
        assert isinstance(outcomes[0], int)
        assert answers == [None]


def test_what_is_forwarded_again_travels_in_frames_of_the_usual_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_BYTES_TARGET", 1_000)
    with cluster() as made:
        leader, follower = made.elect(), made.followers[0]
        made.loses = lambda _, __, frame: frame.HasField("forward")
        outcomes = [write(made, follower, 400) for _ in range(20)]
        made.run_for(20)
        made.disconnect(member(leader), member(follower))
        made.loses = lambda *_: False
        made.sent.clear()
        made.connect()
        made.run_for(1_000)
        assert all(isinstance(outcome[0], int) for outcome in outcomes)
        forwards = [frame.ByteSize() for _, _, _, frame in made.sent if frame.HasField("forward")]
        assert max(forwards) < 2_000


def test_what_is_forwarded_again_waits_for_room_in_the_lane_and_goes_first() -> None:
    with cluster() as made:
        leader, follower = made.elect(), made.followers[0]
        made.loses = lambda _, __, frame: frame.HasField("forward")
        old = write(made, follower)
        made.run_for(20)
        made.disconnect(member(leader), member(follower))
        made.loses = lambda *_: False
        made.refuses = lambda _, __, frame: frame.HasField("forward")
        made.connect()
        new = write(made, follower)
        made.run_for(300)
        assert (old, new) == ([], [])
        made.refuses = lambda *_: False
        made.run_for(1_000)
        assert isinstance(old[0], int)
        assert isinstance(new[0], int)
        assert old[0] <= new[0]


def test_what_a_long_cut_swallowed_is_forwarded_again_to_the_same_leader() -> None:
    with cluster() as made:
        leader, follower = made.elect(), made.followers[0]
        term = leader.core.engine.term
        made.loses = lambda _, __, frame: frame.HasField("forward")
        outcomes = write(made, follower)
        made.run_for(20)
        made.loses = lambda *_: False
        for other in made.machines.values():
            if other is not follower:
                made.disconnect(member(follower), member(other))
        made.run_for(1_500)
        assert follower.core.engine.leader is None
        made.connect()
        made.run_for(1_000)
        assert leader.core.engine.term == term
        assert isinstance(outcomes[0], int)


def test_a_follower_that_alone_does_not_reach_the_leader_gives_its_callers_back() -> None:
    """The others hear the leader and elect nobody: its callers would wait for nothing."""
    with cluster() as made:
        leader, follower = made.elect(), made.followers[0]
        reads: list[NotApplied | None] = []
        made.loses = lambda sender, _, __: sender == member(follower)
        sent = write(made, follower, seconds=60)
        made.run_for(20)
        made.loses = lambda *_: False
        made.disconnect(member(leader), member(follower))
        waiting = write(made, follower, seconds=60)
        follower.core.read_barrier(deadline(made, 60), reads.append)
        made.run_for(1_500)
        assert sent == waiting == reads == []
        made.run_for(2_000)
        assert [type(outcome) for outcome in sent] == [OutcomeUnknown]
        assert [type(outcome) for outcome in waiting] == [NoLeader]
        assert re.search(r"for 2\.\d s \(limit 2\.0 s\)", str(waiting[0]))
        assert [type(outcome) for outcome in reads] == [NoLeader]


def test_a_node_that_knows_no_leader_says_so_at_once_until_it_hears_one() -> None:
    with cluster() as made:
        leader, follower = made.elect(), made.followers[0]
        made.disconnect(member(leader), member(follower))
        made.run_for(4_000)
        reads: list[NotApplied | None] = []
        with pytest.raises(NoLeader):
            write(made, follower)
        follower.core.read_barrier(deadline(made), reads.append)
        assert [type(outcome) for outcome in reads] == [NoLeader]
        made.connect()
        made.run_for(500)
        outcomes = write(made, follower)
        made.run_for(100)
        assert isinstance(outcomes[0], int)


def test_a_node_that_was_stopped_for_long_asks_first_who_leads() -> None:
    """Its clock has gone on, and it hears the leader in a moment."""
    with cluster() as made:
        made.elect()
        follower = made.followers[0]
        outcomes = write(made, follower, seconds=60)
        made.clock.now_ns += 30_000 * MILLISECOND_NS
        made.run_for(3_000)
        assert isinstance(outcomes[0], int)


def test_a_hand_over_to_a_node_that_is_gone_holds_no_write() -> None:
    with cluster() as made:
        leader, gone = made.elect(), made.followers[0]
        made.disconnect(member(leader), member(gone))
        with pytest.raises(NotApplied, match="not connected"):
            leader.core.begin_transfer(gone.core.me.name)
        outcomes = write(made, leader)
        made.settle()
        assert isinstance(outcomes[0], int)


def test_a_deposed_leader_gives_unknown_or_an_outcome_but_never_nothing() -> None:
    with cluster() as made:
        leader = made.elect()
        for other in made.followers:
            made.disconnect(member(leader), member(other))
        outcomes = write(made, leader, seconds=3)
        made.run_for(4_000)
        assert len(outcomes) == 1
        assert isinstance(outcomes[0], OutcomeUnknown)


@pytest.mark.parametrize("number", [0, 1])
def test_leadership_is_not_handed_to_a_node_that_does_not_answer(number: int) -> None:
    """Stopped, or without power since a moment: its connection stays, and all have the whole log."""
    with cluster() as made:
        leader, silent, other = made.elect(), made.followers[number], made.followers[1 - number]
        made.loses = lambda sender, *_: sender == member(silent)
        made.run_for(1_000)
        with pytest.raises(NotApplied, match="does not answer"):
            leader.core.begin_transfer(silent.core.me.name)
        assert leader.core.begin_transfer("") == member(other)


def test_who_did_not_take_over_is_not_asked_again_at_once() -> None:
    with cluster() as made:
        leader = made.elect()
        made.loses = lambda *message: message[2].HasField("timeout_now")
        first = leader.core.begin_transfer("")
        made.run_for(100)
        assert leader.core.begin_transfer("") == first, "the attempt goes on"
        outcomes = write(made, leader)
        made.run_for(600)
        assert isinstance(outcomes[0], int), "writes go on"
        assert leader.core.begin_transfer("") != first


def cycles_of(made: Cluster, machine: Machine) -> list[int]:
    """Of the leader and of the two followers, the one asked first, for one write that machine takes."""
    followers = sorted(made.followers, key=lambda one: one is not machine)
    before = [one.cycle_count for one in (made.leader, *followers)]
    outcomes = write(made, machine)
    made.settle()
    assert len(outcomes) == 1
    return [one.cycle_count - count for one, count in zip((made.leader, *followers), before, strict=True)]


def test_a_write_wakes_each_node_only_for_what_it_can_do() -> None:
    """The leader proposes, and commits; a follower appends. A commit of the journal that waits for acks, and one
    whose ack has left, are no reason for a cycle."""
    with cluster() as made:
        leader = made.elect()
        made.run_for(20)
        assert cycles_of(made, leader) == [2, 1, 1]
        made.run_for(20)
        # Who forwards does so in a cycle, and hears of the commit in another.
        assert cycles_of(made, made.followers[0]) == [2, 3, 2]


def test_acks_before_the_leaders_own_disk_wake_nobody_and_its_commit_does() -> None:
    """Without time: nothing but the commit itself lets the write be answered."""
    with cluster() as made:
        leader = made.elect()
        made.run_for(20)
        leader.workers.is_stalled = True
        began, outcomes = leader.cycle_count, write(made, leader)
        made.settle()
        assert all(one.core.log.durable_index == leader.core.log.last_index for one in made.followers)
        assert (leader.cycle_count - began, outcomes) == (1, []), "it proposed"
        leader.workers.is_stalled = False
        made.settle()
        assert (leader.cycle_count - began, len(outcomes)) == (2, 1)


def test_writes_behind_a_commit_without_an_entry_go_on_when_it_ends() -> None:
    with cluster() as made:
        leader = made.elect()
        made.run_for(20)
        leader.workers.is_stalled = True
        leader.core.log.trim_to(2)
        leader.core.pipeline.flush()
        assert leader.core.pipeline.is_committing
        outcomes = write(made, leader)
        made.settle()
        assert outcomes == []
        leader.workers.is_stalled = False
        made.settle()
        assert len(outcomes) == 1


def test_what_a_slow_disk_makes_durable_late_is_applied_at_once() -> None:
    """A follower that knew of the commit before its own."""
    with cluster() as made:
        leader, slow = made.elect(), made.followers[0]
        made.run_for(20)
        slow.workers.is_stalled = True
        outcomes = write(made, leader)
        made.run_for(50)
        assert len(outcomes) == 1
        assert slow.core.engine.applied_index < leader.core.engine.applied_index
        slow.workers.is_stalled = False
        made.settle()
        assert slow.core.engine.applied_index == leader.core.engine.applied_index


def test_what_is_forwarded_behind_an_entry_that_is_on_its_way_wakes_no_leader() -> None:
    with cluster() as made:
        leader, follower = made.elect(), made.followers[0]
        made.run_for(20)
        first = write(made, leader)
        made._cycle(leader)
        leader.is_woken = False
        forward = follower.core.new_frame()
        forward.forward.requests.append(1)
        operation = put("other")
        operation.origin_member, operation.origin_boot, operation.origin_request = member(follower), 7, 1
        forward.forward.operations.append(operation.SerializeToString())
        leader.core.on_frame(member(follower), forward)
        assert not leader.is_woken
        made.settle()
        made.run_for(100)
        assert len(first) == 1
        assert leader.core.log.last_index == leader.core.engine.applied_index
        assert leader.core.state.key("other") is not None
