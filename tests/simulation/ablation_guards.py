"""Guards switched off, one function each. The name says what the node does without it.

Invariant: nothing here is reachable from production code; each takes effect through the patch it is given.
"""

from __future__ import annotations

from typing import Any

from pysyncobj import SyncObj

from appliance.consensus import core, guard, reconcile
from appliance.consensus.core import Core
from appliance.consensus.election import Election
from appliance.consensus.engine import Engine
from appliance.consensus.flow import Flow
from appliance.consensus.guard import Guard
from appliance.consensus.log import LogImage
from appliance.consensus.options import ConsensusOptions
from appliance.consensus.promises import Promises
from appliance.consensus.reads import ReadDone, Reads
from appliance.consensus.reconcile import Accepted, ReadableLog, Rejected
from appliance.model import REGULAR, Entry, MemberId, Position
from appliance.node import opening, snapshot_sender
from appliance.node.acquaintance import Acquaintances
from appliance.node.changes import Changes
from appliance.node.core import NodeCore
from appliance.node.proposals import Proposals
from appliance.node.snapshot_receiver import SnapshotReceiver
from appliance.node.writing import WritePath
from appliance.state.machine import StateMachine
from raftberry.internal.v1 import peer_pb2
from tests.simulation.mutation import Patch, mutate

# H1 ------------------------------------------------------------------------------------------------------


def promise_at_once(patch: Patch) -> None:
    """H1: acks, votes and vote requests leave before the journal is durable."""

    def make(self: Promises, member: MemberId, frame: peer_pb2.Frame) -> bool:
        self._replica.send(member, frame)
        return True

    patch.setattr(Promises, "make", make)


def commit_alone_before_durable(patch: Patch) -> None:
    """H1: a cluster of one commits at once."""
    guarded = Core._SyncObj__getEntries

    def get_entries(core: Core, *arguments: Any, **named: Any) -> list[Entry]:
        """As if it was asked for what is to be sent: then the guard lets all pass."""
        is_sending, core._is_sending = core._is_sending, True
        try:
            return guarded(core, *arguments, **named)
        finally:
            core._is_sending = is_sending

    patch.setattr(Core, "_SyncObj__getEntries", get_entries)


def count_acks_beyond_own_disk(patch: Patch) -> None:
    """H1: the leader commits by its followers' disks before its own."""
    mutate(
        patch,
        Guard,
        "_count_ack",
        "min(self._acknowledged[member], self._replica.log.durable_index)",
        "self._acknowledged[member]",
    )


# H2, H3, H4, H5, H6 --------------------------------------------------------------------------------------


def truncate_always(patch: Patch) -> None:
    """H2: every AppendEntries cuts off all that follows its previous entry."""

    def cut(
        log: ReadableLog, previous: Position, entries: list[Entry], commit_index: int
    ) -> Accepted | Rejected:
        verdict = reconcile.reconcile(log, previous, entries, commit_index)
        if isinstance(verdict, Rejected):
            return verdict
        last = entries[-1][1] if entries else previous.index
        conflict = previous.index + 1 if log.last.index > previous.index else None
        return Accepted(previous, entries, last, conflict)

    def resolve(self: Guard, _: MemberId, verdict: Accepted) -> None:
        if verdict.conflict_index is not None:
            self._replica.log.truncate_from(verdict.conflict_index)

    patch.setattr(guard, "reconcile", cut)
    patch.setattr(Guard, "_resolve_conflict", resolve)


def move_next_index_back(patch: Patch) -> None:
    """H3: an ack moves nextIndex back over what was sent since."""
    patch.setattr(Core, "keep_next_index", lambda *_: None)


def step_back_by_one(patch: Patch) -> None:
    """H4: a rejection names the entry before the one that was asked for."""
    patch.setattr(reconcile, "_first_of_term", lambda _log, index, _term, _commit: index)


def believe_every_rejection(patch: Patch) -> None:
    """H4: nextIndex goes wherever a follower says."""
    mutate(patch, Guard, "_step_back", "max(matched + 1, min(following, next_index))", "next_index")


def count_acks_of_older_terms(patch: Patch) -> None:
    """H5: an ack carries no term, so that one for another log counts."""
    mutate(
        patch,
        Guard,
        "receive",
        'if frame.term < self._replica.log.term and kind not in ("pre_vote", "pre_vote_reply"):',
        'if frame.term < self._replica.log.term and kind == "append_entries_reply":\n'
        "        frame.term = self._replica.log.term\n"
        "    elif frame.term < self._replica.log.term and not kind.startswith('pre_vote'):",
    )


