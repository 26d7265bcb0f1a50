"""verify: do all nodes hold the same?"""

from __future__ import annotations

import sys

import click

from appliance.cli.common import DurationType, connect, connection_options, note, output_option
from appliance.cli.main import EXIT_ERROR, EXIT_OK
from appliance.cli.output import emit
from appliance.client.methods import VERIFY
from appliance.units import Duration
from raftberry.v1 import maintenance_pb2


@click.command()
@click.option(
    "--wait",
    type=DurationType(),
    default="60s",
    show_default=True,
    help="For hashes: seconds a million readings.",
)
@connection_options
@output_option
def verify(wait: Duration, endpoints: tuple[str, ...], timeout: Duration, output: str) -> int:
    """Have every node hash all it holds at one index, and compare.

    A node whose hash differs from that of a majority steps aside by itself: it votes and serves no more. Exit status
    1 if a node differs or did not answer.

    \b
    Example: raftberry verify
    """
    with connect(endpoints, max(timeout, wait)) as connection:
        response = connection.call(VERIFY, maintenance_pb2.VerifyRequest())
    emit(
        [
            {"name": member.name, "index": response.index, "hash": member.hash.hex() or None}
            for member in response.members
        ],
        ("name", "index", "hash"),
        output,
    )
    sys.stdout.flush()
    if response.equal:
        return EXIT_OK
    silent = [member.name for member in response.members if not member.hash]
    if silent:
        note(f"no answer within {wait / 1e9:g} s from {', '.join(silent)}")
    if len({member.hash for member in response.members if member.hash}) > 1:
        note("the nodes hold different states: see `raftberry status`; the one that differs must be rebuilt")
    return EXIT_ERROR
