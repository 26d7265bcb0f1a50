"""A snapshot on its way in, damaged where no checksum sees it, or told by somebody who does not lead.

What is held: chunks that don't fit end the transfer and change nothing; a whole stream with right checksums that is no
state ends in CorruptData (the node is quarantined by it), never in anything else.
"""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from appliance.consensus.snapshot import checksum, encode_records
from appliance.errors import CorruptData, DataDirectoryRefused
from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.fuzz.mutation import damaged, examples
from tests.fuzz.targets import image_records_once
from tests.node.harness import Cluster, Machine, cluster

STREAM = b"".join(encode_records(image_records_once()))
PIECES = 4


def chunks_of(stream: bytes, *, index: int, term: int) -> list[peer_pb2.SnapshotChunk]:
    size = max(1, -(-len(stream) // PIECES))
    parts = [stream[start : start + size] for start in range(0, len(stream), size)] or [b""]
    return [
        peer_pb2.SnapshotChunk(
            transfer_id=7,
            snapshot_index=index,
            snapshot_term=term,
            offset=number * size,
            data=part,
            checksum=checksum(part),
            last=number == len(parts) - 1,
        )
        for number, part in enumerate(parts)
    ]


def deliver(
    three: Cluster, sender: Machine, target: Machine, chunks: list[peer_pb2.SnapshotChunk]
) -> list[peer_pb2.SnapshotReply]:
    """What the target answers."""
    member = MemberId(sender.core.me.member_id)
    for chunk in chunks:
        frame = peer_pb2.Frame(from_member=member, term=target.core.engine.term, snapshot_chunk=chunk)
        target.core.on_frame(member, frame)
        target.is_woken = True
        three.settle()
    own = target.core.me.member_id
    return [
        frame.snapshot_reply
        for _, one, _, frame in three.sent
        if one == own and frame.HasField("snapshot_reply")
    ]


def beyond(target: Machine) -> dict[str, int]:
    """A position that the target's log does not reach."""
    return {"index": target.core.log.last_index + 50, "term": target.core.engine.term}


@given(
    damaged(st.just(STREAM)),
    st.lists(
        st.tuples(st.integers(0, PIECES - 1), st.sampled_from(("drop", "repeat", "offset", "checksum"))),
        max_size=2,
    ),
)
@examples(60)
def test_a_damaged_snapshot_is_refused_or_is_corrupt(stream: bytes, faults: list[tuple[int, str]]) -> None:
    with cluster() as three:
        leader = three.elect(1_500)
        target = three.followers[0]
        chunks = chunks_of(stream, **beyond(target))
        for place, fault in faults:
            _break(chunks, min(place, len(chunks) - 1), fault)
        with suppress(CorruptData, DataDirectoryRefused):
            deliver(three, leader, target, chunks)


def _break(chunks: list[peer_pb2.SnapshotChunk], place: int, fault: str) -> None:
    if place < 0:
        return
    if fault == "drop":
        del chunks[place]
    elif fault == "repeat":
        chunks.insert(place, chunks[place])
    elif fault == "offset":
        chunks[place].offset += 1
    else:
        chunks[place].checksum ^= 1


def test_a_whole_snapshot_is_installed_and_says_so() -> None:
    with cluster() as three:
        leader = three.elect()
        target = three.followers[0]
        where = beyond(target)
        replies = deliver(three, leader, target, chunks_of(STREAM, **where))
        assert replies[-1].installed
        assert target.core.state.position.index == where["index"]


def test_a_broken_transfer_changes_nothing_and_is_not_acknowledged() -> None:
    for fault in ("drop", "repeat", "offset", "checksum"):
        with cluster() as three:
            leader = three.elect()
            target = three.followers[0]
            position = target.core.state.position
            chunks = chunks_of(STREAM, **beyond(target))
            _break(chunks, 1, fault)
            replies = deliver(three, leader, target, chunks)
            assert not any(reply.installed for reply in replies), fault
            assert any(reply.failed for reply in replies), fault
            assert target.core.state.position == position, fault


def test_a_snapshot_of_one_who_does_not_lead_is_not_taken() -> None:
    with cluster() as three:
        three.elect()
        target, stranger = three.followers[0], three.followers[1]
        position = target.core.state.position
        assert deliver(three, stranger, target, chunks_of(STREAM, **beyond(target))) == []
        assert target.core.engine.dropped_count == {"second_leader": PIECES}
        assert target.core.state.position == position
