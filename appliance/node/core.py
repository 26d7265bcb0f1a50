"""One node, sans-IO: what arrives goes to consensus, what is applied goes to the state machine and the callers.

Invariant: everything happens on one thread; disks are touched only through `Workers`, peers only through `send`,
time and chance only through what was handed in. The simulator runs this very class.
The life of a write: submit -> queue -> (leader) batch -> engine.propose -> committer and followers -> commit ->
apply -> caller. On another node the queue is forwarded to the leader, and the caller hears from this node's apply.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial

from appliance.clock import Clock
from appliance.consensus import ConsensusOptions, Engine, EventLog
from appliance.errors import NotApplied, Quarantined
from appliance.model import Member, MemberId, Position, Role
from appliance.node.acquaintance import Acquaintances
from appliance.node.barriers import BarrierDone, Barriers
from appliance.node.changes import ChangeDone, Changes
from appliance.node.contacts import Contacts
from appliance.node.doorstep import Doorstep, removal_of
from appliance.node.handover import Handover
from appliance.node.housekeeping import Housekeeping
from appliance.node.identity import Self
from appliance.node.levels import Levels
from appliance.node.opening import first_configuration, open_log
from appliance.node.options import NodeOptions
from appliance.node.pipeline import CommitPipeline
from appliance.node.proposals import Done
from appliance.node.snapshot_answers import SnapshotAnswers
from appliance.node.snapshot_receiver import SnapshotReceiver
from appliance.node.snapshot_sender import SnapshotSender
from appliance.node.superseding import Superseding
from appliance.node.verification import Verification
from appliance.node.workers import Workers
from appliance.node.writing import Send, WritePath
from appliance.state import Applied, StateMachine, StateOptions
from appliance.state.membership import Change
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
        self.quarantine_reason, self.is_removed = "", False
        self._state_options, self.workers = state_options, workers
        self.consensus_options = consensus_options
        recovered, plan = recover(journal, store)
        self.boot_count = journal.begin_boot()
        self.state = self._restore(store)
        configuration = first_configuration(me, self.state.configuration)
        self.log = open_log(journal, plan, consensus_options.hot_bytes_max, configuration=configuration)
        self.contacts = Contacts(me, self.log.configuration, self.state.configuration)
        self.acquaintances = Acquaintances(
            me.cluster_id, me.member_id, self.contacts.introduce, recovered.peers
        )
        self.events = EventLog(clock.wall_ns)
        self.engine = self._new_engine(plan.checkpoint, rng)
        self.pipeline = CommitPipeline(self.engine, self.log, journal, workers, clock, wake)
        self.writes = WritePath(me, self.engine, self.log, self.pipeline, clock, self.new_frame, self._send)
        self.writes.feature_level = lambda: self.state.feature_level
        self.barriers = Barriers(
            self.engine,
            self._ask_read_index,
            consensus_options.election_timeout_min_ns,
            first_number=self.boot_count << 32,
        )
        self.sender = SnapshotSender(
            self.engine, workers, self.new_frame, partial(self._send, is_bulk=True), clock, rng, wake
        )
        self._snapshot_answers = SnapshotAnswers(self.log, self.send_frame)
        self.pipeline.on_committed = self._snapshot_answers.release
        self.receiver = SnapshotReceiver(
            workers,
            lambda: self.store,
            self._is_snapshot_needed,
            self._restore,
            self._installed,
            self._snapshot_answers.send,
            clock,
        )
        self.handover, self.changes, self.superseding = Handover(self), Changes(self), Superseding(self)
        self.levels, door = Levels(self, state_options.feature_level_max), Doorstep(self)
        self.hello, self.check_hello, self.on_refused = door.hello, door.check_hello, door.on_refused
        self.housekeeping = Housekeeping(self, journal, plan.checkpoint, recovered.size_bytes)
        self.applied_listeners: list[Callable[[Applied], None]] = []
        self._has_answered_read, self.verification = False, Verification(self)
        self.upheaval_listeners: list[Callable[[], None]] = []
        """Called when the state was replaced, or this node serves no more."""

        self.on_store_replaced: Callable[[Store], None] = lambda _: None
        self.on_quarantined: Callable[[str], None] = lambda _: None
        self.on_removed: Callable[[str], None] = lambda _: None
        self.heard_ns: dict[MemberId, int] = {}
        """When something came from a peer last."""

    def _new_engine(self, applied: Position, rng: random.Random) -> Engine:
        return Engine(
            self.me.member_id,
            self.boot_count,
            log=self.log,
            applied=applied,
            apply=self._apply,
            send=lambda member, frame: self._send(member, frame, False),
            on_snapshot_needed=self._on_snapshot_needed,
            options=self.consensus_options,
            clock=self.clock,
            rng=rng,
            events=self.events,
        )

    # callers ---------------------------------------------------------------------------------------------

    def submit(self, operation: command_pb2.Operation, deadline_ns: int, done: Done) -> None:
        """Bring an operation to its outcome; done is called once. Raises NotApplied at once when it can't start."""
        if refusal := self._refusal():
            raise refusal
        self.levels.check(operation)
        self.housekeeping.check_space(operation)
        self.writes.submit(operation, deadline_ns, done)
        if self.writes.needs_cycle():
            self.request_wake()

    def read_barrier(self, deadline_ns: int, done: BarrierDone) -> None:
        """done(None) once this node's state is as new as the cluster's was when this was called."""
        if refusal := self._refusal():
            done(refusal)
            return
        self.barriers.submit(deadline_ns, done)
        self.request_wake()

    def change_members(self, change: Change, deadline_ns: int, done: ChangeDone) -> None:
        """Bring a change of the membership to its outcome; done is called once."""
        if self.quarantine_reason:
            raise Quarantined(self.quarantine_reason)
        self.changes.ask(change, deadline_ns, done)

    def _refusal(self) -> NotApplied | None:
        """Why no caller is served here now."""
        if self.quarantine_reason:
            return Quarantined(self.quarantine_reason)
        return self.engine.silence()

    @property
    def members(self) -> Mapping[MemberId, Member]:
        """Of the configuration in effect."""
        return self.contacts.members

    @property
    def role(self) -> Role:
        if self.is_removed:
            return Role.REMOVED
        return Role.QUARANTINED if self.quarantine_reason else self.engine.role

    def leader_name(self) -> str:
        leader = None if self.quarantine_reason else self.engine.leader
        return "" if leader is None else self.contacts.name_of(leader)

    # peers -----------------------------------------------------------------------------------------------

    def on_up(self, member: MemberId) -> None:
        self.engine.peer_up(member)
        self.writes.connected(member)
        self.request_wake()

    def on_down(self, member: MemberId) -> None:
        self.engine.peer_down(member)
        self.sender.on_peer_down(member)
        self.receiver.on_peer_down(member)
        self.request_wake()

    def quarantine(self, reason: str) -> None:
        """In doubt about its own data: no vote, no ack, no answer, in this life and, by the hook, in the next."""
        if not self.quarantine_reason:
            self.on_quarantined(reason)
            self._step_aside("quarantined", reason)

    def remove(self, reason: str) -> None:
        """No member any more: it takes no part, in this life and, by the hook, in the next."""
        if not self.quarantine_reason:
            self.is_removed = True
            self.changes.was_removed()
            self.on_removed(reason)
            self._step_aside("removed", reason)

    def retire(self) -> None:
        """The node stops: it says nothing any more."""
        if not self.quarantine_reason:
            self._step_aside("stopped", "this node is stopping")

    def _step_aside(self, kind: str, reason: str) -> None:
        self.quarantine_reason = reason
        self.events.record(kind, self.log.term, self.log.last_index, reason=reason)
        self._fail_callers(Quarantined(reason))
        self.changes.fail_all(Quarantined(reason))
        self.housekeeping.stopped()
        self._tell_upheaval()

    def _fail_callers(self, refusal: NotApplied) -> None:
        self.writes.fail_all(refusal)
        self.barriers.fail_all(refusal)

    def on_frame(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if self.quarantine_reason or not self.engine.is_plausible(member, frame):
            return
        self.acquaintances.saw(frame)
        self.heard_ns[member] = self.clock.monotonic_ns()
        match frame.WhichOneof("kind"):
            case "forward":
                self.writes.on_forward(member, frame)
                if not self.writes.needs_cycle():
                    return
            case "forward_refused":
                self.writes.on_forward_refused(member, frame)
            case "read_index":
                self._on_read_index(member, frame.read_index.request)
            case "read_index_reply":
                self.barriers.on_reply(member, frame, self.clock.monotonic_ns())
            case "transfer_request":
                self.handover.on_request(frame.transfer_request.target)
            case "clock_sample":
                self.housekeeping.heard_sample(member, frame.clock_sample)
                return
            case "membership_request":
                self.changes.on_request(member, frame.membership_request)
            case "membership_reply":
                self.changes.on_reply(frame.membership_reply)
            case "state_hash":
                self.verification.on_hash(member, frame.state_hash)
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
        """Do what somebody waits for. Called after anything arrived, and at `next_wake_ns`; `upkeep` follows soon."""
        if self.quarantine_reason:
            return
        now = self.clock.monotonic_ns()
        if not self.receiver.is_finishing:
            self.engine.tick()
        if refusal := self._refusal():
            self._fail_callers(refusal)
        self.writes.cycle(now, founded=bool(self.state.members()))
        # Somebody waits on another node for what was committed here.
        is_urgent = self.writes.has_applied_for_others or self._has_answered_read
        self.writes.has_applied_for_others = self._has_answered_read = False
        self.engine.release_news(is_urgent=is_urgent)
        self.barriers.cycle(now)
        self.engine.begin_reads()
        self.pipeline.flush()
        self._follow_members()
        if self.engine.applied_index < self.engine.commit_index:
            self.request_wake()

    def upkeep(self) -> None:
        """The rest, a slice of each: behind the answers, the watchers and the commit that the cycle brought."""
        if self.quarantine_reason:
            return
        now = self.clock.monotonic_ns()
        self.changes.cycle(now)
        self.levels.cycle(now)
        self.sender.cycle()
        self.receiver.cycle()
        self.housekeeping.cycle()
        self.verification.cycle()
        if self.acquaintances.has_news and self.log.has_queued:
            self.log.remember_peers(self.acquaintances.memory())
        self.pipeline.flush()
        self._snapshot_answers.release()

    def next_wake_ns(self) -> int:
        deadlines = [
            self.writes.next_deadline_ns(),
            self.barriers.next_deadline_ns(),
            self.engine.next_wake_ns(),
            self.changes.next_deadline_ns(),
        ]
        return min(deadline for deadline in deadlines if deadline is not None)

    def checkpoint(self, done: Callable[[Position], None]) -> None:
        self.housekeeping.checkpoint_now(done)
        self.request_wake()

    def begin_transfer(self, target: str) -> MemberId:
        return self.handover.begin(target)

    # applying ---------------------------------------------------------------------------------------------

    def _apply(self, index: int, term: int, entry: bytes) -> None:
        """entry: as it stands in the log, with its type byte."""
        if index <= self.state.position.index:
            return
        applied = self.state.apply_entry(index, term, entry)
        self.housekeeping.applied(applied, entry)
        self.writes.applied(applied)
        for listener in self.applied_listeners:
            listener(applied)

    def _follow_members(self) -> None:
        """The configuration in effect, or the committed one, may be another: links and transfers follow."""
        if not self.contacts.update(self.log.configuration, self.state.configuration):
            return
        self.sender.keep(self.members)
        self.acquaintances.keep(self.contacts.peers)
        if self.me.member_id in self.state.configuration.removed:
            self.remove(removal_of(self.me, self.state.configuration.version))

    # reads -----------------------------------------------------------------------------------------------

    def _ask_read_index(self, leader: MemberId, number: int) -> bool:
        frame = self.new_frame()
        frame.read_index.request = number
        return self._send(leader, frame, False)

    def _on_read_index(self, member: MemberId, number: int) -> None:
        def answer(index: int | None) -> None:
            frame = self.new_frame()
            frame.read_index_reply.request, frame.read_index_reply.index = number, index or 0
            self._has_answered_read = True
            self._send(member, frame, False)

        self.engine.read_index(answer)

    # snapshots -------------------------------------------------------------------------------------------

    def _on_snapshot_needed(self, member: MemberId) -> None:
        if self.engine.is_connected(member):
            self.sender.begin(member, self.store.snapshot())

    def _is_snapshot_needed(self, position: Position) -> bool:
        return position.index > self.engine.applied_index and not self.log.holds(position)

    def _restore(self, store: Store) -> StateMachine:
        with store.snapshot() as reader:
            return StateMachine.restore(reader, self._state_options)

    def _installed(self, store: Store, state: StateMachine, position: Position) -> None:
        self.store.close()
        self.store = store
        self.on_store_replaced(store)
        self.workers.read(self.state.forget, lambda _: None)
        self.state = state
        self.engine.install(position, self.state.configuration)
        self.housekeeping.installed(position)
        self.writes.lost_trail(position, state.remembers_producer)
        self._tell_upheaval()
        self.request_wake()

    def _tell_upheaval(self) -> None:
        for listener in self.upheaval_listeners:
            listener()

    def _send(self, member: MemberId, frame: peer_pb2.Frame, is_bulk: bool) -> bool:
        """A commit that was under way when the quarantine began must not release a vote or an ack."""
        return not self.quarantine_reason and self._link_send(member, frame, is_bulk)

    def send_frame(self, member: MemberId, fill: Callable[[peer_pb2.Frame], None]) -> bool:
        """A frame on the live lane; False: not connected, or the lane is full."""
        frame = self.new_frame()
        fill(frame)
        return self._send(member, frame, False)

    def new_frame(self) -> peer_pb2.Frame:
        return peer_pb2.Frame(
            from_member=self.me.member_id,
            boot_count=self.boot_count,
            term=self.log.term,
            high_index=self.log.high_index,
        )
