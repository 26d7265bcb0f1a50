"""What this node remembers of its peers, to notice one that comes back with less than it had (amnesia).

Invariant: a peer whose hello claims a lower boot count or a lower high index than it ever showed is refused, as
is a second live holder of one identity. The memory rides with journal commits: it may be a little old, then it
forgives, it never accuses wrongly. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from appliance.model import ClusterId, MemberId, PeerMemory, hex_id
from raftberry.internal.v1 import peer_pb2

PROTOCOL = 1

_Reason = peer_pb2.Refusal.Reason

_STRANGERS = frozenset({_Reason.REASON_NOT_A_MEMBER, _Reason.REASON_REMOVED, _Reason.REASON_OTHER_CLUSTER})
"""Whoever dials in and is none of ours is no alarm of a member's."""


class Acquaintances:
    def __init__(
        self,
        cluster_id: ClusterId,
        self_id: MemberId,
        introduce: Callable[[peer_pb2.Frame], peer_pb2.Refusal | None],
        memory: Mapping[MemberId, PeerMemory],
    ) -> None:
        """introduce: whether a peer of this cluster is welcome as a member (contacts.py)."""
        self._cluster_id, self._self_id, self._introduce = cluster_id, self_id, introduce
        self._memory = dict(memory)
        self._nonces: dict[MemberId, tuple[int, int]] = {}
        self.refused: dict[MemberId, str] = {}
        """Why a peer is refused, for the status."""

        self.has_news = False

    def memory(self) -> dict[MemberId, PeerMemory]:
        self.has_news = False
        return self._memory

    def memory_of(self, member: MemberId) -> PeerMemory:
        """How far the peer has been seen to come."""
        return self._memory.get(member, PeerMemory())

    def saw(self, frame: peer_pb2.Frame) -> None:
        """A frame of an accepted peer: remember how far it has come."""
        member = MemberId(frame.from_member)
        known = self._memory.get(member)
        if known is None or frame.high_index > known.high_index or frame.boot_count > known.boot_count:
            boot = max(frame.boot_count, known.boot_count if known else 0)
            high = max(frame.high_index, known.high_index if known else 0)
            self._memory[member] = PeerMemory(boot, high)
            self.has_news = True

    def keep(self, members: Collection[MemberId]) -> None:
        """Forget all others: they were removed, and their ids never come back."""
        gone = [member for member in (*self._memory, *self.refused) if member not in members]
        for member in gone:
            self._memory.pop(member, None)
            self.refused.pop(member, None)
            self._nonces.pop(member, None)
            self.has_news = True

    def check_hello(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        """The verdict on a peer that dials in; None: welcome."""
        refusal = self._judge(frame)
        member = MemberId(frame.from_member)
        if refusal is None:
            self.refused.pop(member, None)
            self._nonces[member] = (frame.boot_count, frame.hello.boot_nonce)
            self.saw(frame)
        elif refusal.reason not in _STRANGERS:
            self.refused[member] = refusal.message
        return refusal

    def _judge(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        hello = frame.hello
        if hello.protocol != PROTOCOL:
            text = (
                f"{hello.name} speaks peer protocol {hello.protocol}, this node {PROTOCOL}: upgrade the older"
            )
            return peer_pb2.Refusal(reason=_Reason.REASON_VERSION, message=text)
        if hello.cluster_id != self._cluster_id or hello.to_member != self._self_id:
            text = (
                f"{hello.name} is of cluster {hex_id(hello.cluster_id)} and looks for member "
                f"{hex_id(hello.to_member)}; "
                f"this is member {hex_id(self._self_id)} of cluster {hex_id(self._cluster_id)}"
            )
            return peer_pb2.Refusal(reason=_Reason.REASON_OTHER_CLUSTER, message=text)
        return self._introduce(frame) or self._judge_memory(frame)

    def _judge_memory(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        hello, member = frame.hello, MemberId(frame.from_member)
        if self._nonces.get(member) == (frame.boot_count, hello.boot_nonce):
            return (
                None  # the same process: this hello may only have been overtaken by a frame on another stream
            )
        known = self.memory_of(member)
        if frame.boot_count < known.boot_count or frame.high_index < known.high_index:
            text = (
                f"{hello.name} acknowledged up to index {known.high_index} in boot {known.boot_count} and comes back "
                f"with index {frame.high_index} in boot {frame.boot_count}: its data directory is older than what it "
                "promised (restored image, cloned card, or a card that lost flushed data). It must not vote; "
                "rebuild it from its peers as a new member"
            )
            return peer_pb2.Refusal(reason=_Reason.REASON_AMNESIA, message=text)
        boot, nonce = self._nonces.get(member, (0, 0))
        if boot == frame.boot_count and nonce != hello.boot_nonce:
            text = (
                f"a second process says that it is {hello.name} ({hex_id(member)}) in boot {boot}: a copy of the data "
                "directory runs as well, or the card lost a boot that it had said was stored. Of two that run stop one "
                "for good; it must not vote"
            )
            return peer_pb2.Refusal(reason=_Reason.REASON_TWO_HOLDERS, message=text)
        return None
