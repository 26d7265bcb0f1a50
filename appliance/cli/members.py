"""members: list, add, remove, promote, update."""

from __future__ import annotations

from typing import Final

import click

from appliance import errors
from appliance.cli.common import connect, connection_options, note, output_option
from appliance.cli.output import Row, emit, emit_one
from appliance.client.methods import (
    ADD_MEMBER,
    GET_STATUS,
    LIST_MEMBERS,
    PROMOTE_MEMBER,
    REMOVE_MEMBER,
    UPDATE_MEMBER,
)
from appliance.units import Duration
from raftberry.v1 import cluster_pb2

COLUMNS: Final = ("number", "name", "member_id", "peer_address", "voter", "promote", "connected")


@click.group(invoke_without_command=True)
@connection_options
@output_option
@click.pass_context
def members(context: click.Context, endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """List the members of the cluster, add, remove, promote and move them. Alone it lists them.

    Changes are done one at a time, are answered when they are committed, and may be asked for again.

    \b
    Example: raftberry members -o json
    """
    if context.invoked_subcommand is None:
        _list(endpoints, timeout, output)


@members.command("list")
@connection_options
@output_option
def list_members(endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """List the members; NUMBER is the id that api.v1 calls use. Who does not vote is a learner.

    \b
    Example: raftberry members list -o json
    """
    _list(endpoints, timeout, output)


@members.command("add")
@click.argument("name")
@click.option(
    "--member-id", required=True, help="16 hexadecimal digits that the new node's data directory has drawn."
)
@click.option(
    "--peer-address", required=True, metavar="HOST:PORT", help="Where the members reach the new node."
)
@click.option("--learner", is_flag=True, help="Stay a learner: a copy that serves reads and has no vote.")
@connection_options
@output_option
def add_member(
    name: str,
    member_id: str,
    peer_address: str,
    learner: bool,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Take a new node in, as a learner that becomes a voter once it has caught up. `raftberry join` does it for you.

    \b
    Example: raftberry members add pi-4 --member-id 6f0c2a9d4b1e8375 --peer-address pi-4.local:7441
    """
    request = cluster_pb2.AddMemberRequest(
        name=name, member_id=member_id, peer_address=peer_address, learner=learner
    )
    with connect(endpoints, timeout) as connection:
        response = connection.call(ADD_MEMBER, request, is_repeatable=True)
    emit_one(
        _row(response.member)
        | {"cluster_id": response.cluster_id, "configuration_version": response.configuration_version},
        output,
    )


@members.command("remove")
@click.argument("member")
@click.option("--force", is_flag=True, help="Although those who remain have no majority connected.")
@connection_options
@output_option
def remove_member(
    member: str, force: bool, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """Remove MEMBER (name, number or member id) for good; a leader hands over first. Its data stays where it is.

    A replaced board is removed first; the new one may then have its name.

    \b
    Example: raftberry members remove pi-3
    """
    request = cluster_pb2.RemoveMemberRequest(member=member, force=force)
    with connect(endpoints, timeout) as connection:
        response = connection.call(REMOVE_MEMBER, request, is_repeatable=False)
    emit_one({"removed": member, "configuration_version": response.configuration_version}, output)
    note("to use that machine again, let it join with a new data directory: its old id never comes back")


@members.command("promote")
@click.argument("member")
@connection_options
@output_option
def promote_member(member: str, endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """Make a learner a voter, as soon as it has caught up.

    \b
    Example: raftberry members promote pi-4 --timeout 5m
    """
    request = cluster_pb2.PromoteMemberRequest(member=member)
    with connect(endpoints, timeout) as connection:
        response = connection.call(PROMOTE_MEMBER, request, is_repeatable=True)
    emit_one({"promoted": member, "configuration_version": response.configuration_version}, output)


@members.command("update")
@click.argument("member")
@click.option(
    "--peer-address", required=True, metavar="HOST:PORT", help="Where the other members reach it now."
)
@connection_options
@output_option
def update_member(
    member: str, peer_address: str, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """Say where a member is now. A node that runs says so itself (peer.advertise), and has the last word.

    \b
    Example: raftberry members update pi-3 --peer-address 192.168.1.33:7441
    """
    request = cluster_pb2.UpdateMemberRequest(member=member, peer_address=peer_address)
    with connect(endpoints, timeout) as connection:
        response = connection.call(UPDATE_MEMBER, request, is_repeatable=True)
    emit_one({"updated": member, "configuration_version": response.configuration_version}, output)


def _list(endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    with connect(endpoints, timeout) as connection:
        response = connection.call(LIST_MEMBERS, cluster_pb2.ListMembersRequest())
        if not response.members:
            raise _unknown(connection.call(GET_STATUS, cluster_pb2.GetStatusRequest()))
    # As they joined; the cluster keeps them by id, which is random.
    emit([_row(peer) for peer in sorted(response.members, key=lambda peer: peer.number)], COLUMNS, output)


def _unknown(status: cluster_pb2.GetStatusResponse) -> errors.NoLeader:
    """A node that founds, joins or is in doubt, or whose log has not come yet."""
    why = "; ".join(status.alarms) or "its log names none yet: retry later"
    return errors.NoLeader(f"{status.name} knows no members of a cluster: {why}")


def _row(peer: cluster_pb2.Peer) -> Row:
    return {column: getattr(peer, column) for column in COLUMNS}
