"""What the core does for a transfer of leadership (thesis, 3.10; H22); transfer.py sees it through.

Invariant: while it is under way nothing new is proposed or forwarded. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from appliance.clock import Clock
from appliance.consensus import ConsensusOptions, Engine
from appliance.errors import ConditionFailed, NoLeader, NotApplied
from appliance.model import Member, MemberId
from appliance.node.identity import Self
from appliance.node.writing import WritePath
from raftberry.internal.v1 import peer_pb2


class Led(Protocol):
    """The node, as far as a transfer looks at it."""

    me: Self
    engine: Engine
    writes: WritePath
    consensus_options: ConsensusOptions
    clock: Clock
    heard_ns: dict[MemberId, int]

    @property
    def members(self) -> Mapping[MemberId, Member]: ...

    def send_frame(self, member: MemberId, fill: Callable[[peer_pb2.Frame], None]) -> bool: ...

    def request_wake(self) -> None: ...


class Handover:
    def __init__(self, node: Led) -> None:
        self._node = node
        self._asked = (0, MemberId(0))
        """Term, and the heir of the last attempt."""

    def begin(self, target: str) -> MemberId:
        """Ask a follower to take over; proposals wait from now on: until a new leader is seen, or a bound ends it.

        Raises ConditionFailed while anything is in flight: call again. After the bound that is another attempt, with
        another heir where there is one and none was named.
        """
        engine = self._node.engine
        if not engine.is_leader:
            raise NoLeader("this node does not lead; ask the leader to hand over")
        member = next((m for m in self._node.members.values() if m.name == target), None)
        if target and member is None:
            raise ConditionFailed(f"{target} is no member of this cluster")
        if member is not None and not member.is_voter:
            raise ConditionFailed(f"{target} is a learner and can't lead")
        if member is not None and not engine.is_connected(member.member_id):
            raise ConditionFailed(f"{target} is not connected to the leader and can't take over")
        heir = self._heir(None if member is None else member.member_id)
        if not self._node.writes.is_held:
            self._asked = (engine.term, heir)
            self._node.writes.hold(self._node.consensus_options.election_timeout_min_ns)
        engine.transfer(heir)
        return heir

    def _heir(self, named: MemberId | None) -> MemberId:
        heirs = [heir for heir in self._node.engine.heirs() if self._answers(heir)]
        if named is not None:
            if named not in heirs:
                raise ConditionFailed("the node does not answer the leader, and can't take over")
            return named
        if not heirs:
            raise ConditionFailed("no follower answers that could take over; the leader stays")
        term, asked = self._asked
        if term != self._node.engine.term or asked not in heirs:
            return heirs[0]
        if self._node.writes.is_held:
            return asked
        return next((heir for heir in heirs if heir != asked), asked)

    def _answers(self, member: MemberId) -> bool:
        """A node that is stopped, or whose power failed, keeps its connection for a while."""
        heard_ns = self._node.heard_ns.get(member)
        within_ns = self._node.consensus_options.election_timeout_min_ns
        return heard_ns is not None and self._node.clock.monotonic_ns() - heard_ns < within_ns

    def is_unknown(self, target: str) -> bool:
        """A target that is named and is no other member that may lead."""
        names = (
            member.name
            for member in self._node.members.values()
            if member.is_voter and member.member_id != self._node.me.member_id
        )
        return bool(target) and target not in names

    def ask(self, leader: MemberId, target: str) -> None:
        """Tell the leader that somebody asked this node to have leadership handed over."""

        def fill(frame: peer_pb2.Frame) -> None:
            frame.transfer_request.target = target

        self._node.send_frame(leader, fill)

    def on_request(self, target: str) -> None:
        """Another node's caller wants it; the asker repeats until a new leader is seen."""
        with suppress(NotApplied):
            self.begin(target)

    def end(self) -> None:
        self._node.writes.hold(0)
        self._node.request_wake()
