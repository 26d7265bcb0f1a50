"""Raft as floor 4 sees it: tick, receive, propose, read, hand over. Sans-IO; loop thread only.

Invariant: commit and apply never pass this node's own durable index, in a cluster of one as in any other.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from appliance.clock import Clock
from appliance.consensus.core import SECOND_NS, Core, node_of
from appliance.consensus.election import Election
from appliance.consensus.events import EventLog
from appliance.consensus.flow import Flow
from appliance.consensus.guard import Guard
from appliance.consensus.log import LogImage
from appliance.consensus.options import MILLISECOND_NS, ConsensusOptions
from appliance.consensus.plausible import implausible
from appliance.consensus.promises import Promises
from appliance.consensus.reads import ReadDone, Reads
from appliance.consensus.replica import Replica, Send
from appliance.errors import ConditionFailed, NoLeader
from appliance.limits import ENTRY_BYTES_MAX
from appliance.model import Configuration, MemberId, Position, Role
from appliance.state.configuration import encode_configuration
from raftberry.internal.v1 import peer_pb2

_ROLES = {0: Role.FOLLOWER, 1: Role.CANDIDATE, 2: Role.LEADER}


class Engine:
    def __init__(
        self,
        self_id: MemberId,
        boot_count: int,
        *,
        log: LogImage,
        applied: Position,
        apply: Callable[[int, int, bytes], None],
        send: Send,
        on_snapshot_needed: Callable[[MemberId], None],
        options: ConsensusOptions,
        clock: Clock,
        rng: random.Random,
        events: EventLog,
    ) -> None:
        self._replica = Replica(self_id, boot_count, log, options, clock, rng, events, send)
        self._promises = Promises(self._replica)
        self._guard = Guard(self._replica, self._promises, self._snapshot_needed)
        self._report_snapshot_needed = on_snapshot_needed
        self._core = Core(
            self_id,
            log=log,
            outlet=self._guard,
            options=options,
            applied=applied,
            apply=apply,
            on_state_changed=self._on_state_changed,
        )
        self._election = Election(self._replica, self._core)
        self._reads = Reads(self._replica, self._core)
        self._flow = Flow(self._core, self._replica.now_ns)
        self._guard.attach(self._core, self._election, self._reads, self._flow)
        self.led_before = log.term if log.vote == self_id else log.term - 1
        """The last term that this node may have led before it started."""

        self._commit_began_ns: int | None = None
        self._heartbeat_due_ns = 0
        log.on_configuration = self._configure
        self._configure()

    # state -----------------------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        return self._core.is_leader

    @property
    def role(self) -> Role:
        if not self._replica.is_voter:
            return Role.LEARNER
        return Role.LEADER if self.is_leader else Role.CANDIDATE if self._core.is_candidate else Role.FOLLOWER

    @property
    def leader(self) -> MemberId | None:
        return self._core.leader

    def silence(self) -> NoLeader | None:
        """Why callers should not wait here for a leader; None: there is one, or soon will be."""
        silence_ns = self._election.silence_ns()
        if silence_ns is None:
            return None
        silence_s, limit_s = silence_ns / SECOND_NS, self._replica.options.leader_fallback_ns / SECOND_NS
        return NoLeader(
            f"this node has heard no leader for {silence_s:.1f} s (limit {limit_s:.1f} s) and lets nobody wait for "
            "one; try another node, or retry later"
        )

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def commit_index(self) -> int:
        return int(self._core.raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._core.raftLastApplied)

    @property
    def has_committed_in_term(self) -> bool:
        """This leader's NO_OP is committed: its commit index is the cluster's."""
        return self.is_leader and self.applied_index >= self._core.noop_index > 0

    def match_index(self, member: MemberId) -> int:
        return self._core.match_index(member)

    def is_connected(self, member: MemberId) -> bool:
        return member in self._replica.connected

    @property
    def connected(self) -> frozenset[MemberId]:
        return frozenset(self._replica.connected)

    @property
    def connected_members(self) -> frozenset[MemberId]:
        """Without those who are linked, and members only elsewhere."""
        return self._replica.members & self._replica.connected

    @property
    def dropped_count(self) -> dict[str, int]:
        return self._replica.dropped_count

    def snapshot_targets(self) -> set[MemberId]:
        return self._guard.snapshot_targets

    def next_wake_ns(self) -> int:
        """When `tick` or `release_news` has something to do although nothing arrives.

        Called after a tick: what was due then and did not happen (a stalled disk) is tried a heartbeat later.
        """
        now, options = self._replica.now_ns(), self._replica.options
        if not self.is_leader:
            deadline = self._election.deadline_ns
            return deadline if deadline > now else now + options.heartbeat_ns
        due_in_ns = int(self._core.heartbeat_due_in_s() * SECOND_NS) + MILLISECOND_NS
        due = now + min(max(due_in_ns, MILLISECOND_NS), options.heartbeat_ns)
        news_due_ns = self._guard.news.due_ns()
        return due if news_due_ns is None else min(due, news_due_ns)

    # what happens ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass. AppendEntries without entries are held until `release_news`."""
        self._step_down_if_stalled()
        if not self._is_disk_stalled(self._replica.options.election_timeout_min_ns):
            self._election.tick()
        committed = self.commit_index
        if not self._core.is_idle:
            self._core.doTick(0.0)
            self._core.call_off_election()
        if self.commit_index > committed:
            self._replica.record("committed", self.commit_index)
        self._promises.release()
        self._reads.tick()
        self._heartbeat_paused()

    def release_news(self, *, is_urgent: bool) -> None:
        """Tell the followers of a new commit index, unless entries will soon carry it."""
        self._guard.news.release(is_urgent=is_urgent)

    def want_news(self, *, is_wanted: bool) -> None:
        """Follower: whether the leader should tell of each commit at once. It learns so by the next answer."""
        self._guard.news.is_wanted_here = is_wanted

    def is_plausible(self, member: MemberId, frame: peer_pb2.Frame) -> bool:
        """False, counted and told in the events, for what no node of ours would say."""
        reason = implausible(frame, self._replica.log.term)
        is_of_term = frame.term == self._replica.log.term
        if frame.HasField("snapshot_chunk") and is_of_term and self._core.leader not in (None, member):
            reason = "second_leader"
        if reason:
            self._replica.drop(reason, member)
        return not reason

    def receive(self, member: MemberId, frame: peer_pb2.Frame) -> bool:
        """True if a tick has something to do now."""
        self._guard.has_news = False
        self._guard.receive(member, frame)
        return self._guard.has_news

    def peer_up(self, member: MemberId) -> None:
        self._replica.connected.add(member)
        self._core.connect(member)
        self._replica.record("connected", self._replica.log.last_index, member)

    def peer_down(self, member: MemberId) -> None:
        """The connection broke: whatever was on it is lost."""
        self._replica.connected.discard(member)
        self._core.disconnect(member)
        self._guard.on_disconnected(member)
        self._replica.record("disconnected", self._replica.log.last_index, member)
        if self._core.leader == member:
            self._election.lost_leader()

    def commit_began(self) -> None:
        self._commit_began_ns = self._replica.now_ns()

    def commit_finished(self, sequence: int) -> bool:
        """True if a tick has something to do now."""
        self._commit_began_ns = None
        self._replica.log.made_durable(sequence)
        self._guard.on_durable()
        return not self._core.is_idle and not self._guard.waits_for_acks

    def propose(self, command: bytes) -> Position:
        """Leader only: append an entry (its first byte is the type) and send it to the followers."""
        assert self.is_leader
        assert len(command) <= ENTRY_BYTES_MAX
        return self._core.append(command)

    def propose_configuration(self, configuration: Configuration) -> Position:
        """Leader only: it is in effect at once (H13: one at a time, and only behind an entry of this term)."""
        assert self.has_committed_in_term
        assert not self.is_configuration_pending
        return self.propose(encode_configuration(configuration))

    @property
    def is_configuration_pending(self) -> bool:
        """The configuration in effect is not committed, or not applied here yet."""
        return self._replica.log.configuration.index > self.applied_index

    def read_index(self, done: ReadDone) -> None:
        self._reads.ask(done)

    def begin_reads(self) -> None:
        """The reads that were asked since the tick share a round that begins now."""
        self._reads.begin_due()

    def leader_denied(self, member: MemberId, term: int) -> None:
        """The one this node follows says that it does not lead: nothing is sent there until it is heard again."""
        if self._core.leader == member and term >= self.term and not self.is_leader:
            self._core.forget_leader()

    def confirmed_ns(self) -> int | None:
        """When a majority last confirmed that the leader leads: as this leader knows, or as it told us."""
        return self._reads.confirmed_ns if self.is_leader else self._guard.leader_confirmed_ns

    def heirs(self) -> list[MemberId]:
        """Leader: the other voters that are connected; who has most of the log comes first."""
        connected = [member for member in self._replica.others if member in self._replica.connected]
        return sorted(connected, key=lambda member: (self._core.match_index(member), member), reverse=True)

    def transfer(self, heir: MemberId) -> None:
        """Ask one of the heirs to take over now (H22: the caller stops proposing and waits for the new leader).

        Raises ConditionFailed while it has not everything.
        """
        if self._core.match_index(heir) != self._replica.log.last_index:
            raise ConditionFailed("the follower has not acknowledged the whole log yet; try again")
        self._core.transferLeadership(node=node_of(heir))

    # snapshots -------------------------------------------------------------------------------------------

    def begin_snapshot_for(self, member: MemberId) -> None:
        self._guard.snapshot_targets.add(member)

    def end_snapshot_for(self, member: MemberId, installed: Position | None) -> None:
        """The transfer ended; installed is what the follower now holds (H8: nothing else moves its nextIndex)."""
        self._guard.snapshot_targets.discard(member)
        self._flow.forget(member, is_connected=member in self._replica.connected)
        if installed is not None and self.is_leader:
            self._core.receive(
                member,
                {
                    "type": "next_node_idx",
                    "reset": True,
                    "success": False,
                    "next_node_idx": installed.index + 1,
                },
            )

    def install(self, position: Position, configuration: Configuration) -> None:
        """The store holds the snapshot at position, with this configuration: continue from there.

        H7: a log that holds the snapshot's last entry keeps what follows it.
        """
        if not self._replica.log.holds(position):
            self._replica.log.reset(position, configuration)
        self._core.installed(position)
        self._core.call_off_election()
        self._replica.record("installed", position.index)

    def _snapshot_needed(self, member: MemberId) -> None:
        if member not in self._guard.snapshot_targets:
            self._report_snapshot_needed(member)

    # helpers ---------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        """Another configuration is in effect: it was appended, truncated, or came with a snapshot."""
        configuration = self._replica.log.configuration
        for member in self._replica.adopt(configuration):
            self._guard.forget_member(member)
        self._core.set_members(self._replica.others, self._replica.learners)
        self._flow.set_members(self._replica.others + self._replica.learners)
        self._replica.record(
            "configured",
            configuration.index,
            version=configuration.version,
            voters=len(configuration.voters),
            learners=len(configuration.learners),
        )

    def _is_disk_stalled(self, bound_ns: int) -> bool:
        began = self._commit_began_ns
        return began is not None and self._replica.now_ns() - began > bound_ns

    def _step_down_if_stalled(self) -> None:
        """A leader that cannot write makes everybody wait: somebody else shall lead."""
        if not self.is_leader or self._replica.is_alone:
            return
        if self._is_disk_stalled(self._replica.options.leader_fallback_ns):
            self._replica.record("stepped_down", self._replica.log.last_index, reason="disk_stalled")
            self._core.step_down()
            self._election.postpone()

    def _heartbeat_paused(self) -> None:
        """PySyncObj skips followers at their bound: they still need to hear their leader."""
        now = self._replica.now_ns()
        if self.is_leader and now >= self._heartbeat_due_ns:
            self._heartbeat_due_ns = now + self._replica.options.heartbeat_ns
            if self._flow.paused() or self._guard.snapshot_targets:
                self._reads.send_heartbeats()
            self._flow.retry(self._replica.connected)

    def _on_state_changed(self, old: int, new: int) -> None:
        # PySyncObj tells of a candidate just before it raises the term; the paper (section 5.2) begins with that.
        term = self._replica.log.term + (_ROLES[new] is Role.CANDIDATE)
        self._replica.events.record(f"became_{_ROLES[new].value}", term, self._replica.log.last_index)
        self._flow.reset(self._replica.connected)
        self._guard.news.clear()
        if _ROLES[old] is Role.LEADER:
            self._election.in_contact()
        if new != 1:
            self._election.postpone()
