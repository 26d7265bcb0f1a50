"""Options that many commands share."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
from click.core import ParameterSource

from appliance.addresses import split_address
from appliance.cli.output import FORMATS
from appliance.client.connection import Connection
from appliance.client.credentials import UNIX_PREFIX, ClientCredentials
from appliance.errors import ConfigurationError, InvalidArgument
from appliance.node.tokens import parse_token
from appliance.units import DURATION_UNITS, Duration, format_duration, parse_duration
from raftberry.v1 import reading_pb2

Command = TypeVar("Command", bound=Callable[..., Any])

DURATION_MAX: Final = 292 * DURATION_UNITS["y"]
"""Of nanoseconds 63 bits hold no more years: neither requests nor clocks do."""

COUNTER_MAX: Final = (1 << 64) - 1
"""Of an index, a revision or a sequence."""

DEFAULT_ENDPOINT: Final = "127.0.0.1:7440"
LOCAL_SOCKET: Final = Path("/run/raftberry/raftberry.sock")
"""Of the node that runs as a service on this machine: for root and the group raftberry, without a token."""

_TOKEN: Final = "raftberry.token"
_AUTHORITY: Final = "raftberry.authority"

CONSISTENCIES: Final = {
    "linearizable": reading_pb2.CONSISTENCY_LINEARIZABLE,
    "local": reading_pb2.CONSISTENCY_LOCAL,
}


def parse_bounded_duration(value: object) -> Duration:
    """As parse_duration; at most DURATION_MAX."""
    duration = parse_duration(value)
    if duration > DURATION_MAX:
        raise ValueError(f"{value!r} is above {format_duration(DURATION_MAX)}, the longest there is")
    return duration


class DurationType(click.ParamType[Duration]):
    """`500ms`, `10s`, `1h`. is_bounded: at most DURATION_MAX."""

    name = "DURATION"

    def __init__(self, *, is_bounded: bool = True) -> None:
        self._parse = parse_bounded_duration if is_bounded else parse_duration

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Duration:
        try:
            return value if isinstance(value, Duration) else self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_endpoints(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    endpoints = tuple(part for value in values for part in value.replace(",", " ").split())
    try:
        for endpoint in endpoints:
            if not endpoint.startswith(UNIX_PREFIX):
                split_address(endpoint, what="--endpoint")
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error
    return tuple(dict.fromkeys(endpoints)) or (default_endpoint(),)


def default_endpoint() -> str:
    """The local service's socket where this user may use it, else loopback."""
    return f"{UNIX_PREFIX}{LOCAL_SOCKET}" if os.access(LOCAL_SOCKET, os.W_OK) else DEFAULT_ENDPOINT


def _keep_token(context: click.Context, _: click.Parameter, text: str | None) -> None:
    if text:
        try:
            parse_token(text)
        except InvalidArgument as error:
            raise click.BadParameter(error.description) from error
        context.meta[_TOKEN] = text


def _keep_authority(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    pem = path.read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise click.BadParameter(
            f"{path} holds no certificate in PEM; give the cluster's CA, security/authority.pem of a node"
        ) from error
    context.meta[_AUTHORITY] = pem


def present_credentials() -> ClientCredentials:
    """Of the command that runs: --token and --ca."""
    context = click.get_current_context(silent=True)
    meta = context.meta if context else {}
    return ClientCredentials(token=meta.get(_TOKEN, ""), authority_pem=meta.get(_AUTHORITY, b""))


_FILLED_BY: Final = {
    "sensor": ("series", "name"),
    "metric": ("series",),
    "int_value": ("value",),
    "producer_id": ("producer",),
    "start_time_unix_nano": ("start",),
    "end_time_unix_nano": ("end",),
    "step_nano": ("step",),
    "keep_nano": ("keep",),
    "ttl_seconds": ("ttl",),
}
"""The parameters of commands, where they are not called like the field of the request."""


def _in_its_words(command: Command) -> Command:
    """What a node finds wrong with a field of the request is said of the argument that filled it."""

    @wraps(command)
    def speaking(*positional: Any, **named: Any) -> Any:
        try:
            return command(*positional, **named)
        except InvalidArgument as error:
            parameter = _parameter_of(error.field)
            if parameter is None:
                raise
            raise click.BadParameter(error.description, param=parameter) from error

    return cast("Command", speaking)


def _parameter_of(field: str) -> click.Parameter | None:
    context = click.get_current_context()
    parameters = {parameter.name: parameter for parameter in context.command.params}
    name = field.rpartition(".")[2].partition("[")[0]
    return next((parameters[one] for one in (name, *_FILLED_BY.get(name, ())) if one in parameters), None)


def connection_options(command: Command) -> Command:
    """--endpoint and --timeout; the command gets `endpoints` and `timeout`. --token and --ca: see connect."""
    command = _in_its_words(command)
    command = click.option(
        "--ca",
        envvar="RAFTBERRY_CA",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_keep_authority,
        help="Certificate of the cluster's CA: connect encrypted.",
    )(command)
    command = click.option(
        "--token",
        envvar="RAFTBERRY_TOKEN",
        expose_value=False,
        callback=_keep_token,
        help="Who you are, where a node asks for it; better in RAFTBERRY_TOKEN, which `ps` does not show.",
    )(command)
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
        help="A node, or unix:PATH; repeatable: the next is tried when one fails.  [default: the local service's "
        f"socket where you may use it, else {DEFAULT_ENDPOINT}]",
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
        type=click.IntRange(1, COUNTER_MAX),
        help="Number of this write; applied once, however often sent.",
    )(command)
    return click.option("--producer", metavar="ID", help="Who numbers the writes; needs --sequence.")(command)


def require_producer_pair(producer: str | None, sequence: int | None) -> None:
    """One without the other is a mistake."""
    if (producer is None) != (sequence is None):
        raise click.UsageError("--producer and --sequence go together.")


def whole_seconds(option: str, span: Duration) -> int:
    """What the nodes count in seconds is not cut short unseen."""
    seconds, rest_ns = divmod(span, DURATION_UNITS["s"])
    if rest_ns or not seconds:
        raise click.UsageError(f"{option} is counted in whole seconds, from 1s on.")
    return seconds


def given(*options: str) -> list[str]:
    """Those of the options (`--interval`) that the present command line names."""
    context = click.get_current_context()
    return [
        option
        for parameter in context.command.params
        for option in options
        if option in parameter.opts
        and parameter.name is not None
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def connect(endpoints: Sequence[str], timeout: Duration) -> Connection:
    """A connection to the named endpoints, with the token and the CA that were named."""
    return Connection(endpoints, timeout_s=timeout / 1e9, credentials=present_credentials())


def note(text: str) -> None:
    """A line for the person at the terminal, apart from the result."""
    click.echo(f"raftberry: {text}", err=True)
