"""What a peer link tells the node, and asks of it.

Invariant: between on_up and on_down of a peer, and only then, on_frame is called for it, in the order
sent on each lane. Every call comes on the loop and returns at once. An exception from one of them is a
bug: it goes to the loop's exception handler.
"""

from __future__ import annotations

from typing import Protocol

from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2


class LinkEvents(Protocol):
    """Implemented by the node."""

    def hello(self, to_member: MemberId) -> peer_pb2.Frame:
        """A fresh Hello frame for that peer."""
        ...

    def check_hello(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        """The verdict on a peer that dialled us, once for each of its lanes; None: welcome."""
        ...

    def on_frame(self, member_id: MemberId, frame: peer_pb2.Frame) -> None: ...

    def on_up(self, member_id: MemberId) -> None:
        """Our live stream to the peer and its live stream to us are both accepted."""
        ...

    def on_down(self, member_id: MemberId, reason: str) -> None:
        """One of the two broke."""
        ...

    def on_refused(self, member_id: MemberId, refusal: peer_pb2.Refusal) -> None:
        """The peer refused our hello; called at each attempt it refuses."""
        ...
