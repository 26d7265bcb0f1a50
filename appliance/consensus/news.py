"""AppendEntries without entries (a new commit index): they wait a moment for entries to go with.

Invariant: at most one waits for each follower, the latest; entries take its place, and none waits longer than
`news_hold_ns`. A follower where somebody watches says so with its acks, and is told at once. Loop thread only.
"""

from __future__ import annotations

from appliance.consensus.replica import Replica
from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2


class News:
    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._held: dict[MemberId, peer_pb2.Frame] = {}
        self._held_since_ns = 0
        self._wanted_by: set[MemberId] = set()
        self.is_wanted_here = False
        """Follower: somebody watches."""

    def due_ns(self) -> int | None:
        """When `release` sends what is held, although nobody is in a hurry."""
        return self._held_since_ns + self._replica.options.news_hold_ns if self._held else None

    def hold(self, member: MemberId, frame: peer_pb2.Frame) -> None:
        if not self._held:
            self._held_since_ns = self._replica.now_ns()
        self._held[member] = frame

    def release(self, *, is_urgent: bool) -> None:
        """Send what is due, or urgent for all or for the follower."""
        due_ns = self.due_ns()
        if due_ns is None:
            return
        is_urgent = is_urgent or self._replica.now_ns() >= due_ns
        for member in list(self._held):
            if is_urgent or member in self._wanted_by:
                self._replica.send(member, self._held.pop(member))

    def overtaken(self, member: MemberId) -> None:
        """Entries go to the member."""
        self._held.pop(member, None)

    def heard(self, member: MemberId, *, is_wanted: bool) -> None:
        """The follower's ack says whether somebody watches there."""
        if is_wanted:
            self._wanted_by.add(member)
        else:
            self._wanted_by.discard(member)

    def forget(self, member: MemberId) -> None:
        """It is no member any more, or its connection broke."""
        self._held.pop(member, None)
        self._wanted_by.discard(member)

    def clear(self) -> None:
        """Another role: what was to be told was told by a leader that is none any more."""
        self._held.clear()
