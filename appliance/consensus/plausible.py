"""What no node of ours ever says: a frame that parses, and would break what the rest takes for granted.

Invariant: of a frame that passes, terms and indexes can be counted up and written down, entries follow each other as
Raft lays them down, and what is to be proposed can be read by every node. Raft assumes that members do not lie; this
holds off the ones that are broken (a flipped bit in memory, a version with a bug) before their words reach a log.
Pure functions; any thread.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from appliance.errors import Fatal
from appliance.limits import ENTRY_BYTES_MAX, KIB, SNAPSHOT_CHUNK_BYTES
from appliance.model import CONFIGURATION, DEFLATED, NO_OP, REGULAR
from appliance.state.configuration import decode_configuration
from raftberry.internal.v1 import command_pb2, peer_pb2

NUMBER_MAX: Final = 1 << 62
"""Terms, indexes, rounds: far above what any cluster counts up to, and what follows it still fits 64 bits."""

TERM_JUMP_MAX: Final = 1 << 32
"""Elections that a node may have missed: at one in half a second, 68 years of them."""

FORWARDED_BYTES_MAX: Final = ENTRY_BYTES_MAX - KIB
"""An operation that still fits into an entry, with what goes around it."""

_COMMAND_TYPES: Final = (REGULAR, NO_OP, CONFIGURATION, DEFLATED)


def implausible(frame: peer_pb2.Frame, own_term: int) -> str:
    """Why the frame can't be meant: a word for the count of what was dropped. Empty: it may pass."""
    if (
        frame.term > own_term + TERM_JUMP_MAX
        or max(frame.term, frame.boot_count, frame.high_index) >= NUMBER_MAX
    ):
        return "impossible_number"
    match frame.WhichOneof("kind"):
        case "append_entries":
            return _of_entries(frame.term, frame.append_entries)
        case "append_entries_reply":
            is_countable = 0 < frame.append_entries_reply.next_index < NUMBER_MAX
            return "" if is_countable else "impossible_number"
        case "pre_vote":
            return "" if frame.pre_vote.next_term == frame.term + 1 else "impossible_term"
        case "forward":
            return _of_forward(frame.from_member, frame.forward)
        case "snapshot_chunk":
            return _of_chunk(frame.term, frame.snapshot_chunk)
    return ""


def _of_entries(term: int, body: peer_pb2.AppendEntries) -> str:
    if max(body.prev_log_index, body.commit_index, body.round) >= NUMBER_MAX:
        return "impossible_number"
    highest = body.prev_log_term
    for entry in body.entries:
        if entry.term < highest or not entry.term:
            return "impossible_term"
        highest = entry.term
        if entry.command[:1] not in _COMMAND_TYPES or len(entry.command) > ENTRY_BYTES_MAX:
            return "impossible_entry"
        if entry.command[:1] == CONFIGURATION and not _is_configuration(entry.command):
            return "impossible_entry"
    return "" if highest <= term else "impossible_term"


def _is_configuration(command: bytes) -> bool:
    """Every node takes it up as soon as it holds it."""
    try:
        decode_configuration(0, command)
    except Fatal:
        return False
    return True


def _of_forward(sender: int, forward: peer_pb2.Forward) -> str:
    """What a leader proposes unread must be readable: an entry that is not ends every node that applies it."""
    if len(forward.requests) != len(forward.operations) or any(r >= NUMBER_MAX for r in forward.requests):
        return "impossible_forward"
    for encoded in forward.operations:
        try:
            operation = command_pb2.Operation.FromString(encoded)
        except DecodeError:
            return "unreadable_operation"
        if operation.origin_member != sender or len(encoded) > FORWARDED_BYTES_MAX:
            return "impossible_forward"
    return ""


def _of_chunk(term: int, chunk: peer_pb2.SnapshotChunk) -> str:
    if max(chunk.snapshot_index, chunk.offset) >= NUMBER_MAX or len(chunk.data) > SNAPSHOT_CHUNK_BYTES:
        return "impossible_number"
    return "" if chunk.snapshot_term <= term else "impossible_term"
