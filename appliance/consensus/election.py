"""When a node stands for election: pre-vote (Ongaro's thesis, section 9.6) and who is asked (H16).

Invariant: no term rises before a majority said that it would vote, except on the leader's own request
(TimeoutNow). A node that hears a leader grants no pre-vote. Deadlines are drawn here, by the random source that
was handed in; PySyncObj's own timer is off.
"""

from __future__ import annotations

from appliance.consensus.core import Core
from appliance.consensus.replica import Replica
from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2


class Election:
    def __init__(self, replica: Replica, core: Core) -> None:
        self._replica, self._core = replica, core
        self._attempt = 0
        self._granted: set[MemberId] = set()
        self._heard_leader_ns: int | None = None
        self._timeout_count = 0
        self._contact_ns = 0
        self.deadline_ns = 0
        self.in_contact()
        self.postpone()

    def postpone(self) -> None:
        """A full election timeout from now (paper, section 5.2)."""
        options = self._replica.options
        self.deadline_ns = self._replica.now_ns() + self._replica.rng.randint(
            options.election_timeout_min_ns, options.election_timeout_max_ns
        )
        self._granted = set()

    def heard_leader(self) -> None:
        self._heard_leader_ns = self._replica.now_ns()
        self.in_contact()
        self.postpone()

    def in_contact(self) -> None:
        """This node leads, or hears who does: callers may wait."""
        self._timeout_count, self._contact_ns = 0, self._replica.now_ns()

    def silence_ns(self) -> int | None:
        """How long this node has had no leader, if that is longer than an election takes; else None.

        Two of its timeouts must have passed as well: a process that was stopped asks first.
        """
        if self._core.is_leader or self._timeout_count < 2:
            return None
        silence_ns = self._replica.now_ns() - self._contact_ns
        return silence_ns if silence_ns >= self._replica.options.leader_fallback_ns else None

    def lost_leader(self) -> None:
        """The stream from the leader broke: it is not heard any more, and somebody shall stand soon."""
        self._heard_leader_ns = None
        stagger = self._replica.rng.randint(0, self._replica.options.succession_stagger_ns)
        self.deadline_ns = min(self.deadline_ns, self._replica.now_ns() + stagger)

    def hears_leader(self) -> bool:
        if self._heard_leader_ns is None:
            return False
        return self._replica.now_ns() - self._heard_leader_ns < self._replica.options.election_timeout_min_ns

    def tick(self) -> None:
        """Start a pre-vote when the time has come; a learner only knows then that it hears no leader."""
        if self._core.is_leader or self._replica.now_ns() < self.deadline_ns:
            return
        self.postpone()
        self._timeout_count += 1
        self._heard_leader_ns = None
        if self._core.leader is not None:
            self._core.forget_leader()
        if not self._replica.is_voter:
            return
        self._attempt += 1
        self._granted = {self._replica.self_id}
        log = self._replica.log
        self._replica.record("started_pre_vote", log.last_index, attempt=self._attempt)
        frame = self._replica.frame(log.term)
        frame.pre_vote.next_term = log.term + 1
        frame.pre_vote.last_log_index, frame.pre_vote.last_log_term = log.last.index, log.last.term
        frame.pre_vote.attempt = self._attempt
        for member in self._replica.others:
            self._replica.send(member, frame)
        self._stand_if_won()

    def on_pre_vote(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        """Say whether this node would vote; nothing changes here."""
        log, asked = self._replica.log, frame.pre_vote
        is_current = (asked.last_log_term, asked.last_log_index) >= (log.last.term, log.last.index)
        granted = (
            asked.next_term > log.term and is_current and not self._core.is_leader and not self.hears_leader()
        )
        reply = self._replica.frame(log.term)
        reply.pre_vote_reply.granted, reply.pre_vote_reply.attempt = granted, asked.attempt
        self._replica.record(
            "granted_pre_vote" if granted else "refused_pre_vote",
            log.last_index,
            member,
            next_term=asked.next_term,
        )
        self._replica.send(member, reply)

    def on_pre_vote_reply(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if frame.term > self._replica.log.term:
            if not self._core.is_leader:
                self._core.adopt_term(member, frame.term)
            return
        if member not in self._replica.voters:
            return
        if self._core.is_leader or frame.pre_vote_reply.attempt != self._attempt or not self._granted:
            return
        if frame.pre_vote_reply.granted:
            self._granted.add(member)
            self._stand_if_won()

    def _stand_if_won(self) -> None:
        if len(self._granted) >= self._replica.majority:
            self._granted = set()
            self._replica.record("won_pre_vote", self._replica.log.last_index, attempt=self._attempt)
            self._core.elect()
