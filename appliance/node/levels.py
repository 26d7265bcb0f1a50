"""Which feature level the cluster may have: what its members' software says, and the leader that raises it.

Invariant: the level rises only when every member of the configuration in effect has said in this life of its connection
that it knows the new one. A node that does not know the cluster's level is met by nobody: it could not read what
follows. See features.py. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from appliance import features
from appliance.clock import Clock
from appliance.consensus import Engine
from appliance.errors import ConditionFailed
from appliance.model import Member, MemberId
from appliance.node.identity import Self
from appliance.node.writing import WritePath
from appliance.state import StateMachine
from appliance.state.operations import raise_feature_level
from raftberry.internal.v1 import command_pb2, peer_pb2

PERIOD_NS: Final = 100_000_000
"""Between two looks whether all have learned more: a new cluster begins with the first level."""


class Levelled(Protocol):
    """The node, as far as its level goes."""

    me: Self
    engine: Engine
    writes: WritePath
    state: StateMachine
    clock: Clock

    @property
    def members(self) -> Mapping[MemberId, Member]: ...


class Levels:
    def __init__(self, node: Levelled, own: int) -> None:
        """own: the highest level that this software knows."""
        self._node, self._own = node, own
        self._heard: dict[MemberId, int] = {}
        self._due_ns = 0
        self._proposed = (0, 0)

    def describe(self, hello: peer_pb2.Hello) -> None:
        hello.feature_level = self._own

    def judge(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        """The verdict on a peer that dials in; None: welcome."""
        known = max(frame.hello.feature_level, features.FIRST)
        needed = self._node.state.feature_level
        if known < needed:
            text = (
                f"{frame.hello.name} runs version {frame.hello.version}, which knows feature level {known}; the "
                f"cluster has {needed}: nothing is lost; install the version that the other nodes run"
            )
            return peer_pb2.Refusal(reason=peer_pb2.Refusal.Reason.REASON_VERSION, message=text)
        self._heard[MemberId(frame.from_member)] = known
        return None

    def check(self, operation: command_pb2.Operation) -> None:
        """Raises ConditionFailed for what some member of the cluster would not understand."""
        kind = operation.WhichOneof("kind") or ""
        needed = features.REQUIRED.get(kind, features.FIRST)
        level = self._node.state.feature_level
        if needed > level:
            raise ConditionFailed(
                f"{kind} needs feature level {needed}, the cluster has {level}: nothing was changed; upgrade every "
                "node, the level then rises by itself"
            )

    def cycle(self, now_ns: int) -> None:
        """The leader raises the level when all have learned more."""
        node = self._node
        if now_ns < self._due_ns or not node.engine.has_committed_in_term:
            return
        self._due_ns = now_ns + PERIOD_NS
        common = self._common()
        proposed = (node.engine.term, common)
        if common > node.state.feature_level and self._proposed != proposed:
            self._proposed = proposed
            node.writes.propose_own([raise_feature_level(common)])

    def _common(self) -> int:
        """The highest level that all members know; FIRST as long as one of them has not spoken."""
        node = self._node
        others = [member for member in node.members if member != node.me.member_id]
        if not all(node.engine.is_connected(member) for member in others):
            return features.FIRST
        return min([self._own, *(self._heard.get(member, features.FIRST) for member in others)])
