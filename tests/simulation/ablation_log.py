"""Scripts for the guards of the log: what is sent, matched, truncated and committed (H2 to H6, H23).

Each leads to the point where only the guard helps, passes with the guard on, and is judged by the checkers that
always look, or by an expectation of its own.
"""

from __future__ import annotations

from appliance.consensus import ConsensusOptions, flow, log
from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.simulation.checkers import Checker
from tests.simulation.failure import CheckFailed
from tests.simulation.node import Machine, Process
from tests.simulation.schedule import MILLISECOND_NS
from tests.simulation.script import (
    process_of,
    stage,
)


def entries_come_twice() -> None:
    """An old AppendEntries says nothing of what a follower acknowledged since."""
    with stage() as s:
        leader, follower, _ = s.nodes
        s.elect(leader)
        for _ in range(5):
            s.propose(leader, 1)
            s.wait(20)
        s.links.repeat(leader.member_id, follower.member_id, "append_entries", 0)
        s.wait(50)
        s.finish()


class SentOnce(Checker):
    """No entry goes twice over an unbroken stream while nobody rejects anything."""

    def __init__(self) -> None:
        self._sent: set[tuple[MemberId, MemberId, int, int]] = set()

    def sending(self, process: Process, member: MemberId, frame: peer_pb2.Frame) -> None:
        first = frame.append_entries.prev_log_index + 1
        for offset in range(len(frame.append_entries.entries)):
            what = (process.member, member, frame.term, first + offset)
            if what in self._sent:
                raise CheckFailed("sent_once", f"{process.machine.name} sends entry {first + offset} again")
            self._sent.add(what)


def acks_trail_the_entries() -> None:
    """Entries leave every 3 ms, their acks are 20 ms behind."""
    with stage() as s:
        leader = s.nodes[0]
        s.links.delay_ns = 10 * MILLISECOND_NS
        s.elect(leader)
        s.world.checkers = (*s.world.checkers, SentOnce())
        for _ in range(20):
            s.propose(leader, 1)
            s.wait(3)
        s.wait(100)
        s.finish()


def a_long_tail_conflicts() -> None:
    """A leader that was cut off appended 300 entries; the new one overrides them over a slow link."""
    with stage() as s:
        old, new, _ = s.nodes
        s.elect(old)
        s.replace(flow, "PEER_IN_FLIGHT_BYTES_MAX", 1 << 30)
        s.cut(old)
        s.propose(old, 300)
        s.elect(new)
        s.hold(new, old)
        s.connect(new, old)
        s.propose(new, 300)
        s.wait(100)
        s.cut(new, old)
        s.links.delay_ns = 10 * MILLISECOND_NS
        s.connect(new, old)
        caught_up = process_of(new).core.engine.commit_index
        s.until(lambda: process_of(old).core.engine.applied_index >= caught_up, "converged", within_ms=2_500)
        s.finish()


def a_rejection_points_beyond_the_log() -> None:
    """From a peer that is broken: an honest one never names more than it was asked for."""
    with stage() as s:
        leader, follower, _ = s.nodes
        s.elect(leader)
        frame = frame_of(follower, leader)
        frame.append_entries_reply.next_index = 1_000_000
        s.links.inject(follower.member_id, leader.member_id, frame.SerializeToString())
        call = s.put(leader)
        s.until(
            lambda: process_of(follower).core.engine.applied_index >= call.index > 0,
            "converged",
            within_ms=5_000,
        )
        s.finish()


def an_ack_arrives_two_terms_late() -> None:
    """b acknowledged entries 4 to 6 of term 1 to a; they are overridden, and a leads again when the ack arrives."""
    with stage(5) as s:
        a, b, c, d, e = s.nodes
        s.elect(a)
        s.links.delay_ns = 5 * MILLISECOND_NS
        s.hold(b, a)
        s.cut(a, c, d, e)
        s.propose(a, 3)
        s.wait(50)
        s.cut(b, c, d, e)
        s.stand(c)
        s.until(lambda: process_of(c).core.engine.is_leader, "elected")
        s.hold(c, d, e)
        s.connect(a, c)
        s.until(lambda: process_of(a).core.log.last.term == 2, "converged")
        s.wait(20)
        s.cut(c)
        s.connect(a, d)
        s.connect(a, e)
        s.stand(a)
        s.until(lambda: process_of(a).core.engine.is_leader, "elected")
        s.hold(a, b, d, e)
        s.wait(50)
        s.release(a, d)
        s.wait(50)
        s.release(b, a)
        s.wait(50)
        s.finish()


def a_stranger_answers() -> None:
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        frame = frame_of(s.nodes[1], leader)
        frame.from_member = 99
        frame.append_entries_reply.success = True
        frame.append_entries_reply.next_index = 3
        s.links.inject(MemberId(99), leader.member_id, frame.SerializeToString())
        s.finish()


def a_tail_is_left_unmatched() -> None:
    """e holds 4 to 14 of term 1, of which all others have 4 to 10 only; the new leader compares three at a time."""
    with stage(5) as s:
        a, b, c, d, e = s.nodes
        s.elect(a)
        s.hold(a, b, c, d)
        s.propose(a, 11)
        s.wait(50)
        s.cut(e)
        for node in (b, c, d):
            s.links.deliver(a.member_id, node.member_id, 7)
        s.wait(50)
        s.cut(a)
        s.elect(b)
        s.hold(b, e)
        s.connect(b, e)
        s.propose(b, 4)
        s.wait(50)
        s.cut(b, e)
        s.replace(log, "LOG_SLICE_ENTRIES_MAX", 3)
        s.connect(b, e)
        s.wait(500)
        s.finish()


def a_tail_conflicts_that_is_not_in_memory() -> None:
    """What PySyncObj looks at is a slice of the log; the entry before the conflict is read from the journal."""
    with stage(consensus=ConsensusOptions(hot_bytes_max=0)) as s:
        old, new, _ = s.nodes
        s.elect(old)
        s.propose(old, 3)
        s.wait(50)
        s.cut(old)
        s.propose(old, 3)
        s.wait(50)
        s.elect(new)
        s.propose(new, 5)
        s.wait(50)
        s.connect(old)
        s.wait(200)
        s.finish()


def frame_of(source: Machine, target: Machine) -> peer_pb2.Frame:
    """An envelope as source would send it, in target's term."""
    core = process_of(source).core
    return peer_pb2.Frame(
        from_member=source.member_id,
        boot_count=core.boot_count,
        term=process_of(target).core.log.term,
        high_index=core.log.high_index,
    )
