"""Where random seeds don't lead: a script for each hazard, to the point where only the guard helps.

Each passes with the guard on, and is judged by the checkers that always look, or by an expectation of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

from appliance.consensus import ConsensusOptions, flow, log, snapshot
from appliance.consensus.guard import Guard
from appliance.errors import NotApplied
from appliance.model import MemberId, Role
from appliance.node import snapshot_sender
from appliance.node.options import NodeOptions
from appliance.state.membership import RemoveMember
from appliance.state.operations import delete_key
from appliance.storage.store import Record
from raftberry.internal.v1 import peer_pb2
from tests.simulation.checkers import Checker
from tests.simulation.failure import CheckFailed, require
from tests.simulation.node import Machine, Process
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS
from tests.simulation.script import (
    Stage,
    calm_world,
    finish,
    leader_of,
    process_of,
    run_until,
    stage,
)

SMALL = NodeOptions(watch_keep_bytes=0, checkpoint_bytes_min=1 << 40)
"""The log is trimmed as soon as a checkpoint that the script asks for allows it."""


# H2 to H6: the log ---------------------------------------------------------------------------------------


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


# H8: snapshots -------------------------------------------------------------------------------------------


def fall_behind_the_log(s: Stage) -> tuple[Machine, Machine]:
    """(leader, a follower whose next entry was trimmed, and to which nothing flows in either direction)."""
    leader, _, follower = s.nodes
    s.replace(snapshot, "SNAPSHOT_CHUNK_BYTES", 600)
    s.elect(leader)
    s.cut(follower)
    s.propose(leader, 80, size=60)
    s.wait(100)
    s.checkpoint(leader)
    s.wait(100)
    s.hold(leader, follower)
    s.hold(follower, leader)
    s.connect(leader, follower)
    s.wait(300)
    chunks = s.links.under_way(leader.member_id, follower.member_id, "bulk")
    assert len(chunks) >= 4, "there is no snapshot under way"
    return leader, follower


def a_second_transfer_follows_the_first() -> None:
    """The first was given up by its sender; its chunks were taken all the same. Keys of it are gone in the second.

    Chunks end with records here, so that nothing but the order of chunks says that they don't belong together.
    """
    with stage(node=SMALL) as s:
        s.replace(snapshot_sender, "encode_records", whole_records)
        leader, follower = fall_behind_the_log(s)
        s.links.deliver(leader.member_id, follower.member_id, 4, "bulk")
        for number in range(40):
            s.propose_operation(leader, delete_key(f"p{number}"))
        s.wait(100)
        s.checkpoint(leader)
        s.wait(11_000)
        s.release(leader, follower)
        s.release(follower, leader)
        s.wait(1_000)
        s.finish()


def a_snapshot_comes_twice() -> None:
    """When it comes for the second time the follower has acknowledged more."""
    with stage(node=SMALL) as s:
        leader, follower = fall_behind_the_log(s)
        s.release(leader, follower)
        s.release(follower, leader)
        s.wait(500)
        s.propose(leader, 5)
        s.wait(100)
        s.links.repeat(leader.member_id, follower.member_id, "snapshot_chunk", 0, 100)
        s.wait(500)
        s.finish()


def whole_records(records: Iterable[Record]) -> Iterator[bytes]:
    """As encode_records, with a chunk for every five records."""
    rest = list(records)
    while rest:
        yield b"".join(snapshot.encode_records(rest[:5]))
        del rest[:5]


def a_bit_flips_in_a_chunk() -> None:
    """Within the value of a key, so that the stream of records still makes sense."""
    with stage(node=SMALL) as s:
        leader, follower = fall_behind_the_log(s)
        frame = s.links.under_way(leader.member_id, follower.member_id, "bulk")[0]
        position = frame.snapshot_chunk.data.index(b"....") + 2
        data = bytearray(frame.snapshot_chunk.data)
        data[position] ^= 1
        frame.snapshot_chunk.data = bytes(data)
        s.links.replace(leader.member_id, follower.member_id, "bulk", frame.SerializeToString())
        s.release(leader, follower)
        s.release(follower, leader)
        s.wait(1_000)
        s.finish()


# H9, H10, H11, H12: what is proposed ---------------------------------------------------------------------


def an_operation_outlives_the_process_that_sent_it() -> None:
    """It is number 1 of its boot, and so is the one that waits in the next."""
    with stage() as s:
        a, b, _ = s.nodes
        s.elect(a)
        s.stall(a, 2_000)
        s.put(b)
        s.wait(50)
        s.crash(b)
        s.start(b)
        s.wait(50)
        s.hold(b, a)
        s.put(b)
        s.wait(3_000)
        s.finish()


def a_forward_is_sent_twice() -> None:
    """A follower hears neither of its write's commit nor of the new leader, and sends it again to the old one."""
    with stage() as s:
        old, new, follower = s.nodes
        s.elect(old)
        s.hold(old, follower)
        s.hold(new, follower)
        s.put(follower)
        s.wait(50)
        process_of(old).core.begin_transfer(new.name)
        s.until(lambda: process_of(new).core.engine.is_leader, "handed_over")
        s.cut(old, follower)
        s.connect(old, follower)
        s.wait(100)
        s.release(new, follower)
        s.wait(200)
        s.finish()


