"""The one file that touches PySyncObj's private names, each with the number of the hazard that asks for it.

Invariant: PySyncObj never starts an election, a snapshot, a fork, a thread or a socket by itself; it sends only
through the transport that is handed in. Written against 0.3.17; a contract test refuses any other version.
"""

from __future__ import annotations

from _socket import inet_ntop
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Protocol

import pysyncobj.syncobj as syncobj
import pysyncobj.win_inet_pton as win_inet_pton
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node as PeerNode
from pysyncobj.serializer import SERIALIZER_STATE
from pysyncobj.transport import Transport

from appliance.consensus.log import LogImage, capped
from appliance.consensus.options import ConsensusOptions
from appliance.limits import APPLY_BYTES_MAX, ENTRY_BYTES_MAX
from appliance.model import Entry, MemberId, Position, hex_id
from appliance.state.entry import command_bytes

# H31: importing the library's transport puts a function of Windows in the place of socket.inet_ntop, on every system.
win_inet_pton.socket.inet_ntop = inet_ntop

SECOND_NS = 1_000_000_000
_NEVER = float("inf")
_FOLLOWER, _CANDIDATE, _LEADER = 0, 1, 2

Message = dict[str, Any]


class Outlet(Protocol):
    """Where PySyncObj's messages and requests for snapshots go: the guard."""

    def on_library_message(self, member: MemberId, message: Message) -> None: ...

    def on_snapshot_needed(self, member: MemberId) -> None: ...


class _Transport(Transport):  # type: ignore[misc]
    """PySyncObj's transport: hands every message to the guard (H14: TCPTransport is never constructed)."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(None, None, None)
        self._outlet = outlet

    def send(self, node: PeerNode, message: Message) -> bool:
        self._outlet.on_library_message(member_of(node), message)
        return True

    def destroy(self) -> None:
        """Nothing is held."""


class _NoSerializer:
    """PySyncObj's snapshots are off (H8, H15, H19); a follower behind the log is reported instead."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.skip_entries: Callable[[PeerNode], None] | None = None

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def getTransmissionData(self, node: PeerNode) -> None:
        assert self.skip_entries is not None
        self.skip_entries(node)
        self._outlet.on_snapshot_needed(member_of(node))

    def cancelTransmisstion(self, node: PeerNode) -> None:
        """No transmission is ever under way here."""


class _NoPoller:
    def subscribe(self, *_: object) -> None:
        """PySyncObj's pipe is not used: ticks follow arrivals."""

    def poll(self, _timeout: float) -> None:
        """No socket belongs to PySyncObj."""


class _MemberNode(PeerNode):  # type: ignore[misc]
    """PySyncObj keeps nodes in sets: by number, they come in the same order in every process, by text they don't."""

    def __init__(self, member: MemberId) -> None:
        super().__init__(hex_id(member), member=member)

    def __hash__(self) -> int:
        return int(self.member)


def member_of(node: PeerNode) -> MemberId:
    member: MemberId = node.member
    return member


@lru_cache(maxsize=64)
def node_of(member: MemberId) -> PeerNode:
    """The same object each time: PySyncObj's sets and tables find it without comparing."""
    return _MemberNode(member)


