"""Scripts for the guards of snapshots, of back-pressure and of the start (H7, H8, H15, H21).

Each leads to the point where only the guard helps, passes with the guard on, and is judged by the checkers that
always look, or by an expectation of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from appliance.consensus import flow, log, snapshot
from appliance.consensus.guard import Guard
from appliance.model import MemberId
from appliance.node import snapshot_sender
from appliance.node.options import NodeOptions
from appliance.state.operations import delete_key
from appliance.storage.store import Record
from tests.simulation.failure import CheckFailed
from tests.simulation.node import Machine
from tests.simulation.script import (
    Stage,
    stage,
)

SMALL = NodeOptions(watch_keep_bytes=0, checkpoint_bytes_min=1 << 40)
"""The log is trimmed as soon as a checkpoint that the script asks for allows it."""


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
