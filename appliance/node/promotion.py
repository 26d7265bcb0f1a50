"""When a learner has caught up (Ongaro's thesis, 4.2.1): only then does it become a voter.

Invariant: nobody is made a voter whose missing log would make writes wait for longer than an election timeout: the last
round of entries, all that the log held when the round began, was acknowledged within that time. Leader only; loop
thread only.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.consensus import ConsensusOptions, Engine, LogImage
from appliance.model import MemberId


@dataclass(slots=True)
class _Round:
    target: int
    began_ns: int


class Promotion:
    def __init__(self, engine: Engine, log: LogImage, options: ConsensusOptions) -> None:
        self._engine, self._log, self._options = engine, log, options
        self._rounds: dict[MemberId, _Round] = {}
        self._caught_up: set[MemberId] = set()
        self._term = 0

    def due(self, now_ns: int) -> MemberId | None:
        """A learner that shall be promoted and has caught up; None: there is none yet."""
        self._follow(now_ns)
        for member in self._log.configuration.members:
            if member.is_promotable and not member.is_voter and member.member_id in self._caught_up:
                return member.member_id
        return None

    def obstacle(self, member_id: MemberId) -> str | None:
        """Why it can't be promoted yet."""
        if member_id in self._caught_up and self._engine.is_connected(member_id):
            return None
        if not self._engine.is_connected(member_id):
            return "the learner is not connected to the leader"
        missing = self._log.last_index - self._engine.match_index(member_id)
        return f"the learner is still catching up: {max(missing, 0)} entries are missing"

    def _follow(self, now_ns: int) -> None:
        learners = self._log.configuration.learners
        if self._term != self._engine.term:
            self._term = self._engine.term
            self._rounds.clear()
            self._caught_up.clear()
        for member_id in learners:
            if not self._engine.is_connected(member_id):
                self._rounds.pop(member_id, None)
                self._caught_up.discard(member_id)
                continue
            running = self._rounds.setdefault(member_id, _Round(self._log.last_index, now_ns))
            if self._engine.match_index(member_id) >= running.target:
                if now_ns - running.began_ns <= self._options.election_timeout_min_ns:
                    self._caught_up.add(member_id)
                else:
                    self._caught_up.discard(member_id)
                self._rounds[member_id] = _Round(self._log.last_index, now_ns)
            elif now_ns - running.began_ns > self._options.election_timeout_min_ns:
                self._caught_up.discard(member_id)
        self._rounds = {member: running for member, running in self._rounds.items() if member in learners}
        self._caught_up &= set(learners)
