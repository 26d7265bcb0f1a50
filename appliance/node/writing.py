"""The way of a write through this node: queue, batch, propose or forward, and back to its caller from apply.

Invariant: one entry waits for the commit under way, and all that arrives meanwhile shares the next one. While
leadership is being handed over nothing new is proposed or forwarded. Sans-IO; loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance import features
from appliance.clock import Clock
from appliance.consensus import Engine, LogImage
from appliance.errors import NotApplied
from appliance.model import MemberId, Position
from appliance.node.batch import Batch
from appliance.node.forwarding import ForwardQueue
from appliance.node.identity import Self
from appliance.node.pipeline import CommitPipeline
from appliance.node.proposals import Done, Proposals
from appliance.node.window import Window
from appliance.state import Applied
from appliance.state.operations import found_cluster
from raftberry.internal.v1 import command_pb2, peer_pb2

ENTRIES_IN_FLIGHT_MAX = 1
"""Entries that are not committed yet: more would make them smaller, and each costs a commit on every card."""

Send = Callable[[MemberId, peer_pb2.Frame, bool], bool]
"""(peer, frame, is bulk) -> queued."""


class WritePath:
    def __init__(
        self,
        me: Self,
        engine: Engine,
        log: LogImage,
        pipeline: CommitPipeline,
        clock: Clock,
        new_frame: Callable[[], peer_pb2.Frame],
        send: Send,
    ) -> None:
        self._me, self._engine, self._log, self._pipeline = me, engine, log, pipeline
        self._clock, self._new_frame, self._send = clock, new_frame, send
        self._proposals = Proposals(me.member_id, me.boot_nonce)
        self._forwarded = ForwardQueue(self._refuse)
        self._window = Window()
        self.pace_ns: Callable[[], int] = lambda: 0
        """Least time between two entries that the write budget leaves."""

        self.feature_level: Callable[[], int] = lambda: features.FIRST
        """Of the cluster, as far as this node has applied the log."""

        self.no_room: Callable[[], str] = lambda: ""
        """Why nothing that needs space is taken; empty: there is room."""

        self._last_count: int | None = None
        """Operations of the entry that was on its way, until it is committed."""

        self._was_full = False
        """That entry took no more of them."""

        self._hold_until_ns = 0
        self._applied_term = 0
        self._last_command_ns = clock.monotonic_ns()
        self._leader_seen: tuple[MemberId | None, int] = (None, 0)
        self._founding_proposed_in = 0
        self.has_applied_for_others = False
        self.reading_count = 0
        """Readings applied since this node started."""

    def submit(self, operation: command_pb2.Operation, deadline_ns: int, done: Done) -> None:
        self._proposals.submit(operation, deadline_ns, done)

    def cycle(self, now_ns: int, *, founded: bool) -> None:
        """Send on what waits. founded: the replicated state names the members already."""
        self._note_leader()
        self._proposals.expire(now_ns, "no leader took the write before its deadline")
        if self.is_held:
            return
        if self._engine.is_leader and not founded:
            self._found()
        if not self._may_send():
            return
        self._count_company(now_ns)
        is_in_order = self._engine.is_leader or self._forward_again()
        if not self._window.is_over(self._queued_count(), now_ns):
            return
        if not self._engine.is_leader:
            if is_in_order:
                self._forward()
        elif batch := self._next_batch():
            self._last_count, self._was_full = len(batch), self._queued_count() > 0
            self._propose(batch)

    def needs_cycle(self) -> bool:
        """What was just submitted can go on, or begins a window: nothing else may wake the node for it."""
        return self._window.concerns(self._queued_count()) and self._may_send()

    def next_deadline_ns(self) -> int | None:
        going_on_ns = self._window.ends_ns if self._may_send() else None
        if self.is_held:
            going_on_ns = self._hold_until_ns
        deadlines = (self._proposals.next_deadline_ns(), going_on_ns)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def hold(self, duration_ns: int) -> None:
        """Leadership is handed over: the follower must get the whole log. 0: go on."""
        self._hold_until_ns = self._clock.monotonic_ns() + duration_ns

    @property
    def is_held(self) -> bool:
        return self._clock.monotonic_ns() < self._hold_until_ns

    def idle_ns(self) -> int:
        """Time since the last command: what a new one adds to the state's elapsed time."""
        return self._clock.monotonic_ns() - self._last_command_ns

    def propose_own(self, operations: list[command_pb2.Operation]) -> None:
        """The leader's own operations, for which nobody waits."""
        batch = Batch()
        for operation in operations:
            batch.add(operation.SerializeToString())
        self._propose(batch)

    def fail_all(self, error: NotApplied) -> None:
        self._proposals.fail_all(error)

    # what became of it -----------------------------------------------------------------------------------

    def applied(self, applied: Applied) -> None:
        """An entry was applied here: tell the callers whose operations it holds."""
        self._entered_term(applied.term)
        self._last_command_ns = self._clock.monotonic_ns()
        if applied.command is None:
            return
        self.reading_count += applied.reading_count
        member, boot, is_all_ours = self._me.member_id, self._me.boot_nonce, True
        for operation, result in zip(applied.command.operations, applied.results, strict=True):
            if operation.origin_member == member and operation.origin_boot == boot:
                request = operation.origin_request
                self._proposals.applied(request, result, result.error, applied.index, applied.term)
            else:
                is_all_ours = False
        self.has_applied_for_others |= not is_all_ours

    def lost_trail(self, position: Position, is_remembered: Callable[[str], bool]) -> None:
        """A snapshot was installed: what is inside it is not known one by one. is_remembered: see Proposals."""
        self._applied_term = max(self._applied_term, position.term)
        self._proposals.lost_trail(is_remembered)

    def _entered_term(self, term: int) -> None:
        if term > self._applied_term:
            self._applied_term = term
            self._proposals.entered_term(term)

    def _may_send(self) -> bool:
        """A follower may forward at any time; a leader has one entry on its way."""
        return not self._engine.is_leader or self._can_propose()

    def _count_company(self, now_ns: int) -> None:
        """Leader: those who just had their answer, and those who came meanwhile. Follower: all who wait here."""
        if not self._engine.is_leader:
            self._window.expect_to_forward(len(self._proposals), now_ns)
            return
        self._window.pace_ns = self.pace_ns()
        if self._last_count is not None:
            # Of those that did not fit a full entry would wait for nobody.
            came = 0 if self._was_full else self._queued_count()
            self._window.committed(now_ns, company=self._last_count + came)
            self._last_count = None

    def _queued_count(self) -> int:
        forwarded = self._forwarded.count if self._engine.is_leader else 0
        return self._proposals.queued_count + forwarded

    # leader ----------------------------------------------------------------------------------------------

    def _can_propose(self) -> bool:
        in_flight = self._log.last_index - self._engine.commit_index
        return (
            in_flight < ENTRIES_IN_FLIGHT_MAX
            and not self._pipeline.is_committing
            and not self._log.has_queued
        )

    def _next_batch(self) -> Batch | None:
        batch = Batch()
        term = self._engine.term
        while self._proposals.has_queued and batch.has_room(self._proposals.peek_size()):
            batch.add(self._proposals.take(term, is_forwarded=False)[1])
        while (size := self._forwarded.peek_size(term)) is not None and batch.has_room(size):
            batch.add(self._forwarded.take())
        return batch if len(batch) else None

    def _propose(self, batch: Batch) -> None:
        now = self._clock.monotonic_ns()
        elapsed, self._last_command_ns = max(0, now - self._last_command_ns), now
        entry = batch.encode(
            time_unix_nano=self._clock.wall_ns(),
            elapsed_ns=elapsed,
            may_deflate=self.feature_level() >= features.DEFLATED_ENTRIES,
        )
        self._engine.propose(entry)

    def _found(self) -> None:
        """The first leader writes the founders into the replicated state."""
        if self._engine.has_committed_in_term and self._founding_proposed_in != self._engine.term:
            self._founding_proposed_in = self._engine.term
            self.propose_own([found_cluster(self._me.members)])

    def on_forward(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        """Take it, or say that this node does not lead, naming what it surely never proposed.

        A frame may come a second time: of what it may have proposed the first time the sender hears by an entry.
        """
        if self._engine.is_leader and frame.term == self._engine.term:
            self._forwarded.put(member, frame, no_room=self.no_room())
            return
        refused: list[int] = []
        if frame.term > self._engine.led_before:
            boot, requests = frame.boot_count, frame.forward.requests
            refused = [number for number in requests if not self._forwarded.has_taken(member, boot, number)]
        self._refuse(member, refused, is_overload=False)

    def _refuse(self, member: MemberId, requests: list[int], *, is_overload: bool, text: str = "") -> None:
        frame = self._new_frame()
        frame.forward_refused.requests.extend(requests)
        frame.forward_refused.text = text
        reasons = peer_pb2.ForwardRefused.Reason
        frame.forward_refused.reason = reasons.REASON_OVERLOADED if is_overload else reasons.REASON_NOT_LEADER
        self._send(member, frame, False)

    # follower --------------------------------------------------------------------------------------------

    def connected(self, member: MemberId) -> None:
        """The connection to the leader is new: what was on the old one may be lost."""
        if member == self._engine.leader:
            self._proposals.resend(self._engine.term)

    def on_forward_refused(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        refused = frame.forward_refused
        is_overload = refused.reason == peer_pb2.ForwardRefused.Reason.REASON_OVERLOADED
        self._proposals.refused(list(refused.requests), is_overload=is_overload, text=refused.text)
        if not is_overload:
            self._engine.leader_denied(member, frame.term)

    def _forward_again(self) -> bool:
        """What a broken connection may have lost goes before everything newer; False: some of it waits."""
        leader, term = self._engine.leader, self._engine.term
        if leader is None:
            return False
        while self._proposals.peek_again(term) is not None:
            batch = Batch()
            items: list[tuple[int, bytes]] = []
            while (size := self._proposals.peek_again(term)) is not None and batch.has_room(size):
                items.append(self._proposals.take_again())
                batch.add(items[-1][1])
            if not self._send_forward(leader, items):
                return False
        return True

    def _forward(self) -> None:
        leader = self._engine.leader
        if leader is None or not self._engine.is_connected(leader):
            return
        while self._proposals.has_queued:
            batch = Batch()
            items: list[tuple[int, bytes]] = []
            while self._proposals.has_queued and batch.has_room(self._proposals.peek_size()):
                item = self._proposals.take(self._engine.term, is_forwarded=True)
                batch.add(item[1])
                items.append(item)
            if not self._send_forward(leader, items):
                return

    def _send_forward(self, leader: MemberId, items: list[tuple[int, bytes]]) -> bool:
        frame = self._new_frame()
        for request, operation in items:
            frame.forward.requests.append(request)
            frame.forward.operations.append(operation)
        if self._send(leader, frame, False):
            return True
        self._proposals.not_sent([request for request, _ in items])
        return False

    def _note_leader(self) -> None:
        """A new leader: a hand-over is done, and what was forwarded to us in an earlier term is void.

        The old one again, after it was lost for a while: what was forwarded to it may be lost with the connection.
        """
        seen = (self._engine.leader, self._engine.term)
        if seen != self._leader_seen:
            self._leader_seen = seen
            self._forwarded.entered_term(self._engine.term)
            self._proposals.resend(self._engine.term)
            if seen[0] is not None and seen[0] != self._me.member_id:
                self._hold_until_ns = 0
