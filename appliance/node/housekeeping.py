"""Checkpoints, trimming, eviction, expiry of keys and the disk's watermark: what keeps a node small.

Invariant: the log is trimmed only up to the last durable checkpoint; what a snapshot under way or a slow follower
needs is kept, but never more than journal_bytes_max. Nothing here runs by the clock alone: an idle node writes
nothing. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from appliance.clock import Clock
from appliance.consensus import ConsensusOptions, Engine, EventLog, LogImage
from appliance.errors import Overloaded
from appliance.model import Member, MemberId, Position
from appliance.node.budget import WriteBudget
from appliance.node.clocks import Clocks
from appliance.node.identity import Self
from appliance.node.log_sizes import LogSizes
from appliance.node.options import NodeOptions
from appliance.node.retention import RetentionKeeper
from appliance.node.rooms import Rooms
from appliance.node.scrub import Scrub
from appliance.node.snapshot_receiver import SnapshotReceiver
from appliance.node.snapshot_sender import SnapshotSender
from appliance.node.space import Space, frees_space, needs_space
from appliance.node.workers import Workers
from appliance.node.writing import WritePath
from appliance.state import Applied, StateMachine
from appliance.state.entry import command_bytes
from appliance.state.operations import expire_keys
from appliance.storage.journal import Journal
from appliance.storage.store import Store
from raftberry.internal.v1 import command_pb2, peer_pb2


class Housed(Protocol):
    """The node, as far as its housekeeping looks at it. state and store change when a snapshot is installed."""

    state: StateMachine
    store: Store
    log: LogImage
    engine: Engine
    events: EventLog
    writes: WritePath
    workers: Workers
    sender: SnapshotSender
    receiver: SnapshotReceiver
    options: NodeOptions
    consensus_options: ConsensusOptions
    clock: Clock
    me: Self

    @property
    def members(self) -> Mapping[MemberId, Member]: ...

    def request_wake(self) -> None: ...

    def send_frame(self, member: MemberId, fill: Callable[[peer_pb2.Frame], None]) -> bool: ...


CHECKPOINT_COST_FACTOR = 4
"""Log between two checkpoints, in multiples of what a checkpoint writes: partial heads cost less than the log."""


class Housekeeping:
    def __init__(self, node: Housed, journal: Journal, checkpoint: Position, journal_bytes: int) -> None:
        self._node = node
        self.checkpoint = checkpoint
        self.sizes = LogSizes(
            first_index=node.log.anchor.index + 1, last_index=node.log.last_index, size_bytes=journal_bytes
        )
        self.store_bytes = node.store.size_bytes()
        self._since_checkpoint_bytes = 0
        self._due_bytes = node.options.checkpoint_bytes_min
        self._is_checkpointing = False
        self._capturing: Callable[[], bool] | None = None
        self._releasing: Callable[[], bool] | None = None
        self._generation = 0
        self._wanted: list[Callable[[Position], None]] = []
        self._waiting: list[Callable[[Position], None]] = []
        """For the checkpoint under way."""

        self._deleted_index = 0
        """Of the last entry that deletes: a full quota has the room with the checkpoint that covers it."""

        self._expiring_at = 0
        self._no_room: str | None = None
        """As judged since the last cycle; None: not yet."""

        self.clocks = Clocks(node.clock)
        self.space, self.rooms = Space(lambda: node.options), Rooms(node.clock)
        node.writes.no_room = self.no_room
        self.budget = WriteBudget(node.clock, lambda: node.options.write_budget_bytes)
        node.writes.pace_ns = self.budget.pace_ns
        self.scrub = Scrub(node, node.me.member_id, journal)
        self.retention = RetentionKeeper(node, self.clocks, self.space)

    # events ----------------------------------------------------------------------------------------------

    def applied(self, applied: Applied, entry: bytes) -> None:
        """A checkpoint is due by what a start would have to apply again, not by what that takes in the log."""
        self._since_checkpoint_bytes += command_bytes(entry)
        self.sizes.added(applied.index, len(entry))
        if self.space.is_full and applied.command and any(map(frees_space, applied.command.operations)):
            self._deleted_index = applied.index
        self.retention.applied(applied)

    def installed(self, position: Position) -> None:
        """A snapshot replaced store, state and log."""
        self._generation += 1
        self._is_checkpointing = False
        self._capturing = self._releasing = None
        self._wanted, self._waiting = [*self._waiting, *self._wanted], []
        self.checkpoint = position
        self._since_checkpoint_bytes = 0
        self.sizes = LogSizes(first_index=1, last_index=0, size_bytes=0)
        self.store_bytes = self._node.store.size_bytes()

    def stopped(self) -> None:
        """No cycle follows: who waits for a checkpoint is told which one there is."""
        self._answer_wanted()

    def checkpoint_now(self, done: Callable[[Position], None]) -> None:
        self._wanted.append(done)

    # the cycle -------------------------------------------------------------------------------------------

    def cycle(self) -> None:
        self._no_room = None
        self._checkpoint_if_due()
        self._trim()
        self._node.log.evict(self._node.engine.applied_index, self._node.consensus_options.hot_bytes_max)
        self._expire_keys()
        if not self._node.state.forget_some():
            self._node.request_wake()
        self._keep_time()
        self.scrub.cycle()
        self._measure()
        self.space.log_can_shrink = self._can_shrink_log()
        self.retention.cycle(self._clock_doubt())

    def _keep_time(self) -> None:
        """Watch this node's clock; a follower tells the leader what it says."""
        node, leader = self._node, self._node.engine.leader
        self.clocks.watch()
        if leader is not None and leader != node.me.member_id and self.clocks.is_sample_due():
            sample = self.clocks.sample()
            sample.no_room = self.space.refusal()
            node.send_frame(leader, lambda frame: frame.clock_sample.CopyFrom(sample))

    def _clock_doubt(self) -> str:
        """Of the leader, while a policy makes it matter."""
        node = self._node
        if not node.engine.is_leader or not node.state.retention.policies.policies:
            return ""
        return self.clocks.doubt(node.me.member_id, node.members)

    def heard_sample(self, member: MemberId, sample: peer_pb2.ClockSample) -> None:
        self.clocks.heard(member, sample)
        self.rooms.heard(member, sample)
        self._no_room = None

    def check_space(self, operation: command_pb2.Operation) -> None:
        """Raises Overloaded for what needs space when the quota's limit is reached; deletes go on."""
        reason = self.no_room()
        if reason and needs_space(operation):
            raise Overloaded(reason)

    def disk_has(self, free_bytes: int | None) -> None:
        """What anybody may still write to the file system of the data directory; None: not known."""
        self.space.disk_free_bytes, self._no_room = free_bytes, None

    def no_room(self) -> str:
        """Why this node, and as the leader for all, takes nothing that needs space; empty: it does.

        Asked for each write, judged once a cycle: whatever changes it wakes the node.
        """
        if self._no_room is None:
            self._measure()
            self._no_room = self.space.refusal()
            if self._node.engine.is_leader:
                self._no_room = self.rooms.refusal(self._node.members, self._no_room)
        return self._no_room

    def _measure(self) -> None:
        self.space.store_bytes, self.space.journal_bytes = self.store_bytes, self.sizes.total_bytes

    def _checkpoint_if_due(self) -> None:
        if self._is_checkpointing:
            if not self._node.receiver.is_finishing:  # its store is about to be replaced
                self._go_on_checkpointing()
            return
        if self._node.receiver.is_receiving or self._node.receiver.is_finishing:
            return
        is_dropping, has_deleted = self.retention.is_dropping, self._deleted_index > self.checkpoint.index
        is_freeing = self.space.needs_checkpoint and not is_dropping
        is_needed = is_freeing or self.space.log_can_shrink or (has_deleted and not is_dropping)
        if not self._wanted and not is_needed and not self._is_due():
            return
        if self._node.state.position.index <= self.checkpoint.index:
            self._answer_wanted()
            if is_freeing:
                self.space.checkpointed(0)
            return
        self._begin_checkpoint(is_freeing=is_freeing)

    def _is_due(self) -> bool:
        """By log bytes; the cost of a checkpoint is asked for again only when the log has grown to what it was."""
        options = self._node.options
        if self._since_checkpoint_bytes < self._due_bytes:
            return False
        cost = CHECKPOINT_COST_FACTOR * self._node.state.checkpoint_cost()
        self._due_bytes = min(max(options.checkpoint_bytes_min, cost), options.journal_bytes_max // 2)
        return self._since_checkpoint_bytes >= self._due_bytes

    def _can_shrink_log(self) -> bool:
        """The quota is nearly used up, by log that only waits for a checkpoint."""
        keep_bytes, slack_bytes = self.space.log_bytes_kept(), self.space.log_slack_bytes()
        return (
            self.space.is_tight
            and self.sizes.total_bytes > keep_bytes + slack_bytes
            and (self._since_checkpoint_bytes > slack_bytes or self._is_checkpointing)
            and self.sizes.index_to_trim_to(keep_bytes) > self.checkpoint.index
        )

    def _begin_checkpoint(self, *, is_freeing: bool) -> None:
        """Capture it, a slice a turn; write it; release what it holds, a slice a turn."""
        node, generation = self._node, self._generation
        store, state = node.store, node.state
        work = state.begin_checkpoint()
        self._is_checkpointing = True
        size_before, self._since_checkpoint_bytes = self._since_checkpoint_bytes, 0
        self._due_bytes = self._node.options.checkpoint_bytes_min
        self._waiting, self._wanted = self._wanted, []
        scrubbed = self.scrub.record()

        def capture() -> bool:
            if not work.capture_some():
                return False
            node.workers.write("store", commit, written)
            return True

        def commit() -> int:
            batch = work.batch(store.snapshot)
            store.commit(replace(batch, puts=[*batch.puts, scrubbed]))
            return store.size_bytes()

        def written(store_bytes: int) -> None:
            if generation == self._generation:
                self.checkpoint, self.store_bytes = work.position, store_bytes
                self._releasing = release
                node.request_wake()

        def release() -> bool:
            if not state.release_some(work):
                return False
            self._is_checkpointing = False
            if is_freeing:
                self.space.checkpointed(work.purged_bytes)
            node.events.record("checkpointed", node.log.term, work.position.index, log_bytes=size_before)
            waiting, self._waiting = self._waiting, []
            for tell in waiting:
                tell(work.position)
            return True

        self._capturing = capture
        self._go_on_checkpointing()

    def _go_on_checkpointing(self) -> None:
        if self._capturing is not None and self._capturing():
            self._capturing = None
        if self._releasing is not None and self._releasing():
            self._releasing = None
        if self._capturing is not None or self._releasing is not None or not self._is_checkpointing:
            self._node.request_wake()

    def _answer_wanted(self) -> None:
        wanted, self._wanted, self._waiting = [*self._waiting, *self._wanted], [], []
        for tell in wanted:
            tell(self.checkpoint)

    def _trim(self) -> None:
        """Keep watch_keep_bytes of log, less in a full quota; more for who is behind, up to journal_bytes_max."""
        options, node = self._node.options, self._node
        keep_bytes = self.space.log_bytes_kept()
        if self.sizes.total_bytes <= keep_bytes:
            return
        index = self.sizes.index_to_trim_to(keep_bytes)
        if node.engine.is_leader:
            for member in node.engine.connected_members:
                index = min(index, max(node.engine.match_index(member), 0))
        oldest = node.sender.oldest_index()
        if oldest is not None:
            index = min(index, oldest)
        index = max(index, self.sizes.index_to_trim_to(options.journal_bytes_max))
        index = min(index, self.checkpoint.index, node.log.durable_index)
        if index > node.log.anchor.index:
            node.log.trim_to(index)
            self.sizes.trimmed_to(index)
            node.state.forget_outcomes_to(index)
            node.events.record("trimmed", node.log.term, index)

    def _expire_keys(self) -> None:
        """The leader proposes the end of keys whose ttl has passed: first time moves, then the keys go."""
        node = self._node
        if not node.engine.has_committed_in_term or node.writes.is_held:
            return
        due = node.state.due_expirations()
        position = node.state.position.index
        if due and self._expiring_at < position:
            self._expiring_at = node.log.last_index
            node.writes.propose_own([expire_keys(due)])
            return
        wait_ns = node.state.next_expiry_elapsed_ns()
        if (
            wait_ns is not None
            and not due
            and node.writes.idle_ns() >= wait_ns
            and self._expiring_at < position
        ):
            self._expiring_at = node.log.last_index
            node.writes.propose_own([])
