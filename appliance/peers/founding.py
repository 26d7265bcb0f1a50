"""The founding rule: from what the founders say of themselves to one cluster, the same on every founder.

Invariant: two founders that decide from the same answers decide the same cluster id and numbers, and a node
whose cluster knows it by another member id never founds: it lost its data, and its vote with it.
A pure rule; the network around it is in founding_exchange.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from appliance.errors import ConfigurationError, DataDirectoryRefused
from appliance.model import ClusterId, Member, MemberId, hex_id
from raftberry.internal.v1 import command_pb2, peer_pb2

_NO_CLUSTER = ClusterId(0)
_NOBODY = MemberId(0)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Founder:
    """This node as it founds. addresses: HOST:PORT by name, of every founder, itself included."""

    name: str
    member_id: MemberId
    addresses: Mapping[str, str]

    def __post_init__(self) -> None:
        assert self.member_id
        if self.name not in self.addresses:
            raise ConfigurationError(
                f"this node is {self.name}, but the initial members are {_listed(self.addresses)}; "
                "name it there, or correct --name"
            )


@dataclass(frozen=True, slots=True)
class FounderAnswer:
    """What a founder said. known_member_id: whom it knows under the asker's name, 0: nobody."""

    name: str
    member_id: MemberId
    founders: tuple[str, ...]
    cluster_id: ClusterId = _NO_CLUSTER
    known_member_id: MemberId = _NOBODY
    members: tuple[Member, ...] = ()
    version: int = 1


@dataclass(frozen=True, slots=True)
class Founding:
    """The outcome, for the caller to make durable before consensus starts. members are sorted by name.

    version: above 1 the cluster was there already, and its members have changed since it was founded.
    """

    cluster_id: ClusterId
    members: tuple[Member, ...]
    version: int = 1


def derive_cluster_id(member_ids: Mapping[str, MemberId]) -> ClusterId:
    """First 8 bytes of the SHA-256 over the founders, sorted by name: `>H` length, UTF-8 name, `>Q` id."""
    digest = hashlib.sha256(b"raftberry cluster 1")
    for name, member_id in sorted(member_ids.items()):
        encoded = name.encode()
        digest.update(struct.pack(">H", len(encoded)) + encoded + struct.pack(">Q", member_id))
    # 0 means no cluster; 1 in 2**64 names would hash to it.
    return ClusterId(int.from_bytes(digest.digest()[:8], "big") or 1)


def decide_founding(own: Founder, answers: Mapping[str, FounderAnswer]) -> Founding | None:
    """The cluster, as soon as the answers (by the name that was asked) decide it; None: ask on.

    DataDirectoryRefused or ConfigurationError when asking on would never help.
    """
    for asked, answer in sorted(answers.items()):
        _check_name(own, asked, answer)
    joined = _existing_cluster(own, answers)
    if joined is not None:
        return joined
    for _, answer in sorted(answers.items()):
        _check_founders(own, answer)
    _check_distinct(own, answers)
    if set(answers) | {own.name} != set(own.addresses):
        return None
    member_ids = {name: answer.member_id for name, answer in answers.items()} | {own.name: own.member_id}
    members = tuple(
        Member(member_id=member_ids[name], name=name, number=number, peer_address=own.addresses[name])
        for number, name in enumerate(sorted(member_ids), start=1)
    )
    return Founding(cluster_id=derive_cluster_id(member_ids), members=members)


class FoundingDesk:
    """Answers Found, before and after there is a cluster. One per node, on the loop."""

    def __init__(self, name: str, member_id: MemberId, founders: Sequence[str]) -> None:
        self._name = name
        self._member_id = member_id
        self._founders = sorted(founders)
        self._cluster_id = _NO_CLUSTER
        self._members: tuple[Member, ...] = ()
        self._version = 1
        self._warned: tuple[str, int] = ("", 0)

    def joined(self, cluster_id: ClusterId, members: Sequence[Member], version: int = 1) -> None:
        """Call once the cluster is durable here (at founding, or read at start) and as members change."""
        assert cluster_id
        self._cluster_id = cluster_id
        self._members, self._version = tuple(members), version

    def request(self) -> peer_pb2.FoundRequest:
        """What this node asks the other founders."""
        return peer_pb2.FoundRequest(
            name=self._name,
            member_id=self._member_id,
            founders=self._founders,
            cluster_id=self._cluster_id,
        )

    def answer(self, request: peer_pb2.FoundRequest) -> peer_pb2.FoundResponse:
        """What this node answers them."""
        known = next((m.member_id for m in self._members if m.name == request.name), _NOBODY)
        if known and known != request.member_id and self._warned != (request.name, request.member_id):
            self._warned = (request.name, request.member_id)
            log.warning(
                "a node asks to found that the cluster knows by another id, it lost its data: "
                "peer=%s member=%s known=%s",
                request.name,
                hex_id(request.member_id),
                hex_id(known),
            )
        return peer_pb2.FoundResponse(
            name=self._name,
            member_id=self._member_id,
            founders=self._founders,
            cluster_id=self._cluster_id,
            known_member_id=known,
            members=[_encode_member(member) for member in self._members],
            members_version=self._version,
        )