def hear_strangers(patch: Patch) -> None:
    """H5: answers of nodes that are no members reach PySyncObj."""
    mutate(patch, Guard, "receive", "kind in _COUNTED and member not in self._replica.members", "False")


def commit_what_was_not_matched(patch: Patch) -> None:
    """H6: the leader's commit index counts for entries that nobody compared."""
    mutate(
        patch,
        Guard,
        "_on_append_entries",
        "min(body.commit_index, verdict.verified_index)",
        "body.commit_index",
    )


# H7, H8 --------------------------------------------------------------------------------------------------


def install_always(patch: Patch) -> None:
    """H7: a snapshot clears a log that already holds its last entry."""

    patch.setattr(NodeCore, "_is_snapshot_needed", lambda *_: True)
    mutate(patch, Engine, "install", "not self._replica.log.holds(position)", "True")


def splice_transfers(patch: Patch) -> None:
    """H8: a chunk goes to the transfer under way, whichever it belongs to."""
    mutate(
        patch,
        SnapshotReceiver,
        "on_chunk",
        "incoming is None or incoming.transfer_id != chunk.transfer_id or incoming.member != member",
        "incoming is None",
    )
    mutate(patch, SnapshotReceiver, "_take", "chunk.offset != incoming.offset", "False")


def take_any_chunk(patch: Patch) -> None:
    """H8: nobody looks at a chunk's checksum."""
    mutate(patch, SnapshotReceiver, "_take", "checksum(chunk.data) != chunk.checksum", "False")


def acknowledge_a_failed_install(patch: Patch) -> None:
    """H8: a load that failed is answered as if it had not."""
    mutate(
        patch,
        SnapshotReceiver,
        "on_chunk",
        "self.failed_count += 1\n        self.abandon()\n"
        "        self._answer(member, chunk.transfer_id, failed=True)",
        "self.failed_count += 1\n        self.abandon()\n"
        "        self._answer(member, chunk.transfer_id, installed=True)",
    )


# H9, H10, H11, H12 ---------------------------------------------------------------------------------------


def take_answers_to_a_former_life(patch: Patch) -> None:
    """H9: an operation's number alone says whose it is, and numbers begin again at a start."""
    mutate(patch, WritePath, "applied", " and operation.origin_boot == boot", "")


def believe_every_refusal(patch: Patch) -> None:
    """H9, H10: the refusal of a forward that was sent twice is taken for the outcome of both."""

    def refused(self: Proposals, requests: list[int], *, is_overload: bool, text: str = "") -> None:
        self._requeue([request for request in requests if request in self._sent])

    patch.setattr(Proposals, "refused", refused)
    refuse_what_was_taken(patch)


def refuse_what_was_taken(patch: Patch) -> None:
    """H34: a node that does not lead refuses what it may have proposed when it led."""
    everything = "self._refuse(member, list(frame.forward.requests), is_overload"
    mutate(patch, WritePath, "on_forward", "self._refuse(member, refused, is_overload", everything)


def wait_for_ever(patch: Patch) -> None:
    """H10: a caller whose operation vanished with a deposed leader hears nothing."""
    patch.setattr(Proposals, "expire", lambda *_: None)


def raise_refusals(patch: Patch) -> None:
    """H11: apply is not total: a refused operation raises."""
    mutate(patch, StateMachine, "_apply_operation", "except NotApplied as", "except ZeroDivisionError as")


def send_in_parts(patch: Patch) -> None:
    """H12: an entry may be larger than PySyncObj's batch."""
    patch.setattr(core, "ENTRY_BYTES_MAX", 999)


# H13 -----------------------------------------------------------------------------------------------------


def change_while_another_change_waits(patch: Patch) -> None:
    """H13: changes of membership overlap."""
    mutate(patch, Changes, "_may_begin", "node.engine.is_configuration_pending", "False")
    mutate(patch, Engine, "propose_configuration", "assert not self.is_configuration_pending", "pass")


def start_with_the_checkpoints_members(patch: Patch) -> None:
    """H13: a change in the log, not committed yet, is not in effect after a restart."""
    mutate(patch, opening, "_read_tail", "return entries, configurations", "return entries, []")


# H14, H15 ------------------------------------------------------------------------------------------------


