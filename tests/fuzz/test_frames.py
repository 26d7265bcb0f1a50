"""Frames that parse, from a member, and say what no node of ours would say.

What is held: the node takes no harm (no exception; at most it stands still until it hears its leader), and goes on
when honest frames follow. Raft gives no protection against a leader that lies about its own log; what can be seen to be
impossible is dropped.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.model import NO_OP, REGULAR, Configuration, Member, MemberId
from appliance.state.configuration import encode_configuration
from appliance.state.operations import encode_command, put_key
from raftberry.internal.v1 import command_pb2, peer_pb2
from tests.fuzz.mutation import Choices, damaged, examples, messages
from tests.node.harness import Cluster, Machine, cluster, put

COMMANDS = (
    NO_OP,
    REGULAR,
    b"",
    b"\x02\x80\x04N.",
    b"\x03\x80\x04K\x05.",
    encode_configuration(Configuration(version=2, members=(Member(MemberId(1), "n1", 1, "n1:1"),))),
    REGULAR + encode_command([put_key("a", b"b")], time_unix_nano=1, elapsed_nano=1),
)
OPERATIONS = st.one_of(
    st.sampled_from(
        (put().SerializeToString(), b"", b"\xff", b"\x3a\x00", put_key("", b"").SerializeToString())
    ),
    messages(command_pb2.Operation).map(lambda operation: operation.SerializeToString()),
    damaged(messages(command_pb2.Operation).map(lambda operation: operation.SerializeToString())),
)
NEAR = st.one_of(st.integers(0, 12), st.sampled_from((1 << 62, (1 << 63) - 1, (1 << 64) - 1)))
_PACKAGE = "raftberry.internal.v1"
CHOICES: Choices = {
    **{
        f"{_PACKAGE}.{name}": NEAR
        for name in (
            "Frame.term", "Frame.boot_count", "Frame.high_index", "LogEntry.term", "AppendEntries.prev_log_index",
            "AppendEntries.prev_log_term", "AppendEntries.commit_index", "AppendEntries.round",
            "AppendEntriesReply.next_index", "RequestVote.last_log_index", "RequestVote.last_log_term",
            "PreVote.next_term", "PreVoteReply.attempt", "SnapshotChunk.snapshot_index",
            "SnapshotChunk.snapshot_term", "SnapshotChunk.offset", "SnapshotReply.offset", "ReadIndexReply.index",
        )
    },
    f"{_PACKAGE}.LogEntry.command": st.sampled_from(COMMANDS),
    f"{_PACKAGE}.Forward.operations": OPERATIONS,
    f"{_PACKAGE}.TransferRequest.target": st.sampled_from(("", "n1", "n2", "n3", "nobody")),
}  # fmt: skip


@given(st.lists(messages(peer_pb2.Frame, CHOICES), min_size=1, max_size=4), st.booleans())
@examples(400)
def test_frames_of_a_member_that_lies_do_no_harm(frames: list[peer_pb2.Frame], is_to_leader: bool) -> None:
    with cluster() as three:
        three.elect(1_500)
        target = three.leader if is_to_leader else three.followers[0]
        liar = next(machine for machine in three.machines.values() if machine is not target)
        for frame in frames:
            deliver(three, liar, target, frame)


def deliver(three: Cluster, liar: Machine, target: Machine, frame: peer_pb2.Frame) -> None:
    frame.from_member = liar.core.me.member_id
    # The sender's own name, so that what it forwards gets as far as the log.
    origin = command_pb2.Operation(origin_member=frame.from_member).SerializeToString()
    signed = [operation + origin for operation in frame.forward.operations]
    if signed:
        del frame.forward.operations[:]
        frame.forward.operations.extend(signed)
        frame.term = target.core.engine.term
    target.core.on_frame(MemberId(frame.from_member), peer_pb2.Frame.FromString(frame.SerializeToString()))
    target.is_woken = True
    three.settle()
    three.run_for(200)


def sent(three: Cluster, liar: Machine, target: Machine, **fields: object) -> dict[str, int]:
    """What the target counts as dropped after a frame of its own term."""
    frame = peer_pb2.Frame(from_member=liar.core.me.member_id, **fields)  # type: ignore[arg-type]
    frame.term = frame.term or target.core.engine.term
    target.core.on_frame(MemberId(frame.from_member), frame)
    three.run_for(2_000)
    return target.core.engine.dropped_count


def test_a_forwarded_operation_that_nobody_can_read_never_reaches_the_log() -> None:
    with cluster() as three:
        leader = three.elect()
        forward = peer_pb2.Forward(operations=[b"\xff"], requests=[1])
        assert sent(three, three.followers[0], leader, forward=forward) == {"unreadable_operation": 1}
        assert three.leader is leader


def test_a_forward_in_anothers_name_or_without_its_numbers_is_dropped() -> None:
    with cluster() as three:
        leader, liar = three.elect(), three.followers[0]
        own = command_pb2.Operation(origin_member=liar.core.me.member_id).SerializeToString()
        another = command_pb2.Operation(origin_member=leader.core.me.member_id).SerializeToString()
        for forward in (
            peer_pb2.Forward(operations=[another], requests=[1]),
            peer_pb2.Forward(operations=[own], requests=[1, 2]),
            peer_pb2.Forward(operations=[own], requests=[1 << 63]),
        ):
            dropped = sent(three, liar, leader, forward=forward)
        assert dropped == {"impossible_forward": 3}


def test_a_term_that_cannot_be_counted_up_is_not_adopted() -> None:
    with cluster() as three:
        leader = three.elect()
        term = leader.core.engine.term
        for number in ((1 << 64) - 1, 1 << 62, term + (1 << 33)):
            sent(three, three.followers[0], leader, term=number, heartbeat_reply=peer_pb2.HeartbeatReply())
        assert leader.core.engine.dropped_count == {"impossible_number": 3}
        assert (three.leader, leader.core.engine.term) == (leader, term)


def test_a_second_leader_of_a_term_deposes_nobody() -> None:
    with cluster() as three:
        leader = three.elect()
        last = leader.core.log.last_index
        entry = peer_pb2.LogEntry(term=leader.core.engine.term, command=NO_OP)
        entries = peer_pb2.AppendEntries(prev_log_index=last, prev_log_term=entry.term, entries=[entry])
        for target in (leader, three.followers[1]):
            assert sent(three, three.followers[0], target, append_entries=entries) == {"second_leader": 1}
        assert leader.core.engine.is_leader
        assert leader.core.log.last_index == last


def test_an_acknowledgement_beyond_the_log_does_not_count() -> None:
    with cluster() as three:
        leader, liar = three.elect(), three.followers[0]
        reply = peer_pb2.AppendEntriesReply(success=True, next_index=leader.core.log.last_index + 2)
        assert sent(three, liar, leader, append_entries_reply=reply) == {"ack_beyond_log": 1}


def test_entries_that_break_the_order_of_a_log_are_not_taken() -> None:
    with cluster() as three:
        leader = three.elect()
        target, term = three.followers[0], leader.core.engine.term
        last = target.core.log.last_index
        for terms, command in (
            ((term, term - 1), NO_OP),
            ((term + 1,), NO_OP),
            ((term,), b"\x03pickle"),
            ((term,), b"\x02\xff"),
        ):
            entries = peer_pb2.AppendEntries(
                prev_log_index=last,
                prev_log_term=term,
                entries=[peer_pb2.LogEntry(term=each, command=command) for each in terms],
            )
            sent(three, leader, target, append_entries=entries)
        assert sum(target.core.engine.dropped_count.values()) == 4
        assert target.core.log.last_index == last