class Core(SyncObj):  # type: ignore[misc]
    """PySyncObj with its seams in our hands."""

    _SyncObj__otherNodes: set[PeerNode]
    _SyncObj__readonlyNodes: set[PeerNode]

    def __init__(
        self,
        self_id: MemberId,
        *,
        log: LogImage,
        outlet: Outlet,
        options: ConsensusOptions,
        applied: Position,
        apply: Callable[[int, int, bytes], None],
        on_state_changed: Callable[[int, int], None],
    ) -> None:
        self._log, self._apply = log, apply
        self.is_leader = self._is_sending = self._is_applying = False
        self._applying: list[Entry] = []
        transport, serializer = _Transport(outlet), _NoSerializer(outlet)
        heartbeat = options.heartbeat_ns / SECOND_NS
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=False,
            appendEntriesBatchSizeBytes=ENTRY_BYTES_MAX + 1,  # H12: no entry is ever sent in parts
            appendEntriesPeriod=heartbeat,
            raftMinTimeout=options.election_timeout_min_ns / SECOND_NS,
            raftMaxTimeout=options.election_timeout_max_ns / SECOND_NS,
            connectionTimeout=options.election_timeout_max_ns / SECOND_NS,
            leaderFallbackTimeout=options.leader_fallback_ns / SECOND_NS,  # H17
            logCompactionMinEntries=1 << 62,
            logCompactionMinTime=1 << 62,
            useFork=False,  # H19
            pollerType="select",
            onStateChanged=on_state_changed,
        )
        with _rebound(
            createJournal=lambda _: log, Serializer=lambda *_: serializer, PIPE_NOTIFIER_ENABLED=False
        ):
            super().__init__(node_of(self_id), [], conf, transport=transport)
        self._poller = _NoPoller()
        self.transport = transport
        serializer.skip_entries = self._skip_entries
        # H21: nothing is loaded by PySyncObj; the state machine is restored before, and says how far it is.
        self._SyncObj__raftLastApplied = applied.index
        self._SyncObj__raftCommitIndex = max(log.getRaftCommitIndex(), applied.index)

    # seams that PySyncObj calls, by their mangled names --------------------------------------------------

    def _SyncObj__generateRaftTimeout(self) -> float:
        """H16: PySyncObj's own election timer never fires; `election` decides and calls `elect`."""
        return _NEVER

    def _SyncObj__setState(self, newState: int) -> None:
        self.is_leader = newState == _LEADER
        super()._SyncObj__setState(newState)

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        """H14: commands are ours, not pickles."""
        index = self.raftLastApplied + 1
        _, at, term = self._applying[index - self._applying[0][1]]
        assert at == index
        self._apply(index, term, command)

    def _SyncObj__getEntries(
        self, fromIDx: int | None, count: int | None = None, maxSizeBytes: int | None = None
    ) -> list[Entry]:
        """H1, one voter: an entry that is not durable is not there, so it can't be committed; learners are sent it.

        Nor is one while the configuration of one voter is not: before it another disk was needed.
        """
        is_counting = self.is_leader and not self._is_sending and not self._SyncObj__otherNodes
        needed = max(fromIDx or 0, self._log.configuration.index)
        if is_counting and fromIDx is not None and needed > self._log.durable_index:
            return []
        if self._is_applying and fromIDx is not None and count is not None:
            # By what they hold: a deflated one is more work than its bytes say.
            found = self._log.read(fromIDx, count, APPLY_BYTES_MAX)
            self._applying = capped(found, APPLY_BYTES_MAX, command_bytes)
            return self._applying
        entries: list[Entry] = super()._SyncObj__getEntries(fromIDx, count, maxSizeBytes)
        return entries

    def _SyncObj__applyLogEntries(self) -> bool:
        """What a tick applies is bounded: the others follow in the next, and the loop is free in between."""
        self._is_applying = True
        try:
            return bool(super()._SyncObj__applyLogEntries())
        finally:
            self._is_applying, self._applying = False, []

    def _SyncObj__sendAppendEntries(self) -> None:
        self._is_sending = True
        super()._SyncObj__sendAppendEntries()
        self._is_sending = False

    def _skip_entries(self, node: PeerNode) -> None:
        """H15: with nothing to send, the send loop would spin until its period has passed."""
        self._SyncObj__raftNextIndex[node] = self._log.last_index + 1

    # what the guard reads --------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """A tick would do nothing: only a leader's clock matters, nothing waits to be applied, nobody is elected."""
        return (
            not self.is_leader
            and self.raftLastApplied == self.raftCommitIndex
            and self._SyncObj__raftElectionDeadline == _NEVER
        )

    @property
    def is_candidate(self) -> bool:
        return bool(self._SyncObj__raftState == _CANDIDATE)

    @property
    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def leader(self) -> MemberId | None:
        node = self._SyncObj__raftLeader
        return None if node is None else member_of(node)

    @property
    def is_transfer_target(self) -> bool:
        """TimeoutNow arrived from the leader: the next tick stands for election without a pre-vote."""
        return bool(self._SyncObj__transferInProgress)

    @property
    def noop_index(self) -> int:
        """Index of the NO_OP of this leader's term."""
        return int(self._SyncObj__noopIDx or 0)

    def match_index(self, member: MemberId) -> int:
        return int(self._SyncObj__raftMatchIndex.get(node_of(member), 0))

    def next_index(self, member: MemberId) -> int:
        return int(self._SyncObj__raftNextIndex.get(node_of(member), 0))

    def heartbeat_due_in_s(self) -> float:
        """When this leader's next AppendEntries are due by the clock."""
        return float(self._SyncObj__newAppendEntriesTime) - float(syncobj.monotonicTime())

    # what the guard changes ------------------------------------------------------------------------------

    def set_members(self, others: Iterable[MemberId], learners: Iterable[MemberId]) -> None:
        """H13: PySyncObj's own membership is off. Its read-only nodes are true learners: sent to, never counted."""
        voting, reading = set(map(node_of, others)), set(map(node_of, learners))
        before = self._SyncObj__otherNodes | self._SyncObj__readonlyNodes
        for node in before - voting - reading:
            for table in (
                self._SyncObj__raftNextIndex,
                self._SyncObj__raftMatchIndex,
                self._SyncObj__lastResponseTime,
            ):
                table.pop(node, None)
        for node in (voting | reading) - before:
            self._SyncObj__raftNextIndex[node] = self._log.last_index + 1
            self._SyncObj__raftMatchIndex[node] = 0
            self._SyncObj__lastResponseTime[node] = syncobj.monotonicTime()
        self._SyncObj__otherNodes, self._SyncObj__readonlyNodes = voting, reading

    def receive(self, member: MemberId, message: Message) -> None:
        self.transport._onMessageReceived(node_of(member), message)

    def receive_again(self, member: MemberId, message: Message) -> None:
        """H17: an answer that is counted later does not mean that the follower was heard now."""
        table, node = self._SyncObj__lastResponseTime, node_of(member)
        heard = table.get(node)
        self.receive(member, message)
        if heard is not None:
            table[node] = heard

    def connect(self, member: MemberId) -> None:
        self.transport._onNodeConnected(node_of(member))

    def disconnect(self, member: MemberId) -> None:
        self.transport._onNodeDisconnected(node_of(member))

    def keep_next_index(self, member: MemberId, at_least: int) -> None:
        """H3: success never moves nextIndex back."""
        table, node = self._SyncObj__raftNextIndex, node_of(member)
        if node in table:
            table[node] = max(table[node], at_least)

    def set_next_index(self, member: MemberId, index: int) -> None:
        """H15: PySyncObj counts as sent what the lane did not take."""
        self._SyncObj__raftNextIndex[node_of(member)] = index

    def raise_commit(self, index: int) -> None:
        """H1, follower: the commit index follows the durable index when a commit of the journal finishes."""
        if index > self.raftCommitIndex:
            self._SyncObj__raftCommitIndex = index
            self._log.setRaftCommitIndex(index)

    def elect(self) -> None:
        """Let the next tick stand for election: pre-vote was won, or nobody else votes."""
        self._SyncObj__raftElectionDeadline = -_NEVER

    def call_off_election(self) -> None:
        """One that could not begin at its tick, as nobody was connected, does not wait for its chance."""
        self._SyncObj__raftElectionDeadline = _NEVER
        self._SyncObj__transferInProgress = False

    def heard(self, member: MemberId) -> None:
        """H1: a sign of life without a promise refreshes 'heard from' only."""
        self.receive(member, {"type": "next_node_idx", "reset": False, "success": False, "next_node_idx": 0})

    def step_down(self) -> None:
        """Stop leading within the term (a stalled disk, a broken majority)."""
        self._SyncObj__setState(_FOLLOWER)
        self._SyncObj__raftLeader = None

    def adopt_term(self, member: MemberId, term: int) -> None:
        """H16: follow a higher term without granting a vote: no log is as old as term -1."""
        self.receive(
            member, {"type": "request_vote", "term": term, "last_log_index": -1, "last_log_term": -1}
        )

    def forget_leader(self) -> None:
        self._SyncObj__raftLeader = None

    def installed(self, position: Position) -> None:
        """A snapshot stands in for all up to position (H6, H7: PySyncObj's own way is not used)."""
        self._SyncObj__raftLastApplied = position.index
        self.raise_commit(position.index)

    def append(self, command: bytes) -> Position:
        """Leader: append one entry and send it on; returns where it stands."""
        index = self._log.last_index + 1
        self._applyCommand(command, None)
        while self._log.last_index < index:
            self._checkCommandsToApply()  # its loop ends by the clock: a paused process needs a second turn
        return Position(index, self.term)


class _rebound:
    """Names of pysyncobj.syncobj that mean something else while a Core is constructed."""

    def __init__(self, **names: object) -> None:
        self._names = names
        self._kept: dict[str, object] = {}

    def __enter__(self) -> None:
        for name, value in self._names.items():
            self._kept[name] = getattr(syncobj, name)
            setattr(syncobj, name, value)

    def __exit__(self, *_: object) -> None:
        for name, value in self._kept.items():
            if name != "PIPE_NOTIFIER_ENABLED":  # read at each proposal: stays off
                setattr(syncobj, name, value)
