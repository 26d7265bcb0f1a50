"""ReadIndex (Ongaro's thesis, section 6.4): linearizable reads without a write (H18).

Invariant: a read is confirmed with the commit index of the moment it was asked, after a majority has answered in
this term to a round that began later, and only once the term's NO_OP is committed. Many reads share a round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.consensus.core import Core
from appliance.consensus.replica import Replica
from appliance.model import MemberId

ReadDone = Callable[[int | None], None]
"""Called once, with the index to wait for, or None: this node does not lead (any more)."""


@dataclass(slots=True)
class _Read:
    round: int
    index: int
    done: ReadDone


class Reads:
    def __init__(self, replica: Replica, core: Core) -> None:
        self._replica, self._core = replica, core
        self._waiting: deque[_Read] = deque()
        self._early: list[ReadDone] = []
        self._echoed: dict[MemberId, int] = {}
        self._term = 0
        self._round = 0
        self.begun = 0
        """The latest round that was sent out: what AppendEntries may carry."""

        self._is_round_due = False
        self._begun_ns = 0
        self._confirmed = 0
        self.confirmed_ns: int | None = None
        """When a majority last confirmed this leader."""

        self._confirmed_term = 0

    def ask(self, done: ReadDone) -> None:
        if not self._core.is_leader:
            done(None)
        elif self._core.raftCommitIndex < self._core.noop_index:
            self._early.append(done)
        else:
            self._join_round(done)

    def _join_round(self, done: ReadDone) -> None:
        if not self._is_round_due:
            self._round += 1
            self._is_round_due = True
        self._waiting.append(_Read(self._round, self._core.raftCommitIndex, done))

    def tick(self) -> None:
        """Begin the round that reads wait for; answer reads of a leader that is none any more."""
        if not self._core.is_leader:
            self._fail_all()
            return
        if self._term != self._replica.log.term:
            self._fail_all()
            self._term = self._replica.log.term
            self._echoed.clear()
            self._confirmed = self.begun
        if self._early and self._core.raftCommitIndex >= self._core.noop_index:
            early, self._early = self._early, []
            for done in early:
                self._join_round(done)
        if self._is_round_due:
            self.begin_due()
        elif self._replica.now_ns() - self._begun_ns >= self._replica.options.heartbeat_ns:
            self._begin_silent_round()

    def begin_due(self) -> None:
        """Begin the round of the reads that were asked since the last one."""
        if self._is_round_due and self._core.is_leader:
            self._is_round_due = False
            self.send_heartbeats()
            self._confirm()

    def _begin_silent_round(self) -> None:
        """AppendEntries carry it anyway: so this leader knows that it leads, at no cost."""
        self._round += 1
        self._begin()
        self._confirm()

    def send_heartbeats(self) -> None:
        self._begin()
        frame = self._replica.frame(self._replica.log.term)
        frame.heartbeat.round = self.begun
        for member in self._replica.others:
            self._replica.send(member, frame)

    def _begin(self) -> None:
        self.begun = self._round
        self._begun_ns = self._replica.now_ns()

    def confirmed_ms_ago(self) -> int | None:
        """Milliseconds since a majority last confirmed this leader in its term; None: not yet."""
        if self.confirmed_ns is None or self._confirmed_term != self._replica.log.term:
            return None
        return (self._replica.now_ns() - self.confirmed_ns) // 1_000_000

    def echoed(self, member: MemberId, round_number: int) -> None:
        """A follower answered in this leader's term."""
        if round_number > self._echoed.get(member, 0):
            self._echoed[member] = round_number
            self._confirm()

    def _confirm(self) -> None:
        rounds = sorted((self._echoed.get(member, 0) for member in self._replica.others), reverse=True)
        needed = self._replica.majority - 1
        confirmed = self.begun if needed == 0 else rounds[needed - 1]
        if confirmed > self._confirmed:
            self._confirmed = confirmed
            self.confirmed_ns, self._confirmed_term = self._replica.now_ns(), self._term
        while self._waiting and self._waiting[0].round <= confirmed:
            read = self._waiting.popleft()
            read.done(read.index)

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting or self._early)

    def _fail_all(self) -> None:
        failed = [read.done for read in self._waiting] + self._early
        self._waiting.clear()
        self._early = []
        self._is_round_due = False
        for done in failed:
            done(None)