def decode_answer(response: peer_pb2.FoundResponse) -> FounderAnswer:
    """A FoundResponse as a value. DecodeError when no node of ours says it: the members it names become durable."""
    ids = [member.member_id for member in response.members]
    names = {member.name for member in response.members}
    if not response.member_id or 0 in ids or "" in names or not len(ids) == len(set(ids)) == len(names):
        raise DecodeError(
            f"{response.name} answers with a member that has no id or no name, or with one twice"
        )
    if response.known_member_id and response.known_member_id not in ids:
        raise DecodeError(f"{response.name} knows this node, and does not name it among the members")
    return FounderAnswer(
        name=response.name,
        member_id=MemberId(response.member_id),
        founders=tuple(response.founders),
        cluster_id=ClusterId(response.cluster_id),
        known_member_id=MemberId(response.known_member_id),
        members=tuple(
            Member(MemberId(m.member_id), m.name, m.number, m.peer_address, m.voter)
            for m in sorted(response.members, key=lambda member: member.name)
        ),
        version=response.members_version or 1,
    )


def _encode_member(member: Member) -> command_pb2.Member:
    return command_pb2.Member(
        member_id=member.member_id,
        name=member.name,
        number=member.number,
        peer_address=member.peer_address,
        voter=member.is_voter,
    )


def _existing_cluster(own: Founder, answers: Mapping[str, FounderAnswer]) -> Founding | None:
    """The cluster that a peer says it has, if it knows us by our id."""
    joined: tuple[FounderAnswer, Founding] | None = None
    for _, answer in sorted(answers.items()):
        if not answer.cluster_id:
            continue
        _check_known(own, answer)
        if joined is None:
            joined = answer, Founding(answer.cluster_id, answer.members, answer.version)
        elif joined[1].cluster_id != answer.cluster_id:
            first = joined[0]
            raise DataDirectoryRefused(
                f"{first.name} is in cluster {hex_id(first.cluster_id)}, {answer.name} in "
                f"{hex_id(answer.cluster_id)}: the initial members belong to different clusters; "
                "one of the two data directories is not of this cluster"
            )
    return joined[1] if joined else None


def _check_known(own: Founder, answer: FounderAnswer) -> None:
    cluster = hex_id(answer.cluster_id)
    if not answer.known_member_id:
        raise DataDirectoryRefused(
            f"this data directory is empty, and {answer.name} is in the cluster {cluster}, which has no "
            f"member {own.name}: a node is not added by --initial-members; add {own.name} to the cluster "
            "first, or give the name it has there"
        )
    if answer.known_member_id != own.member_id:
        raise DataDirectoryRefused(
            f"this data directory is empty, but {answer.name} knows the cluster {cluster} with {own.name} as "
            f"{hex_id(answer.known_member_id)}: this node lost its data. It does not vote, because it may "
            "have acknowledged what it no longer holds. If the data is elsewhere, correct --data; if it is "
            f"gone, remove {own.name} from the cluster and add it again as a new member"
        )


def _check_name(own: Founder, asked: str, answer: FounderAnswer) -> None:
    if answer.name != asked:
        raise ConfigurationError(
            f"at {own.addresses[asked]} answers {answer.name}, not {asked}; "
            f"correct --initial-members here or --name there"
        )


def _check_founders(own: Founder, answer: FounderAnswer) -> None:
    ours, theirs = set(own.addresses), set(answer.founders)
    if ours != theirs:
        raise ConfigurationError(
            f"{answer.name} founds with other initial members: only here: {_listed(ours - theirs)}; "
            f"only there: {_listed(theirs - ours)}; give every founder the same --initial-members"
        )


def _check_distinct(own: Founder, answers: Mapping[str, FounderAnswer]) -> None:
    holders = {own.member_id: own.name}
    for name, answer in sorted(answers.items()):
        other = holders.setdefault(answer.member_id, name)
        if other != name:
            raise DataDirectoryRefused(
                f"{other} and {name} have the same member id {hex_id(answer.member_id)}: one data directory "
                "is a copy of the other; empty the copy, so that it draws an id of its own"
            )


def _listed(names: object) -> str:
    assert isinstance(names, set | Mapping)
    return ", ".join(sorted(names)) or "nobody"