def the_leader_of_a_caller_is_cut_off() -> None:
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        s.cut(leader)
        call = s.put(leader, patience_ms=2_000)
        s.wait(4_000)
        s.expect(call.outcome == "unknown", "answered_in_time")
        s.finish()


def a_condition_fails() -> None:
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        call = s.put(leader, if_mod_revision=7)
        s.wait(100)
        s.expect(call.outcome == "not applied", "answered_in_time")
        s.finish()


def an_entry_is_large() -> None:
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        s.propose(leader, 1, size=4_000)
        s.wait(100)
        s.finish()


# H13: membership -----------------------------------------------------------------------------------------


def a_leader_of_the_few_removes_the_others() -> None:
    """a reaches b alone, of five; an operator insists that c, d and e are removed. They go on without it."""
    with stage(5) as s:
        a, b, c, d, e = s.nodes
        s.elect(a)
        for node in (c, d, e):
            s.cut(a, node)
            s.cut(b, node)
        for gone in (e, d, c):
            remove(a, gone)
            s.wait(200)
        s.elect(c)
        call = s.put(c)
        s.wait(100)
        s.expect(call.outcome == "ok", "answered_in_time")
        s.wait(2_500)
        s.finish()


def a_change_is_not_committed_before_a_restart() -> None:
    """It is in effect as long as it is in the log."""
    with stage() as s:
        a, b, c = s.nodes
        s.elect(a)
        s.cut(a)
        remove(a, c)
        s.wait(200)
        s.crash(a)
        s.start(a)
        members = process_of(a).core.log.configuration
        s.expect(members.member(c.member_id) is None, "configuration_survives")
        s.elect(b)
        s.connect(a)
        s.finish()


def remove(asked: Machine, gone: Machine) -> None:
    """By force: although those who remain are not all connected."""
    process = process_of(asked)
    change = RemoveMember(gone.member_id, force=True)
    deadline_ns = asked.clock.monotonic_ns() + SECOND_NS
    process.call(lambda: process.core.changes.ask(change, deadline_ns, lambda _: None))


# H15: back-pressure --------------------------------------------------------------------------------------


def a_follower_takes_nothing() -> None:
    """What is under way to it stays below the bound and one slice."""
    with stage() as s:
        leader, _, follower = s.nodes
        s.replace(flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000)
        s.replace(log, "LOG_SLICE_BYTES_MAX", 1_200)
        s.elect(leader)
        s.hold(leader, follower)
        for _ in range(40):
            s.propose(leader, 1, size=1_000)
            s.wait(5)
        most = s.links.bytes_max[(leader.member_id, follower.member_id), "live"]
        bound = 4_000 + 1_200 + 10_000
        s.expect(most <= bound, "under_way_is_bounded")
        s.finish()


