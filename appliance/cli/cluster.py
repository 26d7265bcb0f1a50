"""status, top, transfer: the cluster itself."""

from __future__ import annotations

import sys
from typing import Final

import click

from appliance.cli import live, survey
from appliance.cli.common import DurationType, connect, connection_options, given, note, output_option
from appliance.cli.main import EXIT_NO_QUORUM, EXIT_OK
from appliance.cli.output import emit, emit_one
from appliance.client.failures import no_node_answers
from appliance.client.methods import TRANSFER_LEADERSHIP
from appliance.units import Duration
from raftberry.v1 import cluster_pb2

STATUS_TIMEOUT_S: Final = 2.0
"""A node that takes longer to say how it is, is not well."""

interval_option = click.option(
    "--interval", type=DurationType(), default="1s", show_default=True, help="Between two looks."
)
for_option = click.option("--for", "duration", type=DurationType(), help="End by itself.  [default: ctrl-C]")


@click.command()
@click.option("--live", "is_live", is_flag=True, help="Keep looking; plain snapshots if not a terminal.")
@interval_option
@for_option
@connection_options
@output_option
def status(
    is_live: bool,
    interval: Duration,
    duration: Duration | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> int:
    """Show each node: role, term, lag behind the leader, readings a second, size of its store.

    Every named endpoint is asked; nodes that are not named are shown as the leader sees them. Exit status 3 if
    no node says that the cluster commits.

    \b
    Example: raftberry status -e 127.0.0.1:7440 -e 127.0.0.1:7450 -e 127.0.0.1:7460
    """
    if is_live:
        if named := given("--output"):
            raise click.UsageError(f"--live has no {named[0]}: it shows a table, anew each time.")
        return live.show(endpoints, interval=interval, duration=duration)
    if named := given("--interval", "--for"):
        raise click.UsageError(f"{named[0]} needs --live.")
    with survey.Survey(endpoints, timeout_s=min(STATUS_TIMEOUT_S, timeout / 1e9)) as nodes:
        answers = nodes.ask()
    if not any(one.status for one in answers):
        raise no_node_answers([f"{one.endpoint}: {one.reason}" for one in answers])
    emit(survey.rows(answers), survey.COLUMNS, output)
    sys.stdout.flush()
    for alarm in survey.alarms(answers):
        note(f"alarm: {alarm}")
    if not survey.has_quorum(answers):
        note("no quorum: the cluster takes no writes until a majority of its nodes can talk to each other")
        return EXIT_NO_QUORUM
    return EXIT_OK


@click.command()
@interval_option
@for_option
@connection_options
def top(interval: Duration, duration: Duration | None, endpoints: tuple[str, ...], timeout: Duration) -> int:
    """The same as `status --live`.

    \b
    Example: raftberry top -e 127.0.0.1:7440,127.0.0.1:7450,127.0.0.1:7460
    """
    return live.show(endpoints, interval=interval, duration=duration)


@click.command()
@click.argument("target", default="")
@connection_options
@output_option
def transfer(target: str, endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """Hand leadership to TARGET (name, number or member id; default: the member that is furthest).

    Returns when it leads.

    \b
    Example: raftberry transfer node-2
    """
    request = cluster_pb2.TransferLeadershipRequest(target=target)
    with connect(endpoints, timeout) as connection:
        response = connection.call(TRANSFER_LEADERSHIP, request, is_repeatable=bool(target))
    emit_one({"leader": response.leader, "term": response.term}, output)
