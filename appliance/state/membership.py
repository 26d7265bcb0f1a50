"""Changes of the cluster's membership, and the rules that make the next configuration of one.

Invariant: a change leaves all but one member as they were, makes one voter more or fewer or none, and is idempotent:
asked again, it gives back the configuration it is given. So whoever asks may ask until it hears that it is done.
That no change overlaps another (H13), and that one is safe to begin now, the leader sees to (node/membership.py).

How a change is asked for, on any node: `await node.change_members(AddLearner(...), deadline_ns=...)`, which returns
the committed configuration. A machine joins so: its data directory is opened (which draws its member id), the cluster
takes it in by `AddLearner(member_id, name, peer_address)`, the configuration that this returns and the cluster's id
are written into the directory (`DataDirectory.join`), and the node is started: it catches up and is made a voter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from appliance.errors import ConditionFailed, NotFound, Overloaded
from appliance.limits import MEMBERS_MAX, REMOVED_MEMBERS_MAX, VOTERS_MAX
from appliance.model import Configuration, Member, MemberId, hex_id


@dataclass(frozen=True, slots=True)
class AddLearner:
    """A new member, which is sent the log and counts for nothing. promote: make it a voter once it has caught up."""

    member_id: MemberId
    name: str
    peer_address: str
    promote: bool = True


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """force: although those who remain have no majority connected now."""

    member_id: MemberId
    force: bool = False


@dataclass(frozen=True, slots=True)
class PromoteMember:
    """A learner becomes a voter."""

    member_id: MemberId


@dataclass(frozen=True, slots=True)
class UpdateMember:
    """Another address, as after a new DHCP lease."""

    member_id: MemberId
    peer_address: str


@dataclass(frozen=True, slots=True)
class ReplaceMember:
    """A member that gave its data up comes back with another id, as a learner under its name.

    One entry, so that no crash falls between its going and its coming; one voter fewer, so majorities overlap.
    """

    member_id: MemberId
    successor_id: MemberId
    peer_address: str


Change = AddLearner | RemoveMember | PromoteMember | UpdateMember | ReplaceMember


def next_configuration(current: Configuration, change: Change) -> Configuration:
    """What the change makes of current; current itself if it is so already. Raises NotApplied with the reason."""
    match change:
        case AddLearner():
            return _add(current, change)
        case RemoveMember(member_id):
            return _remove(current, member_id)
        case PromoteMember(member_id):
            return _promote(current, member_id)
        case UpdateMember():
            return _update(current, change)
        case ReplaceMember():
            return _replace(current, change)


def find_member(configuration: Configuration, text: str) -> Member:
    """By name, number or member id. Raises NotFound."""
    for member in configuration.members:
        if text in (member.name, str(member.number), hex_id(member.member_id)):
            return member
    names = ", ".join(member.name for member in configuration.members)
    raise NotFound(f"{text} is no member of this cluster; its members are {names or 'not known here'}")


def _add(current: Configuration, change: AddLearner) -> Configuration:
    held = current.member(change.member_id)
    if held is not None and held.name == change.name:
        return _moved(current, held, change.peer_address)
    _check_newcomer(current, change)
    if len(current.members) >= MEMBERS_MAX:
        raise Overloaded(f"the cluster has {MEMBERS_MAX} members, the most there may be: remove one first")
    number = current.last_number + 1
    added = Member(change.member_id, change.name, number, change.peer_address, False, change.promote)
    return _next(current, (*current.members, added), last_number=number)


def _check_newcomer(current: Configuration, change: AddLearner) -> None:
    """Its id was never used here, its name is nobody's. Two addresses may be equal: DHCP gives a dead board's away."""
    member_id = change.member_id
    if not member_id:
        raise ConditionFailed(
            "member id 0 is nobody: it is the number that the new node's data directory has drawn"
        )
    if member_id in current.removed:
        raise ConditionFailed(
            f"{change.name} ({hex_id(member_id)}) was removed from this cluster, and a removed id never comes back: "
            "empty its data directory, so that it draws a new one, and add it again"
        )
    for member in current.members:
        if member.member_id == member_id:
            raise ConditionFailed(
                f"{hex_id(member_id)} is a member already, as {member.name}, not {change.name}"
            )
        if member.name == change.name:
            raise ConditionFailed(
                f"{change.name} is a member already, with the id {hex_id(member.member_id)}: if that board is gone, "
                f"remove it first (raftberry members remove {change.name}), then add the new one"
            )


def _remove(current: Configuration, member_id: MemberId) -> Configuration:
    if member_id in current.removed:
        return current
    member = _known(current, member_id)
    if current.voters == (member_id,):
        raise ConditionFailed(
            f"{member.name} is the last voter of this cluster: without it nothing is left; stop it instead"
        )
    removed = (*current.removed, member_id)[-REMOVED_MEMBERS_MAX:]
    kept = tuple(other for other in current.members if other.member_id != member_id)
    return _next(current, kept, removed=removed)


def _promote(current: Configuration, member_id: MemberId) -> Configuration:
    member = _known(current, member_id)
    if member.is_voter:
        return current
    if len(current.voters) >= VOTERS_MAX:
        raise Overloaded(
            f"the cluster has {VOTERS_MAX} voters, the most there may be: {member.name} stays a learner; remove a "
            "voter first"
        )
    return _replaced(current, replace(member, is_voter=True, is_promotable=False))


def _update(current: Configuration, change: UpdateMember) -> Configuration:
    member = _known(current, change.member_id)
    return _moved(current, member, change.peer_address)


def _moved(current: Configuration, member: Member, peer_address: str) -> Configuration:
    if member.peer_address == peer_address:
        return current
    return _replaced(current, replace(member, peer_address=peer_address))


def _replace(current: Configuration, change: ReplaceMember) -> Configuration:
    successor = current.member(change.successor_id)
    if successor is not None:
        return _moved(current, successor, change.peer_address)
    old = _known(current, change.member_id)
    joined = AddLearner(change.successor_id, old.name, change.peer_address)
    return replace(_add(_remove(current, change.member_id), joined), version=current.version + 1)


def _known(current: Configuration, member_id: MemberId) -> Member:
    member = current.member(member_id)
    if member is None:
        raise NotFound(f"{hex_id(member_id)} is no member of this cluster")
    return member


def _replaced(current: Configuration, member: Member) -> Configuration:
    kept = tuple(other for other in current.members if other.member_id != member.member_id)
    return _next(current, (*kept, member))


def _next(
    current: Configuration,
    members: tuple[Member, ...],
    *,
    removed: tuple[MemberId, ...] | None = None,
    last_number: int | None = None,
) -> Configuration:
    return Configuration(
        version=current.version + 1,
        members=tuple(sorted(members, key=lambda member: member.member_id)),
        removed=current.removed if removed is None else removed,
        last_number=current.last_number if last_number is None else last_number,
    )
