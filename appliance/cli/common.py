"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from appliance.cli.output import FORMATS
from appliance.client.connection import Connection
from appliance.config import split_address
from appliance.errors import ConfigurationError
from appliance.units import Duration, parse_duration
from raftberry.v1 import reading_pb2

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_ENDPOINT: Final = "127.0.0.1:7440"

CONSISTENCIES: Final = {
    "linearizable": reading_pb2.CONSISTENCY_LINEARIZABLE,
    "local": reading_pb2.CONSISTENCY_LOCAL,
}


class DurationType(click.ParamType[Duration]):
    """`500ms`, `10s`, `1h`."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Duration:
        try:
            return value if isinstance(value, Duration) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_endpoints(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    endpoints = tuple(part for value in values for part in value.replace(",", " ").split())
    try:
        for endpoint in endpoints:
            split_address(endpoint, what="--endpoint")
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error
    return tuple(dict.fromkeys(endpoints)) or (DEFAULT_ENDPOINT,)


def connection_options(command: Command) -> Command:
    """--endpoint and --timeout; the command gets `endpoints` and `timeout`."""
    command = click.option(
        "--timeout",
        type=DurationType(),
        default="10s",
        show_default=True,
        help="How long to try, over all endpoints.",
    )(command)
    return click.option(
        "--endpoint",
        "-e",
        "endpoints",
        multiple=True,
        metavar="HOST:PORT",
        envvar="RAFTBERRY_ENDPOINTS",
        callback=_parse_endpoints,
        help=f"A node; repeatable: the next is tried when one fails.  [default: {DEFAULT_ENDPOINT}]",
    )(command)


def output_option(command: Command) -> Command:
    """-o; the command gets `output`."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Format of the result.",
    )(command)


def consistency_option(command: Command) -> Command:
    """--consistency; the command gets `consistency`, a key of CONSISTENCIES."""
    return click.option(
        "--consistency",
        type=click.Choice(list(CONSISTENCIES)),
        default="linearizable",
        show_default=True,
        help="linearizable sees every acknowledged write; local is what the asked node has.",
    )(command)


def producer_options(command: Command) -> Command:
    """--producer and --sequence; the command gets `producer` and `sequence`."""
    command = click.option(
        "--sequence",
        type=click.IntRange(min=1),
        help="Number of this write; applied once, however often sent.",
    )(command)
    return click.option("--producer", metavar="ID", help="Who numbers the writes; needs --sequence.")(command)


def require_producer_pair(producer: str | None, sequence: int | None) -> None:
    """One without the other is a mistake."""
    if (producer is None) != (sequence is None):
        raise click.UsageError("--producer and --sequence go together.")


def connect(endpoints: tuple[str, ...], timeout: Duration) -> Connection:
    """A connection to the named endpoints."""
    return Connection(endpoints, timeout_s=timeout / 1e9)


def note(text: str) -> None:
    """A line for the person at the terminal, apart from the result."""
    click.echo(f"raftberry: {text}", err=True)
