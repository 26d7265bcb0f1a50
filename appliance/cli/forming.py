"""invite and join: a cluster of several machines out of nodes that are each alone."""

from __future__ import annotations

import shlex
import time
from typing import Final

import click

from appliance import errors
from appliance.cli.common import (
    DurationType,
    connect,
    connection_options,
    note,
    whole_seconds,
)
from appliance.cli.main import EXIT_OK
from appliance.client.connection import Connection
from appliance.client.failures import Unreachable
from appliance.client.methods import CREATE_INVITE, GET_JOIN, GET_STATUS, OPEN, START_JOIN
from appliance.config import DEFAULT_PORTS
from appliance.host import discovery
from appliance.host.machine import primary_address
from appliance.node.tokens import parse_invite
from appliance.units import Duration
from raftberry.v1 import access_pb2, cluster_pb2, local_pb2

DISCOVERY_S: Final = 15.0
"""A node announces itself at once and answers within a second; radios lose some of it."""

PAUSE_S: Final = 0.2
"""Between two looks at a node that restarts its ports."""

_MEMBER_ROLES: Final = (cluster_pb2.ROLE_FOLLOWER, cluster_pb2.ROLE_LEADER, cluster_pb2.ROLE_CANDIDATE)


@click.command()
@click.option(
    "--uses", type=click.IntRange(min=1, max=100), default=1, show_default=True, help="How many machines."
)
@click.option("--ttl", type=DurationType(), default="1h", show_default=True, help="How long it may be used.")
@click.option("--host", default="", help="By which others find this machine.  [default: found out]")
@click.option("--discover", is_flag=True, help="Be found by `join --discover` in this network; until ctrl-C.")
@connection_options
def invite(
    uses: int, ttl: Duration, host: str, discover: bool, endpoints: tuple[str, ...], timeout: Duration
) -> None:
    """Let another machine join this cluster: prints the line to type there.

    The first time, this node begins to listen for other machines, encrypted: on its ports 7440, 7441 and 7442.

    \b
    Example: raftberry invite
    """
    ttl_seconds = whole_seconds("--ttl", ttl)
    with connect(endpoints, timeout) as connection:
        boots_before = connection.call(GET_STATUS, cluster_pb2.GetStatusRequest()).boot_count
        opened = connection.call(OPEN, local_pb2.OpenRequest(host=host))
        if not opened.was_open:
            note(f"this node listens for other machines from now on, encrypted, as {opened.host}")
        end = time.monotonic() + timeout / 1e9
        _await_secured(connection, end, boots=boots_before if opened.was_open else boots_before + 1)
        request = access_pb2.CreateInviteRequest(uses=uses, ttl_seconds=ttl_seconds)
        made = connection.call(CREATE_INVITE, request, is_repeatable=False)
    times = "once" if uses == 1 else f"{uses} times"
    note(f"on the other machine, within {_spoken(ttl_seconds)}, {times}:")
    if not discover:
        click.echo(f"sudo raftberry join {shlex.quote(made.host)} {made.invite}")
        return
    click.echo(f"sudo raftberry join --discover {made.invite}")
    _advertise(opened.host, made, ttl)


@click.command()
@click.argument("host", default="")
@click.argument("invite", default="")
@click.option("--discover", is_flag=True, help="Find the cluster in this network; HOST is left out.")
@click.option(
    "--discard-data", is_flag=True, help="Give up the readings and keys that this node has of its own."
)
@click.option(
    "--advertise",
    default="",
    metavar="HOST",
    help="By which the members find this machine.  [default: found out]",
)
@click.option("--wait", type=DurationType(), default="10m", show_default=True, help="How long to watch it.")
@connection_options
def join(
    host: str,
    invite: str,
    discover: bool,
    discard_data: bool,
    advertise: str,
    wait: Duration,
    endpoints: tuple[str, ...],
    timeout: Duration,
) -> int:
    """Make this machine's node a member of the cluster of HOST, with the INVITE that `raftberry invite` showed there.

    It goes on by itself, also after a power cut; the command only watches, and may be given again: without HOST and
    INVITE to watch, with others where they were mistyped.

    \b
    Example: raftberry join raftberry-1.local rbj1_...
             raftberry join --discover rbj1_...
             raftberry join
    """
    is_watching = not host and not discover
    if not is_watching and (discover == bool(invite) or not host):
        raise click.UsageError("Give HOST and INVITE, or --discover and INVITE, or nothing: to watch a join.")
    if discover:
        host, invite = _discovered(host), host
    end = time.monotonic() + wait / 1e9
    with connect(endpoints, timeout) as connection:
        if is_watching:
            _check_joining(connection)
        else:
            request = local_pb2.StartJoinRequest(
                host=host, invite=invite, discard_data=discard_data, advertised_host=advertise
            )
            connection.call(START_JOIN, request)
        _watch_join(connection, end)
        status = _watch_catching_up(connection, end)
    note(f"{status.name} is a voting member of cluster {status.cluster_id}")
    return EXIT_OK


