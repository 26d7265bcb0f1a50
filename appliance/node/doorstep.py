"""What nodes say when they meet: the Hello of this one, the verdict on a peer's, and a peer's verdict on ours.

Invariant: a node in doubt, or one that was removed, meets nobody. Loop thread only.
"""

from __future__ import annotations

from typing import Protocol

from appliance.model import MemberId, hex_id
from appliance.node.acquaintance import PROTOCOL, Acquaintances
from appliance.node.contacts import Contacts
from appliance.node.identity import Self
from appliance.node.levels import Levels
from appliance.node.superseding import Superseding
from raftberry.internal.v1 import peer_pb2

_Reason = peer_pb2.Refusal.Reason


class Meeting(Protocol):
    """The node, as far as the door looks at it."""

    me: Self
    quarantine_reason: str
    acquaintances: Acquaintances
    contacts: Contacts
    levels: Levels
    superseding: Superseding

    def new_frame(self) -> peer_pb2.Frame: ...

    def quarantine(self, reason: str) -> None: ...

    def remove(self, reason: str) -> None: ...


class Doorstep:
    def __init__(self, node: Meeting) -> None:
        self._node = node

    def hello(self, to_member: MemberId) -> peer_pb2.Frame:
        node = self._node
        frame = node.new_frame()
        hello = frame.hello
        hello.protocol, hello.cluster_id = PROTOCOL, node.me.cluster_id
        hello.name, hello.to_member = node.me.name, to_member
        hello.boot_nonce, hello.version = node.me.boot_nonce, node.me.version
        hello.quarantined = bool(node.quarantine_reason)
        node.contacts.describe(hello)
        node.levels.describe(hello)
        return frame

    def check_hello(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        if refusal := self._node.superseding.judge(frame):
            return refusal
        if self._node.quarantine_reason or frame.hello.quarantined:
            return peer_pb2.Refusal(
                reason=_Reason.REASON_QUARANTINED, message="one of the two nodes is quarantined"
            )
        return self._node.levels.judge(frame) or self._node.acquaintances.check_hello(frame)

    def on_refused(self, refusal: peer_pb2.Refusal) -> None:
        """A peer says that this node must not take part.

        One that does not know this node at all may be a stranger at a peer's address: no link is enough.
        """
        node = self._node
        if refusal.reason in (_Reason.REASON_AMNESIA, _Reason.REASON_TWO_HOLDERS):
            node.quarantine(refusal.message)
        if refusal.reason == _Reason.REASON_REMOVED and node.contacts.is_removal_news(refusal):
            node.remove(removal_of(node.me, refusal.configuration_version))
        if refusal.reason == _Reason.REASON_SUPERSEDED:
            node.superseding.heard(refusal)


def removal_of(me: Self, version: int) -> str:
    """For the status, the log and the next start."""
    return (
        f"{me.name} ({hex_id(me.member_id)}) was removed from its cluster (configuration {version}): it takes no part "
        "any more, and its data is kept"
    )
