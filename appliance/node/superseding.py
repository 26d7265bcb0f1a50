"""A cluster that was made a new one of a single node (forcing.py), and the members that it was made without.

    the node that was made new    tells whoever dials it as a member of the old cluster
    an old member, told of it     stands by for good: the majority was given up, and must not come back by accident
    ... that has long had one     goes on, and raises an alarm: somebody recovered a node that was only cut off

Invariant: an old member decides once, durably, and never gives its data up. Which of two clusters is the right one, if
both have taken writes, no node can know.
Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from appliance.clock import Clock
from appliance.consensus import ConsensusOptions, Engine
from appliance.limits import OUTLIVED_AFTER_NS
from appliance.model import ClusterId, hex_id
from appliance.node.identity import Self
from raftberry.internal.v1 import peer_pb2

ALARM_KEPT_NS: Final = 30_000_000_000
"""The other cluster is dialled about once a second while it is in the configuration."""


class Supersedable(Protocol):
    """The node, as far as it can be superseded."""

    me: Self
    clock: Clock
    engine: Engine
    consensus_options: ConsensusOptions

    def remove(self, reason: str) -> None: ...


class Superseding:
    def __init__(self, node: Supersedable) -> None:
        self._node = node
        self._outlived = set(node.me.outlived)
        self._began_ns = node.clock.monotonic_ns()
        self._alarm, self._alarm_ns = "", 0
        self.on_outlived: Callable[[ClusterId], None] = lambda _: None
        """With the cluster that this one goes on in spite of, to be remembered."""

    def judge(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        """The verdict on whoever dials in: None if it is of no cluster that this node was of."""
        me, old = self._node.me, frame.hello.cluster_id
        if old not in me.superseded:
            return None
        text = (
            f"{me.name} was made the new cluster {hex_id(me.cluster_id)} by `raftberry recover --force-new-cluster`, "
            f"which superseded {hex_id(ClusterId(old))}"
        )
        return peer_pb2.Refusal(
            reason=peer_pb2.Refusal.REASON_SUPERSEDED,
            message=text,
            superseded_cluster_id=old,
            cluster_id=me.cluster_id,
        )

    def heard(self, refusal: peer_pb2.Refusal) -> None:
        """A member says that this node's cluster was superseded."""
        node, successor = self._node, ClusterId(refusal.cluster_id)
        if refusal.superseded_cluster_id != node.me.cluster_id or successor == node.me.cluster_id:
            return
        if successor not in self._outlived:
            if not self._has_long_worked():
                node.remove(_standing_by(node.me, successor))
                return
            self._outlived.add(successor)
            self.on_outlived(successor)
        self._alarm_ns = node.clock.monotonic_ns()
        self._alarm = (
            f"{refusal.message}, while a majority works here: this cluster goes on, and there are two now; end one of "
            "them: here by `raftberry members remove` for that node, or there by stopping it"
        )

    def alarm(self) -> str:
        """Empty: none of the members has become another cluster, as far as was heard lately."""
        is_fresh = self._node.clock.monotonic_ns() - self._alarm_ns < ALARM_KEPT_NS
        return self._alarm if is_fresh else ""

    def _has_long_worked(self) -> bool:
        node, now = self._node, self._node.clock.monotonic_ns()
        confirmed = node.engine.confirmed_ns()
        is_led = (
            confirmed is not None and now - confirmed <= 2 * node.consensus_options.election_timeout_max_ns
        )
        return is_led and now - self._began_ns >= OUTLIVED_AFTER_NS


def _standing_by(me: Self, successor: ClusterId) -> str:
    """For the status, the log and the next start."""
    return (
        f"{me.name} ({hex_id(me.member_id)}) stands by: its cluster {hex_id(me.cluster_id)} was superseded by "
        f"{hex_id(successor)} (`raftberry recover --force-new-cluster`). It takes no part, and its data is kept"
    )