def _advertise(host: str, made: access_pb2.CreateInviteResponse, ttl: Duration) -> None:
    """Until ctrl-C, or the invite has ended."""
    fingerprint = parse_invite(made.invite).fingerprint
    _, separator, port = made.host.rpartition(":")
    own_port = int(port) if separator else DEFAULT_PORTS["client"]
    with discovery.advertised(host.partition(".")[0], [primary_address()], own_port, fingerprint):
        note("others in this network find this machine until ctrl-C")
        time.sleep(ttl / 1e9)


def _discovered(invite: str) -> str:
    note("looking for the cluster in this network")
    found = discovery.discover(parse_invite(invite).fingerprint, timeout_s=DISCOVERY_S)
    if not found:
        raise errors.NotFound(
            f"no node of that cluster was heard of within {DISCOVERY_S:g} s: is `sudo raftberry invite --discover` "
            "still running there, in the same network? `raftberry join HOST INVITE` needs no mDNS"
        )
    note(f"found {found}")
    return found


def _await_secured(connection: Connection, end: float, *, boots: int) -> None:
    """The node restarts its serving part: wait until it answers in that boot, encrypted, and commits."""
    while True:
        try:
            status = connection.call(GET_STATUS, cluster_pb2.GetStatusRequest())
            if status.boot_count >= boots and status.secured and status.has_quorum:
                return
            problem: errors.RaftberryError = errors.NoLeader(
                "this node has no majority; see `raftberry status`"
            )
        except (errors.NoLeader, errors.OutcomeUnknown) as error:
            problem = error
        if time.monotonic() > end:
            raise problem
        time.sleep(PAUSE_S)


def _check_joining(connection: Connection) -> None:
    progress = connection.call(GET_JOIN, local_pb2.GetJoinRequest())
    if not progress.active and not progress.failure:
        raise errors.ConditionFailed(
            "this node is not joining a cluster; begin with HOST and INVITE, see `raftberry status`"
        )


def _watch_join(connection: Connection, end: float) -> None:
    """Until the cluster has taken the node in. Says each step once."""
    said = ""
    while True:
        try:
            progress = connection.call(GET_JOIN, local_pb2.GetJoinRequest())
        except (errors.NoLeader, errors.OutcomeUnknown) as error:
            _give_up_at(end, str(error))
            continue
        if progress.failure:
            raise errors.ConditionFailed(f"{progress.failure}\nThis node is what it was before.")
        if not progress.active:
            return
        if progress.state != said:
            said = progress.state
            note(said)
        _give_up_at(end, f"{said}; if that is the wrong place, give the right line now")


def _watch_catching_up(connection: Connection, end: float) -> cluster_pb2.GetStatusResponse:
    said = ""
    while True:
        try:
            status = connection.call(GET_STATUS, cluster_pb2.GetStatusRequest())
        except (Unreachable, errors.OutcomeUnknown) as error:
            _give_up_at(end, str(error))
            continue
        own = next((peer for peer in status.peers if peer.member_id == status.member_id), None)
        if status.role in _MEMBER_ROLES and own is not None and own.voter and status.has_quorum:
            return status
        state = f"catching up as a learner: index {status.applied_index}"
        if not said:
            said = state
            note(said)
        _give_up_at(end, state)


def _give_up_at(end: float, state: str) -> None:
    if time.monotonic() > end:
        raise errors.OutcomeUnknown(f"{state}; it goes on by itself: look with `raftberry status`")
    time.sleep(PAUSE_S)


def _spoken(seconds: int) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
