"""One node, sans-IO: what arrives goes to consensus, what is applied goes to the state machine and the callers.

Invariant: everything happens on one thread; disks are touched only through `Workers`, peers only through `send`,
time and chance only through what was handed in. The simulator runs this very class.
The life of a write: submit -> queue -> (leader) batch -> engine.propose -> committer and followers -> commit ->
apply -> caller. On another node the queue is forwarded to the leader, and the caller hears from this node's apply.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from appliance.clock import Clock
from appliance.consensus import ConsensusOptions, Engine, EventLog
from appliance.errors import ConditionFailed, NoLeader, NotApplied, Quarantined
from appliance.model import MemberId, Position, Role
from appliance.node.acquaintance import PROTOCOL, Acquaintances
from appliance.node.barriers import BarrierDone, Barriers
from appliance.node.housekeeping import Housekeeping
from appliance.node.identity import Self
from appliance.node.opening import open_log
from appliance.node.options import NodeOptions
from appliance.node.pipeline import CommitPipeline
from appliance.node.proposals import Done
from appliance.node.snapshot_receiver import SnapshotReceiver
from appliance.node.snapshot_sender import SnapshotSender
from appliance.node.workers import Workers
from appliance.node.writing import Send, WritePath
from appliance.state import Applied, StateMachine, StateOptions
from appliance.storage.journal import Journal
from appliance.storage.recovery import recover
from appliance.storage.store import Store
from raftberry.internal.v1 import command_pb2, peer_pb2


class NodeCore:
    def __init__(
        self,
        me: Self,
        journal: Journal,
        store: Store,
        *,
        workers: Workers,
        send: Send,
        wake: Callable[[], None],
        clock: Clock,
        rng: random.Random,
        options: NodeOptions,
        consensus_options: ConsensusOptions,
        state_options: StateOptions,
    ) -> None:
        """Recovers journal and store: takes as long as the log behind the checkpoint takes to read."""
        self.me, self.options, self.clock = me, options, clock
        self._journal, self.store, self._link_send, self.request_wake = journal, store, send, wake
        self.quarantine_reason = ""
        self._state_options, self.workers = state_options, workers
        self.consensus_options = consensus_options
        self.members = {member.member_id: member for member in me.members}
        recovered, plan = recover(journal, store)
        self.boot_count = journal.begin_boot()
        with store.snapshot() as reader:
            self.state = StateMachine.restore(reader, state_options)
        self.log = open_log(journal, plan, consensus_options.hot_bytes_max)
        self.acquaintances = Acquaintances(me.cluster_id, me.member_id, self.members, recovered.peers)
        self.events = EventLog(clock.wall_ns)
        self.engine = Engine(
            me.member_id,
            self.boot_count,
            [member.member_id for member in me.members if member.is_voter],
            log=self.log,
            applied=plan.checkpoint,
            apply=self._apply,
            send=lambda member, frame: self._send(member, frame, False),
            on_snapshot_needed=self._on_snapshot_needed,
            options=consensus_options,
            clock=clock,
            rng=rng,
            events=self.events,
        )
        self.pipeline = CommitPipeline(self.engine, self.log, journal, workers, clock, wake)
        self.writes = WritePath(me, self.engine, self.log, self.pipeline, clock, self._frame, self._send)
        self.barriers = Barriers(
            self.engine,
            self._ask_read_index,
            consensus_options.election_timeout_min_ns,
            first_number=self.boot_count << 32,
        )
        self.sender = SnapshotSender(
            self.engine, workers, self._frame, partial(self._send, is_bulk=True), clock, rng, wake
        )
        self.receiver = SnapshotReceiver(
            workers, lambda: self.store, self._is_snapshot_needed, self._installed, self._send_snapshot_reply
        )
        self.housekeeping = Housekeeping(self, plan.checkpoint, recovered.size_bytes)
        self._has_answered_read = False
        self.applied_listeners: list[Callable[[Applied], None]] = []
        self.upheaval_listeners: list[Callable[[], None]] = []
        """Called when the state was replaced, or this node serves no more."""

        self._when_durable: list[tuple[int, Callable[[], None]]] = []
        self.on_store_replaced: Callable[[Store], None] = lambda _: None
        self.on_quarantined: Callable[[str], None] = lambda _: None
        self._heard_ns: dict[MemberId, int] = {}

    # callers ---------------------------------------------------------------------------------------------

    def submit(self, operation: command_pb2.Operation, deadline_ns: int, done: Done) -> None:
        """Bring an operation to its outcome; done is called once. Raises NotApplied at once when it can't start."""
        if self.quarantine_reason:
            raise Quarantined(self.quarantine_reason)
        self.housekeeping.check_space(operation)
        self.writes.submit(operation, deadline_ns, done)
        if self.writes.needs_cycle():
            self.request_wake()

    def read_barrier(self, deadline_ns: int, done: BarrierDone) -> None:
        """done(None) once this node's state is as new as the cluster's was when this was called."""
        if self.quarantine_reason:
            done(Quarantined(self.quarantine_reason))
            return
        self.barriers.submit(deadline_ns, done)
        self.request_wake()

    @property
    def role(self) -> Role:
        return Role.QUARANTINED if self.quarantine_reason else self.engine.role

    def leader_name(self) -> str:
        leader = None if self.quarantine_reason else self.engine.leader
        return "" if leader is None else self.members[leader].name

    def confirmed_ns(self) -> int | None:
        """When this node last knew that the cluster is led by a leader that a majority confirms."""
        return self.engine.confirmed_ns()

    # peers -----------------------------------------------------------------------------------------------

    def hello(self, to_member: MemberId) -> peer_pb2.Frame:
        frame = self._frame()
        frame.hello.protocol, frame.hello.cluster_id = PROTOCOL, self.me.cluster_id
        frame.hello.name, frame.hello.to_member = self.me.name, to_member
        frame.hello.boot_nonce, frame.hello.version = self.me.boot_nonce, self.me.version
        frame.hello.quarantined = bool(self.quarantine_reason)
        return frame

    def check_hello(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        if self.quarantine_reason or frame.hello.quarantined:
            reason = peer_pb2.Refusal.Reason.REASON_QUARANTINED
            return peer_pb2.Refusal(reason=reason, message="one of the two nodes is quarantined")
        return self.acquaintances.check_hello(frame)

    def on_up(self, member: MemberId) -> None:
        self.engine.peer_up(member)
        self.writes.connected(member)
        self.request_wake()

    def on_down(self, member: MemberId) -> None:
        self.engine.peer_down(member)
        self.sender.on_peer_down(member)
        self.receiver.on_peer_down(member)
        self.request_wake()

    def on_refused(self, refusal: peer_pb2.Refusal) -> None:
        """A peer says that this node must not take part.

        One that does not know this node at all may be a stranger at a peer's address: no link is enough.
        """
        if refusal.reason in (
            peer_pb2.Refusal.Reason.REASON_AMNESIA,
            peer_pb2.Refusal.Reason.REASON_TWO_HOLDERS,
        ):
            self.quarantine(refusal.message)

    def quarantine(self, reason: str) -> None:
        """In doubt about its own data: no vote, no ack, no answer, in this life and, by the hook, in the next."""
        if not self.quarantine_reason:
            self.on_quarantined(reason)
            self._step_aside("quarantined", reason)

    def retire(self) -> None:
        """The node stops: it says nothing any more."""
        if not self.quarantine_reason:
            self._step_aside("stopped", "this node is stopping")

    def _step_aside(self, kind: str, reason: str) -> None:
        self.quarantine_reason = reason
        self.events.record(kind, self.log.term, self.log.last_index, reason=reason)
        self.writes.fail_all(Quarantined(reason))
        self.barriers.fail_all(Quarantined(reason))
        self.housekeeping.stopped()
        self._tell_upheaval()

    def heard_ms_ago(self, member: MemberId) -> int | None:
        heard = self._heard_ns.get(member)
        return None if heard is None else (self.clock.monotonic_ns() - heard) // 1_000_000

    def on_frame(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if self.quarantine_reason or not self.engine.is_plausible(member, frame):
            return
        self.acquaintances.saw(frame)
        self._heard_ns[member] = self.clock.monotonic_ns()
        match frame.WhichOneof("kind"):
            case "forward":
                self.writes.on_forward(member, frame)
            case "forward_refused":
                self.writes.on_forward_refused(member, frame)
            case "read_index":
                self._on_read_index(member, frame.read_index.request)
            case "read_index_reply":
                self._on_read_index_reply(member, frame)
            case "transfer_request":
                self._on_transfer_request(frame.transfer_request.target)
            case "snapshot_chunk":
                if frame.term >= self.log.term:
                    self.receiver.on_chunk(member, frame.snapshot_chunk)
            case "snapshot_reply":
                self.sender.on_reply(member, frame.snapshot_reply)
            case "append_entries" if self.receiver.is_finishing:
                return
            case _:
                if not self.engine.receive(member, frame):
                    return
        self.request_wake()

    # the cycle -------------------------------------------------------------------------------------------

    def cycle(self) -> None:
        """Do all there is to do now. Called after anything arrived, and at `next_wake_ns`."""
        if self.quarantine_reason:
            return
        now = self.clock.monotonic_ns()
        if not self.receiver.is_finishing:
            self.engine.tick()
        self.writes.cycle(now, founded=bool(self.state.members()))
        self.engine.release_news(is_urgent=self._take_urgency())
        self.barriers.cycle(now)
        self.engine.begin_reads()
        self.sender.cycle()
        self.receiver.cycle()
        self.housekeeping.cycle()
        if self.acquaintances.has_news and self.log.has_queued:
            self.log.remember_peers(self.acquaintances.memory())
        self.pipeline.flush()
        self._release_durable()
        if self.engine.applied_index < self.engine.commit_index:
            self.request_wake()

    def _take_urgency(self) -> bool:
        """Somebody waits on another node for what was committed here."""
        is_urgent = self.writes.has_applied_for_others or self._has_answered_read
        self.writes.has_applied_for_others = self._has_answered_read = False
        return is_urgent

    def next_wake_ns(self) -> int:
        deadlines = [
            self.writes.next_deadline_ns(),
            self.barriers.next_deadline_ns(),
            self.engine.next_wake_ns(),
        ]
        return min(deadline for deadline in deadlines if deadline is not None)

    def checkpoint(self, done: Callable[[Position], None]) -> None:
        self.housekeeping.checkpoint_now(done)
        self.request_wake()

    def begin_transfer(self, target: str) -> MemberId:
        """Ask a follower to take over; proposals wait from now on: until a new leader is seen, or a bound ends it.

        Raises ConditionFailed while anything is in flight: call again.
        """
        if not self.engine.is_leader:
            raise NoLeader("this node does not lead; ask the leader to hand over")
        wanted = next((member.member_id for member in self.members.values() if member.name == target), None)
        if target and wanted is None:
            raise ConditionFailed(f"{target} is no member of this cluster")
        if wanted is not None and not self.engine.is_connected(wanted):
            raise ConditionFailed(f"{target} is not connected to the leader and can't take over")
        self.writes.hold(self.consensus_options.election_timeout_min_ns)
        return self.engine.transfer(wanted)

    def is_unknown(self, target: str) -> bool:
        """A target that is named and is no other member."""
        return bool(target) and target not in (
            m.name for m in self.members.values() if m.member_id != self.me.member_id
        )

    def ask_to_transfer(self, leader: MemberId, target: str) -> None:
        """Tell the leader that somebody asked this node to have leadership handed over."""
        frame = self._frame()
        frame.transfer_request.target = target
        self._send(leader, frame, False)

    def end_transfer(self) -> None:
        self.writes.hold(0)
        self.request_wake()

    # applying ---------------------------------------------------------------------------------------------

    def _apply(self, index: int, term: int, command: bytes) -> None:
        if index <= self.state.position.index:
            return
        applied = self.state.apply(index, term, command)
        self.housekeeping.applied(index, len(command))
        self.writes.applied(applied)
        for listener in self.applied_listeners:
            listener(applied)

    # reads -----------------------------------------------------------------------------------------------

    def _ask_read_index(self, leader: MemberId, number: int) -> bool:
        frame = self._frame()
        frame.read_index.request = number
        return self._send(leader, frame, False)

    def _on_read_index(self, member: MemberId, number: int) -> None:
        def answer(index: int | None) -> None:
            frame = self._frame()
            frame.read_index_reply.request, frame.read_index_reply.index = number, index or 0
            self._has_answered_read = True
            self._send(member, frame, False)

        self.engine.read_index(answer)

    def _on_read_index_reply(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        reply = frame.read_index_reply
        self.barriers.on_reply(reply.request, reply.index, self.clock.monotonic_ns())
        if not reply.index:
            self.engine.leader_denied(member, frame.term)

    def _on_transfer_request(self, target: str) -> None:
        """Another node's caller wants it; the asker repeats until a new leader is seen."""
        with suppress(NotApplied):
            self.begin_transfer(target)

    # snapshots -------------------------------------------------------------------------------------------

    def _on_snapshot_needed(self, member: MemberId) -> None:
        if self.engine.is_connected(member):
            self.sender.begin(member, self.store.snapshot())

    def _is_snapshot_needed(self, position: Position) -> bool:
        return position.index > self.engine.applied_index and not self.log.holds(position)

    def _installed(self, store: Store, position: Position) -> None:
        self.store.close()
        self.store = store
        self.on_store_replaced(store)
        with store.snapshot() as reader:
            self.state = StateMachine.restore(reader, self._state_options)
        self.engine.install(position)
        self.housekeeping.installed(position)
        self.writes.lost_trail(position)
        self._tell_upheaval()
        self.request_wake()

    def _tell_upheaval(self) -> None:
        for listener in self.upheaval_listeners:
            listener()

    def _send_snapshot_reply(self, member: MemberId, reply: peer_pb2.SnapshotReply) -> None:
        """Installed is a promise: it waits for the log's reset, or for the entries that made the snapshot needless."""

        def send() -> None:
            frame = self._frame()
            frame.snapshot_reply.CopyFrom(reply)
            self._send(member, frame, False)

        if reply.installed:
            self._when_durable.append((self.log.promise_sequence, send))
        else:
            send()

    def _release_durable(self) -> None:
        while self._when_durable and self._when_durable[0][0] <= self.log.durable_sequence:
            self._when_durable.pop(0)[1]()

    # helpers ---------------------------------------------------------------------------------------------

    def _send(self, member: MemberId, frame: peer_pb2.Frame, is_bulk: bool) -> bool:
        """A commit that was under way when the quarantine began must not release a vote or an ack."""
        return not self.quarantine_reason and self._link_send(member, frame, is_bulk)

    def _frame(self) -> peer_pb2.Frame:
        return peer_pb2.Frame(
            from_member=self.me.member_id,
            boot_count=self.boot_count,
            term=self.log.term,
            high_index=self.log.high_index,
        )
