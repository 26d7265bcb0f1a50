"""Linearizable reads from any node: learn how far the cluster is, wait until this node is that far.

Invariant: a caller is released only at an applied index that was the leader's commit index after the call began,
confirmed by a majority (floor 3, ReadIndex). Followers ask the leader; one question serves all who asked before it
was sent. Sans-IO; loop thread only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from appliance.consensus import Engine
from appliance.errors import NoLeader, NotApplied
from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2

DEADLINES_SPARE = 1_024
"""Deadlines of finished reads that are kept, beside as many as reads wait: a deadline may be a day away."""

BarrierDone = Callable[[NotApplied | None], None]
Ask = Callable[[MemberId, int], bool]
"""Send ReadIndex with this number to the leader."""


@dataclass(slots=True)
class _Waiter:
    deadline_ns: int
    done: BarrierDone
    is_done: bool = False


@dataclass(slots=True)
class _Question:
    number: int
    leader: MemberId
    term: int
    asked_ns: int
    waiters: list[_Waiter]


class Barriers:
    def __init__(self, engine: Engine, ask: Ask, retry_ns: int, *, first_number: int) -> None:
        """first_number: higher than any of an earlier boot, whose answer may still be on its way."""
        self._engine, self._ask, self._retry_ns = engine, ask, retry_ns
        self._new: list[_Waiter] = []
        self._question: _Question | None = None
        self._applied_at: list[tuple[int, int, _Waiter]] = []
        self._deadlines: list[tuple[int, int, _Waiter]] = []
        self._order = 0
        self._number = first_number
        self._count = 0

    def submit(self, deadline_ns: int, done: BarrierDone) -> None:
        waiter = _Waiter(deadline_ns, done)
        self._new.append(waiter)
        self._order += 1
        self._count += 1
        if len(self._deadlines) > DEADLINES_SPARE + 2 * self._count:
            self._deadlines = [item for item in self._deadlines if not item[2].is_done]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline_ns, self._order, waiter))

    @property
    def has_new(self) -> bool:
        return bool(self._new)

    def next_deadline_ns(self) -> int | None:
        while self._deadlines and self._deadlines[0][2].is_done:
            heapq.heappop(self._deadlines)
        deadlines = [self._deadlines[0][0]] if self._deadlines else []
        if self._question is not None:
            deadlines.append(self._question.asked_ns + self._retry_ns)
        return min(deadlines, default=None)

    def cycle(self, now_ns: int) -> None:
        """Ask for those who came, release those whose index is applied, give up on those past their deadline."""
        self._check_question(now_ns)
        if self._new and self._engine.is_leader:
            waiters, self._new = self._new, []
            self._engine.read_index(lambda index: self._answered(waiters, index, now_ns))
        elif self._new and self._question is None:
            self._ask_leader(now_ns)
        self.release(self._engine.applied_index)
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            waiter = heapq.heappop(self._deadlines)[2]
            if not waiter.is_done:
                error = NoLeader("no majority confirmed the read before its deadline; retry, or read locally")
                self._finish(waiter, error)
        if self._new:
            self._new = [waiter for waiter in self._new if not waiter.is_done]

    def on_reply(self, member: MemberId, frame: peer_pb2.Frame, now_ns: int) -> None:
        """index 0: the member does not lead."""
        question, reply = self._question, frame.read_index_reply
        if question is not None and question.number == reply.request:
            self._question = None
            self._answered(question.waiters, reply.index or None, now_ns)
        if not reply.index:
            self._engine.leader_denied(member, frame.term)

    def fail_all(self, error: NotApplied) -> None:
        """This node stops serving."""
        waiters = [waiter for _, _, waiter in self._deadlines]
        self._new, self._question, self._applied_at, self._deadlines = [], None, [], []
        for waiter in waiters:
            self._finish(waiter, error)

    def release(self, applied_index: int) -> None:
        while self._applied_at and self._applied_at[0][0] <= applied_index:
            self._finish(heapq.heappop(self._applied_at)[2], None)

    def _ask_leader(self, now_ns: int) -> None:
        leader = self._engine.leader
        if leader is None:
            return
        self._number += 1
        if self._ask(leader, self._number):
            self._question = _Question(self._number, leader, self._engine.term, now_ns, self._new)
            self._new = []

    def _check_question(self, now_ns: int) -> None:
        """The leader changed, or the answer is overdue: ask again."""
        question = self._question
        if question is None:
            return
        is_stale = question.leader != self._engine.leader or question.term != self._engine.term
        if is_stale or now_ns - question.asked_ns >= self._retry_ns:
            self._question = None
            self._new = question.waiters + self._new

    def _answered(self, waiters: list[_Waiter], index: int | None, now_ns: int) -> None:
        if index is None:
            self._new = waiters + self._new
            return
        for waiter in waiters:
            if index <= self._engine.applied_index:
                self._finish(waiter, None)
            else:
                self._order += 1
                heapq.heappush(self._applied_at, (index, self._order, waiter))

    def _finish(self, waiter: _Waiter, error: NotApplied | None) -> None:
        if not waiter.is_done:
            waiter.is_done = True
            self._count -= 1
            waiter.done(error)
