"""A new cluster of one out of what a single node still holds, when the majority is lost for good.

Invariant: the node gets the new cluster's id before it gets the configuration of one, so that a run that was cut off
leaves a node that nobody of the old cluster talks to and that can't elect itself; the next run finishes. The new
configuration is an entry of the log like any other (and so decides from the next start on), in a term of its own.
Before any thread exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.consensus import LogImage
from appliance.errors import DataDirectoryRefused
from appliance.limits import REMOVED_MEMBERS_MAX
from appliance.model import ClusterId, Configuration, Member, Position
from appliance.node.identity import Self
from appliance.node.opening import first_configuration, open_log
from appliance.state import StateMachine
from appliance.state.configuration import encode_configuration
from appliance.storage.directory import DataDirectory
from appliance.storage.recovery import RecoveryPlan, recover


@dataclass(frozen=True, slots=True)
class Holding:
    """What the node holds. committed_index: as far as it knows; what lies behind may or may not be acknowledged."""

    last: Position
    committed_index: int
    configuration: Configuration


def examine(directory: DataDirectory) -> Holding:
    """Recovers journal and store, as a start does. Raises as force_new_cluster, and CorruptData."""
    return _open(directory)[0]


def force_new_cluster(
    directory: DataDirectory, *, draw_cluster_id: Callable[[], int], peer_address: str
) -> Holding:
    """Make the node the only member of a new cluster, durably; returns what it held before.

    Raises DataDirectoryRefused when there is no cluster in it to recover, or the node is in doubt about its data.
    """
    holding, log = _open(directory)
    current = holding.configuration
    held = current.member(directory.identity.member_id)
    assert held is not None, "refused when it was opened"
    me = replace(held, is_voter=True, is_promotable=False, peer_address=peer_address)
    directory.renew_cluster(ClusterId(draw_cluster_id()), (me,), current.version + 1)
    log.setCurrentTerm(log.term + 1, None)
    log.add(encode_configuration(_alone(current, me)), log.last_index + 1, log.term)
    directory.journal.commit(log.take_batch()[1])
    return holding


def _open(directory: DataDirectory) -> tuple[Holding, LogImage]:
    if directory.quarantine_reason:
        raise DataDirectoryRefused(
            f"{directory.path} is in doubt about its own data ({directory.quarantine_reason}): no cluster is made of "
            "it; recover another node, or restore a backup"
        )
    _, plan = recover(directory.journal, directory.store)
    identity = directory.identity
    me = Self(
        identity.member_id,
        identity.name,
        identity.cluster_id,
        identity.members,
        boot_nonce=1,
        version="",
        members_version=identity.members_version,
    )
    first = first_configuration(me, _told_by_state(directory, plan))
    if not first.version and identity.superseded:
        # A run on an empty log was cut off: the identity is all that there is.
        number = max(member.number for member in identity.members)
        first = Configuration(identity.members_version, identity.members, (), number)
    log = open_log(directory.journal, plan, 0, configuration=first)
    if log.configuration.member(identity.member_id) is None:
        raise DataDirectoryRefused(
            f"{directory.path} was never told of its cluster's members: it holds nothing that could be recovered"
        )
    return Holding(plan.last, plan.hard_state.commit_index, log.configuration), log


def _told_by_state(directory: DataDirectory, plan: RecoveryPlan) -> Configuration:
    """The checkpoint's; without one the founders, out of the log: the identity may name others by now."""
    with directory.store.snapshot() as reader:
        state = StateMachine.restore(reader)
        index = plan.first_index_to_replay
        while not state.configuration.version:
            part = directory.journal.read(index, count_max=1, bytes_max=0)
            if not part:
                break
            entry, index, term = part[0]
            state.apply_entry(index, term, entry)
            index += 1
        return state.configuration


def _alone(current: Configuration, me: Member) -> Configuration:
    others = tuple(member.member_id for member in current.members if member.member_id != me.member_id)
    removed = (*current.removed, *others)[-REMOVED_MEMBERS_MAX:]
    return Configuration(current.version + 1, (me,), removed, current.last_number)
