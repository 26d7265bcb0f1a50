"""Do all nodes hold the same? Each hashes its state at the same entry of the log and tells the others.

Invariant: a node steps aside only when a majority of the voters, not counting itself, agrees on another hash for an
entry that it hashed too: that majority remains, and goes on without it. Where no majority agrees nobody steps aside;
the difference is an alarm for a person. One hash is computed at a time; what is asked meanwhile is not answered here.
A replayed entry is hashed like any other: who hears the answer late compares it all the same. Loop thread only.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from appliance.model import Member, MemberId, hex_id
from appliance.node.identity import Self
from appliance.node.workers import Workers
from appliance.state import Applied, PreparedHash, StateMachine
from appliance.storage.store import Store
from raftberry.internal.v1 import peer_pb2

HASH_BYTES: Final = 32

ROUNDS_KEPT: Final = 16
"""Entries whose hashes are remembered: a slow node answers many seconds later."""


@dataclass(slots=True)
class Round:
    """The hashes of one entry, by member."""

    hashes: dict[MemberId, bytes] = field(default_factory=dict)

    def agreed(self, voters: Iterable[MemberId]) -> bytes | None:
        """The hash that a majority of the voters has; None: none yet."""
        counted = list(voters)
        found = Counter(self.hashes[member] for member in counted if member in self.hashes)
        return next((digest for digest, count in found.items() if count > len(counted) // 2), None)

    @property
    def is_equal(self) -> bool:
        return len(set(self.hashes.values())) <= 1


class Verified(Protocol):
    """The node, as far as its state is compared."""

    me: Self
    workers: Workers
    store: Store
    state: StateMachine
    applied_listeners: list[Callable[[Applied], None]]

    @property
    def members(self) -> Mapping[MemberId, Member]: ...

    def send_frame(self, member: MemberId, fill: Callable[[peer_pb2.Frame], None]) -> bool: ...

    def quarantine(self, reason: str) -> None: ...

    def request_wake(self) -> None: ...


class Verification:
    def __init__(self, node: Verified) -> None:
        self._node, self._self_id = node, node.me.member_id
        node.applied_listeners.append(self._on_applied)
        self._rounds: OrderedDict[int, Round] = OrderedDict()
        self._is_busy = False
        self._preparing: tuple[int, PreparedHash] | None = None
        self.alarm = ""
        """That nodes differ, as long as the last round says so; empty: they don't, or nobody asked."""

        self.listeners: list[Callable[[int], None]] = []
        """Called with the index of a round that has another hash."""

    def round(self, index: int) -> Round:
        return self._rounds.get(index, Round())

    def cycle(self) -> None:
        """The state is captured a slice a turn, then hashed in the pool."""
        if self._preparing is None:
            return
        index, prepared = self._preparing
        if prepared.capture_some():
            self._preparing = None
            self._node.workers.read(prepared.run, lambda digest: self._hashed(index, digest))
        else:
            self._node.request_wake()

    def _on_applied(self, applied: Applied) -> None:
        if applied.command is None or self._is_busy:
            return
        if any(operation.HasField("verify_state") for operation in applied.command.operations):
            self._is_busy = True
            self._preparing = applied.index, self._node.state.begin_hash(self._node.store.snapshot())
            self._node.request_wake()

    def on_hash(self, member: MemberId, message: peer_pb2.StateHash) -> None:
        if member in self._node.members and len(message.hash) == HASH_BYTES:
            self._note(message.index, member, message.hash)

    def _hashed(self, index: int, digest: bytes) -> None:
        self._is_busy = False
        answer = peer_pb2.StateHash(index=index, hash=digest)
        for member in sorted(self._node.members):
            if member != self._self_id:
                self._node.send_frame(member, lambda frame: frame.state_hash.CopyFrom(answer))
        self._note(index, self._self_id, digest)

    def _note(self, index: int, member: MemberId, digest: bytes) -> None:
        found = self._rounds.setdefault(index, Round())
        found.hashes[member] = digest
        while len(self._rounds) > ROUNDS_KEPT:
            self._rounds.popitem(last=False)
        self._judge(index, found)
        for listener in list(self.listeners):
            listener(index)

    def _judge(self, index: int, found: Round) -> None:
        if index == max(self._rounds):
            self.alarm = "" if found.is_equal else self._describe(index, found)
        own = found.hashes.get(self._self_id)
        members = self._node.members
        agreed = found.agreed(member.member_id for member in members.values() if member.is_voter)
        if own is None or agreed is None or own == agreed:
            return
        others = sorted(self._name(member) for member, digest in found.hashes.items() if digest == agreed)
        self._node.quarantine(
            f"the state of this node at index {index} differs from that of {', '.join(others)}, which are a majority: "
            "it does not vote or serve any more; it must be rebuilt from its peers as a new member"
        )

    def _describe(self, index: int, found: Round) -> str:
        by_hash: dict[bytes, list[str]] = {}
        for member, digest in sorted(found.hashes.items()):
            by_hash.setdefault(digest, []).append(self._name(member))
        groups = " from ".join("(" + ", ".join(names) + ")" for names in by_hash.values())
        return f"nodes hold different states at index {index}: {groups} differ; see `raftberry verify`"

    def _name(self, member: MemberId) -> str:
        known = self._node.members.get(member)
        return hex_id(member) if known is None else known.name