def apply_what_the_library_applies(patch: Patch) -> None:
    """H14: entries of the library's own types are read as the pickles they are there."""
    ours = Core._SyncObj__doApplyCommand

    def apply(self: Core, command: bytes) -> None:
        if command[:1] != REGULAR:
            SyncObj._SyncObj__doApplyCommand(self, command)
        ours(self, command)

    patch.setattr(Core, "_SyncObj__doApplyCommand", apply)


def send_without_bound(patch: Patch) -> None:
    """H15: all that a follower lacks is pushed at once."""
    patch.setattr(Flow, "_pause", lambda *_: None)


def push_the_whole_snapshot(patch: Patch) -> None:
    """H15: no chunk waits for the answer to an earlier one."""
    patch.setattr(snapshot_sender, "WINDOW", 1 << 30)


def spin_for_a_snapshot(patch: Patch) -> None:
    """H15: a follower behind the log keeps the send loop busy until the clock ends it."""
    patch.setattr(Core, "_skip_entries", lambda *_: None)


# H16, H17, H18 -------------------------------------------------------------------------------------------


def count_repeated_votes(patch: Patch) -> None:
    """H16: a vote that comes twice counts twice."""
    mutate(patch, Guard, "_on_vote", "member in self._voters_for_me", "False")


def ignore_older_terms(patch: Patch) -> None:
    """H16: a leader of an older term is not told that there is a newer one."""
    mutate(patch, Guard, "_answer_older_term", "kind in _FROM_BEHIND", "False")


def lead_before_the_term_is_durable(patch: Patch) -> None:
    """H37: a lone voter tells its learners of a term that a power cut may take back."""
    mutate(patch, Guard, "_send_entries", 'self._replica.log.durable_term < message["term"]', "False")


def stand_without_a_pre_vote(patch: Patch) -> None:
    """H16: the term rises whenever a timeout passes."""
    mutate(
        patch,
        Election,
        "tick",
        "self._granted = {self._replica.self_id}",
        "self._granted = set(self._replica.voters)",
    )


def believe_in_a_broken_stream(patch: Patch) -> None:
    """H16: a leader whose stream broke counts as heard until the timeout passes."""
    patch.setattr(Election, "lost_leader", lambda _: None)


def lead_for_half_a_minute(patch: Patch) -> None:
    """H17: a leader that hears no majority goes on for PySyncObj's 30 s."""
    patch.setattr(ConsensusOptions, "leader_fallback_ns", property(lambda _: 30_000_000_000))


def take_own_commits_for_signs_of_life(patch: Patch) -> None:
    """H17: an old ack that is counted again when the own disk is done refreshes "heard from"."""
    patch.setattr(Core, "receive_again", Core.receive)


def read_without_a_round(patch: Patch) -> None:
    """H18: a leader answers reads without asking whether it still leads."""

    def ask(self: Reads, done: ReadDone) -> None:
        done(self._core.raftCommitIndex if self._core.is_leader else None)

    patch.setattr(Reads, "ask", ask)


def read_before_the_terms_first_commit(patch: Patch) -> None:
    """H18: a new leader takes its commit index for the cluster's before its NO_OP is committed."""
    mutate(patch, Reads, "ask", "self._core.raftCommitIndex < self._core.noop_index", "False")


# H21, H22, H23, amnesia ----------------------------------------------------------------------------------


def start_as_the_library_does(patch: Patch) -> None:
    """H21: without a dump file PySyncObj believes that only the first entry was applied."""
    construct = Core.__init__

    def init(self: Core, *args: object, **names: object) -> None:
        construct(self, *args, **names)  # type: ignore[arg-type]
        self._SyncObj__raftLastApplied = 1

    patch.setattr(Core, "__init__", init)


def transfer_without_a_pause(patch: Patch) -> None:
    """H22: the leader goes on proposing while it hands over."""
    patch.setattr(WritePath, "hold", lambda *_: None)


def pause_without_end(patch: Patch) -> None:
    """H22: "sent" counts as done: nothing is proposed any more."""
    mutate(patch, WritePath, "hold", "+ duration_ns", "+ (1 << 60)")


def let_the_library_truncate(patch: Patch) -> None:
    """H23: PySyncObj cuts the conflicting tail itself, as far as it sees it."""

    def delete(self: LogImage, position: int) -> None:
        self.truncate_from(self.anchor.index + position)

    patch.setattr(Guard, "_resolve_conflict", lambda *_: None)
    patch.setattr(LogImage, "deleteEntriesFrom", delete)


def believe_every_disk(patch: Patch) -> None:
    """Design, section 5: nobody compares a peer with what it acknowledged."""
    patch.setattr(Acquaintances, "_judge_memory", lambda *_: None)
