"""The guard: sees every frame before PySyncObj does, and every message of PySyncObj before the network does.

Invariant: what leaves keeps the promises of the Raft paper although PySyncObj 0.3.17 does not; each rule names
its hazard. Sans-IO, loop thread only; driven by `Engine`.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.consensus.core import Core, Message
from appliance.consensus.election import Election
from appliance.consensus.flow import Flow
from appliance.consensus.news import News
from appliance.consensus.promises import Promises
from appliance.consensus.reads import Reads
from appliance.consensus.reconcile import Accepted, Rejected, reconcile
from appliance.consensus.replica import Replica
from appliance.errors import Fatal
from appliance.model import MemberId, Position, hex_id
from raftberry.internal.v1 import peer_pb2

_ANSWERS = frozenset({"append_entries_reply", "heartbeat_reply"})
"""Most of them only say that a follower lives: those are not news."""

_COUNTED = frozenset({"append_entries_reply", "heartbeat_reply", "vote", "pre_vote_reply", "stale_term"})
"""Said by members to those who count them. All else is heard from any peer (thesis, 4.1): configurations differ."""

_FROM_BEHIND = frozenset({"append_entries", "heartbeat"})


class Guard:
    """Constructed before Core (it is Core's outlet), completed by `attach`."""

    core: Core
    election: Election
    reads: Reads
    flow: Flow

    def __init__(
        self, replica: Replica, promises: Promises, on_snapshot_needed: Callable[[MemberId], None]
    ) -> None:
        self._replica, self._promises = replica, promises
        self._on_snapshot_needed = on_snapshot_needed
        self._voters_for_me: set[MemberId] = set()
        self._acknowledged: dict[MemberId, int] = {}
        self._acknowledged_term = 0
        self._verdict: Accepted | Rejected | None = None
        self._answered_ns = 0
        self._echoed = (0, 0)
        self._round_to_echo = 0
        self._known_commit = (0, 0)
        self.leader_confirmed_ns: int | None = None
        """When a majority last confirmed the leader, as the leader says."""

        self.has_news = False
        """Something arrived that a tick can act on."""
        self.news = News(replica)
        self._acked = (0, 0)
        self.snapshot_targets: set[MemberId] = set()
        """Followers that are being sent a snapshot: their rejections say nothing new."""

    def attach(self, core: Core, election: Election, reads: Reads, flow: Flow) -> None:
        self.core, self.election, self.reads, self.flow = core, election, reads, flow

    # what PySyncObj wants to send ------------------------------------------------------------------------

    def on_library_message(self, member: MemberId, message: Message) -> None:
        kind = message["type"]
        if kind == "append_entries":
            self._send_entries(member, message)
        elif kind == "next_node_idx":
            self._send_answer(member, message)
        elif kind == "request_vote":
            self._send_vote_request(member, message)
        elif kind == "response_vote":
            self.election.postpone()
            frame = self._replica.frame(message["term"])
            frame.vote.SetInParent()
            self._replica.record("granted_vote", self._replica.log.last_index, member)
            self._promises.make(member, frame)
        elif kind == "timeout_now":
            frame = self._replica.frame(message["term"])
            frame.timeout_now.SetInParent()
            self._replica.record("asked_to_take_over", self._replica.log.last_index, member)
            self._replica.send(member, frame)
        else:
            raise AssertionError(f"PySyncObj sent {kind}, which is never asked of it (H9, H14)")

    def on_snapshot_needed(self, member: MemberId) -> None:
        self._on_snapshot_needed(member)

    def _send_entries(self, member: MemberId, message: Message) -> None:
        if "prevLogIdx" not in message or message["prevLogIdx"] is None:
            return  # PySyncObj's heartbeat for a follower that needs a snapshot (H6); ours go by themselves
        if self._replica.log.durable_term < message["term"]:
            # H37: a lone voter leads without having asked; its learners shall not know of a term that its disk loses.
            self.flow.refused(member, message["prevLogIdx"] + 1)
            return
        frame = self._replica.frame(message["term"])
        body = frame.append_entries
        body.prev_log_index, body.prev_log_term = message["prevLogIdx"], message["prevLogTerm"]
        body.commit_index, body.round = message["commit_index"], self.reads.begun
        confirmed_ms_ago = self.reads.confirmed_ms_ago()
        if confirmed_ms_ago is not None:
            body.confirmed_ms_ago = confirmed_ms_ago
        size = 0
        for command, _, term in message["entries"]:
            body.entries.add(term=term, command=command)
            size += len(command)
        if not size:
            self.news.hold(member, frame)
            return
        self.news.overtaken(member)
        if self._replica.send(member, frame):
            self.flow.sent(member, body.prev_log_index + len(body.entries), size)
        else:
            self.flow.refused(member, body.prev_log_index + 1)

    def _send_answer(self, member: MemberId, message: Message) -> None:
        verdict = self._verdict
        assert verdict is not None, "an answer without a question"
        frame = self._replica.frame(self._replica.log.term)
        answer = frame.append_entries_reply
        if isinstance(verdict, Rejected):
            answer.next_index = verdict.next_index
            self._replica.record("rejected", verdict.next_index, member)
            self._replica.send(member, frame)
            self._answered_ns = self._replica.now_ns()
            return
        if self._is_repetition(verdict):
            return
        answer.success, answer.next_index = True, verdict.verified_index + 1
        self._acked = (self._replica.log.term, verdict.verified_index)
        answer.round, answer.wants_news = self._round_to_echo, self.news.is_wanted_here
        if self._promises.make(member, frame):
            self._answered_ns = self._replica.now_ns()
            self._echoed = (self._replica.log.term, self._round_to_echo)

    def _is_repetition(self, verdict: Accepted) -> bool:
        """The leader has this very ack, and a sign of life since half a heartbeat."""
        said = (self._replica.log.term, verdict.verified_index)
        echoed = (self._replica.log.term, self._round_to_echo)
        is_recent = self._replica.now_ns() - self._answered_ns < self._replica.options.heartbeat_ns // 2
        return said == self._acked and echoed <= self._echoed and is_recent

    def _send_vote_request(self, member: MemberId, message: Message) -> None:
        self._voters_for_me = set()
        frame = self._replica.frame(message["term"])
        frame.request_vote.last_log_index = message["last_log_index"]
        frame.request_vote.last_log_term = message["last_log_term"]
        self._replica.record("requested_vote", message["last_log_index"], member)
        self._promises.make(member, frame)

    # what arrives ----------------------------------------------------------------------------------------

    def receive(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        kind = frame.WhichOneof("kind")
        if kind in _COUNTED and member not in self._replica.members:
            self._replica.drop("not_a_member", member)
            return
        if frame.term < self._replica.log.term and kind not in ("pre_vote", "pre_vote_reply"):
            self._answer_older_term(member, kind)
            return
        self.has_news |= kind not in _ANSWERS
        match kind:
            case "append_entries":
                self._on_append_entries(member, frame)
            case "append_entries_reply":
                self._on_append_entries_reply(member, frame)
            case "heartbeat":
                self._on_heartbeat(member, frame)
            case "heartbeat_reply":
                self._on_heartbeat_reply(member, frame)
            case "request_vote":
                self._on_request_vote(member, frame)
            case "vote":
                self._on_vote(member, frame)
            case "pre_vote":
                self.election.on_pre_vote(member, frame)
            case "pre_vote_reply":
                self.election.on_pre_vote_reply(member, frame)
            case "timeout_now":
                if self._replica.is_voter:
                    self.core.receive(member, {"type": "timeout_now", "term": frame.term})
            case "stale_term":
                self._follow_term(member, frame.term)
            case _:
                self._replica.drop(f"unknown_kind_{kind}", member)

    def _answer_older_term(self, member: MemberId, kind: str | None) -> None:
        """H16: PySyncObj never answers an older term, and a deposed leader would go on for ever."""
        if kind in _FROM_BEHIND:
            frame = self._replica.frame(self._replica.log.term)
            frame.stale_term.SetInParent()
            self._replica.send(member, frame)
        else:
            self._replica.drop("older_term", member)

    def _follow_term(self, member: MemberId, term: int) -> None:
        self.has_news = True
        if term > self._replica.log.term:
            self.core.adopt_term(member, term)
            self._replica.record("adopted_term", self._replica.log.last_index, member)

    # follower --------------------------------------------------------------------------------------------

    def _on_append_entries(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        body, log = frame.append_entries, self._replica.log
        if frame.term == log.term and self._is_second_leader(member):
            self._replica.drop("second_leader", member)
            return
        first = body.prev_log_index + 1
        entries = [(entry.command, first + offset, entry.term) for offset, entry in enumerate(body.entries)]
        previous = Position(body.prev_log_index, body.prev_log_term)
        verdict = reconcile(log, previous, entries, self.core.raftCommitIndex)
        message: Message = {"type": "append_entries", "term": frame.term, "entries": []}
        if isinstance(verdict, Rejected):
            message.update(prevLogIdx=previous.index, prevLogTerm=previous.term, commit_index=0)
            if log.holds(previous):  # cannot be: a rejection is about an entry that is not there
                raise AssertionError("rejected a held entry")
        else:
            self._resolve_conflict(member, verdict)
            commit = min(body.commit_index, verdict.verified_index)
            if (frame.term, commit) > self._known_commit:
                self._known_commit = (frame.term, commit)
            message.update(
                prevLogIdx=verdict.previous.index,
                prevLogTerm=verdict.previous.term,
                entries=verdict.entries,
                commit_index=min(commit, log.durable_index),
            )
            if verdict.entries:
                self._replica.record("appended", verdict.verified_index, member, entries=len(verdict.entries))
        self.election.heard_leader()
        if body.HasField("confirmed_ms_ago"):
            self.leader_confirmed_ns = self._replica.now_ns() - body.confirmed_ms_ago * 1_000_000
        self._verdict, self._round_to_echo = verdict, body.round
        self.core.receive(member, message)
        self._verdict = None
        self._answer_at_once(member, body.round)

    def _is_second_leader(self, member: MemberId) -> bool:
        """Of this node's own term, in which it leads or follows somebody else: a term has one leader."""
        return self.core.is_leader or self.core.leader not in (None, member)

    def _resolve_conflict(self, member: MemberId, verdict: Accepted) -> None:
        """Truncate here: the durable index falls before PySyncObj commits, and it sees only a slice of a long log."""
        conflict = verdict.conflict_index
        if conflict is None:
            return
        if conflict <= max(self.core.raftCommitIndex, self.core.raftLastApplied):
            raise Fatal(
                f"leader {hex_id(member)} overrides committed entry {conflict} (commit index "
                f"{self.core.raftCommitIndex}): this node's state can't be trusted; it stops"
            )
        self._replica.record("truncated", conflict, member, last_index=self._replica.log.last_index)
        self._replica.log.truncate_from(conflict)

    def _on_heartbeat(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        """A round of ReadIndex, or a sign of life of a leader that waits for our acks."""
        if frame.term > self._replica.log.term:
            return  # entries of the new term come at once and make it known
        if self.core.leader == member:
            self.election.heard_leader()
        self._reply_alive(member, frame.heartbeat.round)

    def _answer_at_once(self, member: MemberId, round_number: int) -> None:
        """Liveness is not durability: an ack that waits for a disk must not make this node look dead."""
        is_silent = self._replica.now_ns() - self._answered_ns >= self._replica.options.heartbeat_ns // 2
        if is_silent or (self._replica.log.term, round_number) > self._echoed:
            self._reply_alive(member, round_number)

    def _reply_alive(self, member: MemberId, round_number: int) -> None:
        self._answered_ns = self._replica.now_ns()
        self._echoed = (self._replica.log.term, round_number)
        frame = self._replica.frame(self._replica.log.term)
        frame.heartbeat_reply.round = round_number
        self._replica.send(member, frame)

    # candidate -------------------------------------------------------------------------------------------

    def _on_request_vote(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        asked = frame.request_vote
        message: Message = {"type": "request_vote", "term": frame.term}
        message.update(last_log_index=asked.last_log_index, last_log_term=asked.last_log_term)
        self.core.receive(member, message)

    def _on_vote(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if member in self._voters_for_me:
            self._replica.drop("repeated_vote", member)
            return
        is_counted = member in self._replica.voters and frame.term == self._replica.log.term
        if self.core.is_candidate and is_counted:
            self._voters_for_me.add(member)
            self.core.receive(member, {"type": "response_vote", "term": frame.term})

    # leader ----------------------------------------------------------------------------------------------

    def _on_heartbeat_reply(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if frame.term > self._replica.log.term:
            self._follow_term(member, frame.term)
        elif self.core.is_leader:
            self.core.heard(member)
            self.has_news |= self.reads.has_waiting
            self.reads.echoed(member, frame.heartbeat_reply.round)

    def _on_append_entries_reply(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if frame.term > self._replica.log.term:
            self._follow_term(member, frame.term)
            return
        if not self.core.is_leader:
            self._replica.drop("answer_to_no_leader", member)
            return
        answer = frame.append_entries_reply
        if answer.success and answer.next_index > self._replica.log.last_index + 1:
            self._replica.drop("ack_beyond_log", member)
            return
        self.has_news |= self.reads.has_waiting or not answer.success
        self.reads.echoed(member, answer.round)
        if answer.success:
            self.news.heard(member, is_wanted=answer.wants_news)
            self._note_ack(member, answer.next_index - 1)
        elif member in self.snapshot_targets:
            self.core.heard(member)
        else:
            self._step_back(member, answer.next_index)

    def _step_back(self, member: MemberId, next_index: int) -> None:
        """H4: a rejection moves nextIndex back only, never to or below what is known to match."""
        matched = max(self.core.match_index(member), self._acknowledged_by(member))
        following = self.core.next_index(member)
        target = max(matched + 1, min(following, next_index))
        self.flow.forget(member, is_connected=member in self._replica.connected)
        self.core.receive(
            member, {"type": "next_node_idx", "reset": True, "success": False, "next_node_idx": target}
        )

    def _acknowledged_by(self, member: MemberId) -> int:
        return self._acknowledged.get(member, 0) if self._acknowledged_term == self._replica.log.term else 0

    def _note_ack(self, member: MemberId, index: int) -> None:
        if self._acknowledged_term != self._replica.log.term:
            self._acknowledged, self._acknowledged_term = {}, self._replica.log.term
        if index > self._acknowledged.get(member, 0):
            self._acknowledged[member] = index
            self.has_news |= self._moves_commit(index)
            self._replica.record("matched", index, member)
        self._acknowledged.setdefault(member, index)
        self.has_news |= self.flow.acknowledged(member, index)
        self.core.heard(member)
        self._count_ack(member)

    def _moves_commit(self, acknowledged: int) -> bool:
        """It may: whether a majority has it the tick finds out. What is not durable here does not count (H1)."""
        return bool(min(acknowledged, self._replica.log.durable_index) > self.core.raftCommitIndex)

    @property
    def waits_for_acks(self) -> bool:
        """Leader: nothing but the followers' acks can let the entry that is on its way be committed."""
        acknowledged = max(map(self._acknowledged_by, self._replica.others), default=0)
        is_on_its_way = self._replica.others and self._replica.log.last_index > self.core.raftCommitIndex
        return bool(self.core.is_leader and is_on_its_way and not self._moves_commit(acknowledged))

    def _count_ack(self, member: MemberId) -> None:
        """An ack counts only as far as this leader's own log is durable (H1); nextIndex never falls (H3)."""
        counted = min(self._acknowledged[member], self._replica.log.durable_index)
        following = self.core.next_index(member)
        self.core.receive_again(
            member, {"type": "next_node_idx", "reset": False, "success": True, "next_node_idx": counted + 1}
        )
        self.core.keep_next_index(member, following)

    # a commit of the journal finished --------------------------------------------------------------------

    def on_durable(self) -> None:
        self._promises.release()
        log = self._replica.log
        if self.core.is_leader:
            if self._acknowledged_term == log.term:
                for member in sorted(self._acknowledged):
                    self._count_ack(member)
            return
        term, commit = self._known_commit
        if term == log.term:
            self.core.raise_commit(min(commit, log.durable_index))

    def forget_member(self, member: MemberId) -> None:
        """It is none any more: nothing that it said counts (H5)."""
        self._acknowledged.pop(member, None)
        self._voters_for_me.discard(member)
        self.news.forget(member)
        self.snapshot_targets.discard(member)

    def on_disconnected(self, member: MemberId) -> None:
        self._promises.withdraw(member)
        self._acked = (0, 0)
        self.news.forget(member)
        self.flow.forget(member, is_connected=False)
