"""A node that steps aside says nothing more, lets nobody wait, and costs nothing."""

from __future__ import annotations

from appliance.errors import NotApplied, Quarantined
from appliance.model import Position
from raftberry.internal.v1 import peer_pb2
from tests.node.harness import MILLISECOND_NS, cluster, put

Reason = peer_pb2.Refusal.Reason


def test_everybody_who_waits_is_told() -> None:
    with cluster() as made:
        made.elect()
        follower = made.followers[0]
        made.loses = lambda *_: True
        reads: list[NotApplied | None] = []
        writes: list[object] = []
        checkpoints: list[Position] = []
        deadline_ns = made.clock.now_ns + 10_000 * MILLISECOND_NS
        follower.core.read_barrier(deadline_ns, reads.append)
        follower.core.submit(put(), deadline_ns, lambda done: writes.append(done.error))
        made.settle()
        follower.core.read_barrier(deadline_ns, reads.append)
        follower.core.checkpoint(checkpoints.append)
        follower.core.quarantine("its card is broken")
        assert [type(error) for error in reads] == [Quarantined, Quarantined]
        assert len(writes) == 1
        assert len(checkpoints) == 1


def test_a_commit_under_way_releases_nothing() -> None:
    with cluster() as made:
        leader, follower = made.elect(), made.followers[0]
        follower.workers.is_stalled = True
        leader.core.submit(put(), made.clock.now_ns + 10**10, lambda _: None)
        made.settle()
        assert follower.workers.jobs, "the entry is being committed, its ack waits"
        follower.core.quarantine("its card is broken")
        made.sent.clear()
        follower.workers.is_stalled = False
        made.run_for(2_000)
        assert not [frame for _, sender, _, frame in made.sent if sender == follower.core.me.member_id]


def test_it_does_not_run_in_circles() -> None:
    with cluster() as made:
        made.elect()
        follower = made.followers[0]
        follower.core.quarantine("its card is broken")
        began = follower.cycle_count
        made.run_for(5_000)
        assert follower.cycle_count - began < 100


def test_a_stranger_at_a_peers_address_shuts_nobody_out() -> None:
    with cluster() as made:
        core = made.elect().core
        for reason in (Reason.REASON_NOT_A_MEMBER, Reason.REASON_OTHER_CLUSTER, Reason.REASON_VERSION):
            core.on_refused(peer_pb2.Refusal(reason=reason, message="who are you?"))
            assert not core.quarantine_reason
        core.on_refused(peer_pb2.Refusal(reason=Reason.REASON_AMNESIA, message="you forgot"))
        assert core.quarantine_reason == "you forgot"