def a_follower_takes_no_chunk() -> None:
    with stage(node=SMALL) as s:
        leader, follower = fall_behind_the_log(s)
        chunks = s.links.under_way(leader.member_id, follower.member_id, "bulk")
        s.expect(len(chunks) <= snapshot_sender.WINDOW <= 8, "under_way_is_bounded")
        s.finish()


def the_log_begins_behind_a_follower() -> None:
    """One tick asks for its snapshot, and ends."""
    with stage(node=SMALL) as s:
        asked = Counter[int]()
        needed = Guard.on_snapshot_needed

        def count(self: Guard, member: MemberId) -> None:
            asked[s.world.schedule.now_ns] += 1
            if asked[s.world.schedule.now_ns] > 100:
                raise CheckFailed("the_loop_ends", "one tick asked for a snapshot 100 times")
            needed(self, member)

        s.replace(Guard, "on_snapshot_needed", count)
        fall_behind_the_log(s)
        s.finish()


# H16, H17, H18: who leads, and who may say so ------------------------------------------------------------


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


def a_follower_returns_from_a_partition() -> None:
    """Nobody missed it, and nobody shall notice its return."""
    with stage() as s:
        leader, _, follower = s.nodes
        s.elect(leader)
        s.cut(follower)
        for _ in range(3):
            s.stand(follower)
            s.wait(600)
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


# H21, H22, H23, amnesia ----------------------------------------------------------------------------------


def all_restart_behind_a_checkpoint() -> None:
    with stage(node=SMALL) as s:
        leader = s.nodes[0]
        s.elect(leader)
        s.propose(leader, 40)
        for machine in s.nodes:
            s.checkpoint(machine)
        s.propose(leader, 5)
        s.wait(100)
        s.crash(*s.nodes)
        s.start(*s.nodes)
        s.finish()


def leadership_moves_under_load() -> None:
    """Somebody always has something to write."""
    with stage() as s:
        leader, heir, _ = s.nodes
        s.elect(leader)

        def write() -> None:
            if s.world.schedule.now_ns < until_ns:
                s.put(leader)
                s.world.schedule.after(MILLISECOND_NS // 2, write)

        until_ns = s.world.schedule.now_ns + 2 * SECOND_NS
        write()
        s.wait(50)
        for _ in range(20):
            with suppress(NotApplied):
                process_of(leader).core.begin_transfer(heir.name)
            s.wait(20)
        s.wait(100)
        s.expect(process_of(heir).core.engine.is_leader, "handed_over")
        s.finish()


def the_heir_is_gone() -> None:
    """The request to take over was lost with it: the old leader goes on."""
    with stage() as s:
        leader, heir, _ = s.nodes
        s.elect(leader)
        s.hold(leader, heir)
        process_of(leader).core.begin_transfer(heir.name)
        s.wait(5)
        s.crash(heir)
        call = s.put(leader)
        s.wait(2_000)
        s.expect(call.outcome == "ok", "answered_in_time")
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


def an_old_card_is_put_back() -> None:
    with stage() as s:
        leader, _, forgetful = s.nodes
        s.elect(leader)
        image = forgetful.disk.copy()
        s.propose(leader, 20)
        s.wait(100)
        s.crash(forgetful)
        forgetful.lost_disk, forgetful.disk = forgetful.disk, image
        s.world.faults.amnesiac = forgetful
        s.world.faults.counts["amnesia_struck"] += 1
        s.start(forgetful)
        s.finish()


# helpers -------------------------------------------------------------------------------------------------


def frame_of(source: Machine, target: Machine) -> peer_pb2.Frame:
    """An envelope as source would send it, in target's term."""
    core = process_of(source).core
    return peer_pb2.Frame(
        from_member=source.member_id,
        boot_count=core.boot_count,
        term=process_of(target).core.log.term,
        high_index=core.log.high_index,
    )
