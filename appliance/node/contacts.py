"""Whom this node has links with, and where they are.

Invariant: links go to the members of the configuration in effect, of the committed one and of the newest committed one
that this node has heard of, without those that were removed. So a node that was away while others came and went finds
the present members, and is found by them, before its log says who they are; who counts is for consensus to say.
Where a peer is: where it says itself (hello), else where the configuration says. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from appliance.limits import MEMBERS_MAX
from appliance.model import Configuration, Member, MemberId, hex_id
from appliance.node.identity import Self
from appliance.state.configuration import from_member, to_member
from raftberry.internal.v1 import peer_pb2

_Reason = peer_pb2.Refusal.Reason


class Contacts:
    def __init__(self, me: Self, current: Configuration, applied: Configuration) -> None:
        self._me = me
        self._current, self._applied = current, applied
        self._heard = Configuration(me.members_version, me.members)
        self.claims: dict[MemberId, str] = {}
        """Where peers said that they are, when that was news."""

        self.on_peers_changed: Callable[[Sequence[Member]], None] = lambda _: None
        """With the members to have links with."""

        self.on_members_heard: Callable[[Sequence[Member], int], None] = lambda *_: None
        """With the newest committed members and their version: for the next start."""

        self.peers = self._find_peers()

    @property
    def members(self) -> Mapping[MemberId, Member]:
        """Those of the configuration in effect; of a node that joined and has none yet, those it was told of."""
        members = self._current.members or self._heard.members
        return {member.member_id: member for member in members}

    def name_of(self, member_id: MemberId) -> str:
        member = self.members.get(member_id) or self.peers.get(member_id)
        return hex_id(member_id) if member is None else member.name

    def update(self, current: Configuration, applied: Configuration) -> bool:
        """Call as soon as the configuration in effect or the committed one may be another. True: one is."""
        if current is self._current and applied is self._applied:
            return False
        is_news = applied.version > max(self._applied.version, self._heard.version)
        self._current, self._applied = current, applied
        if is_news:
            self.on_members_heard(applied.members, applied.version)
        self._refresh()
        return True

    def describe(self, hello: peer_pb2.Hello) -> None:
        """What this node knows of the cluster, for a peer that may know less."""
        newest = self._newest()
        hello.configuration_version = newest.version
        hello.members.extend(map(from_member, newest.members))
        hello.peer_address = self._me.peer_address

    def introduce(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        """The verdict on a peer of this cluster that dials in, after learning from what it says; None: welcome."""
        hello, member_id = frame.hello, MemberId(frame.from_member)
        if member_id in self._applied.removed:
            return peer_pb2.Refusal(
                reason=_Reason.REASON_REMOVED,
                configuration_version=self._applied.version,
                message=f"{hello.name} ({hex_id(member_id)}) was removed from the cluster",
            )
        if hello.configuration_version > self._newest().version and len(hello.members) <= MEMBERS_MAX:
            self._heard = Configuration(hello.configuration_version, tuple(map(to_member, hello.members)))
            self.on_members_heard(self._heard.members, self._heard.version)
            self._refresh()
        if member_id not in self.peers:
            return peer_pb2.Refusal(
                reason=_Reason.REASON_NOT_A_MEMBER,
                message=f"{hello.name} ({hex_id(member_id)}) is not a member of this cluster",
            )
        if hello.peer_address and self.peers[member_id].peer_address != hello.peer_address:
            self.claims[member_id] = hello.peer_address
            self._refresh()
        return None

    def is_removal_news(self, refusal: peer_pb2.Refusal) -> bool:
        """A peer says that this node was removed, and knows of a later configuration than this node is in."""
        newest = self._newest()
        return newest.member(self._me.member_id) is None or refusal.configuration_version > newest.version

    def _newest(self) -> Configuration:
        return self._applied if self._applied.version >= self._heard.version else self._heard

    def _refresh(self) -> None:
        peers = self._find_peers()
        if peers != self.peers:
            self.peers = peers
            self.claims = {member: claim for member, claim in self.claims.items() if member in peers}
            self.on_peers_changed(tuple(peers.values()))

    def _find_peers(self) -> dict[MemberId, Member]:
        sources = [self._applied, self._current]
        if self._heard.version > self._applied.version or not self._applied.version:
            sources.insert(0, self._heard)
        found = {member.member_id: member for source in sources for member in source.members}
        for member_id in (*self._applied.removed, self._me.member_id):
            found.pop(member_id, None)
        return {member_id: self._located(member) for member_id, member in sorted(found.items())}

    def _located(self, member: Member) -> Member:
        """While nothing has changed since the founding, the options of this start say where the founders are."""
        address = self.claims.get(member.member_id)
        if address is None and self._current.version <= 1:
            address = self._me.told.get(member.name)
        return replace(member, peer_address=address or member.peer_address)
