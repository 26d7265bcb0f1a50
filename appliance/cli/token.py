"""token: make, list and revoke the tokens that say who may do what."""

from __future__ import annotations

import re
import time
from typing import Final

import click

from appliance.cli.common import DurationType, connect, connection_options, note, output_option
from appliance.cli.output import Row, emit, emit_one
from appliance.cli.times import TIME_UNIX_NANO_MAX, format_time
from appliance.client.methods import CREATE_TOKEN, GET_AUTHORITY, LIST_TOKENS, REVOKE_TOKEN
from appliance.units import Duration
from raftberry.v1 import access_pb2, join_pb2

COLUMNS: Final = ("name", "write", "read", "key_write", "key_read", "operator", "rate", "expires")

_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/s", re.ASCII)


class RateType(click.ParamType[int]):
    """`100/s`."""

    name = "N/s"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _RATE.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not a rate like 100/s", param, ctx)
        return int(match[1])


@click.group()
def token() -> None:
    """Who may do what. On a node, root and the group raftberry need no token.

    \b
    Example: raftberry token create greenhouse --write 'greenhouse/*'
    """


@token.command()
@click.argument("name")
@click.option("--write", multiple=True, metavar="GLOB", help="May write these SENSOR/METRIC; repeatable.")
@click.option("--read", multiple=True, metavar="GLOB", help="May read these SENSOR/METRIC; repeatable.")
@click.option("--key-write", multiple=True, metavar="GLOB", help="May put and delete these keys; repeatable.")
@click.option("--key-read", multiple=True, metavar="GLOB", help="May read these keys; repeatable.")
@click.option("--operator", is_flag=True, help="May operate the cluster: members, tokens, deleting series.")
@click.option(
    "--rate", type=RateType(), default=None, help="Requests a second on each node.  [default: no limit]"
)
@click.option("--expires", type=DurationType(), help="Ends after this time, as in 30d.  [default: never]")
@connection_options
@output_option
def create(
    name: str,
    write: tuple[str, ...],
    read: tuple[str, ...],
    key_write: tuple[str, ...],
    key_read: tuple[str, ...],
    operator: bool,
    rate: int | None,
    expires: Duration | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Make a token and show it, this once. A GLOB without a slash is a sensor with all its metrics.

    \b
    Examples:
      raftberry token create greenhouse --write 'greenhouse/*' --rate 100/s
      raftberry token create display --read '*' --expires 365d
      raftberry token create anna --operator --read '*' --key-read '*'
    """
    if expires is not None and expires <= 0:
        raise click.UsageError("--expires is a time from now on; without it the token does not end.")
    expires_unix_nano = 0 if expires is None else time.time_ns() + expires
    if expires_unix_nano > TIME_UNIX_NANO_MAX:
        raise click.UsageError("--expires is beyond the year 2262; without it the token does not end.")
    rights = access_pb2.TokenRights(
        write=write,
        read=read,
        key_write=key_write,
        key_read=key_read,
        operator=operator,
        requests_per_second=rate or 0,
        expires_unix_nano=expires_unix_nano,
    )
    request = access_pb2.CreateTokenRequest(name=name, rights=rights)
    with connect(endpoints, timeout) as connection:
        response = connection.call(CREATE_TOKEN, request, is_repeatable=False)
    emit_one({"name": name, "token": response.token}, output)
    note(
        "the token is shown this once; clients send it as `authorization: Bearer TOKEN`, commands as RAFTBERRY_TOKEN"
    )


@token.command(name="list")
@connection_options
@output_option
def list_tokens(endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """List the tokens with what they may do; their texts are known to nobody but their holders.

    \b
    Example: raftberry token list
    """
    with connect(endpoints, timeout) as connection:
        response = connection.call(LIST_TOKENS, access_pb2.ListTokensRequest())
    emit([_row(one) for one in response.tokens], COLUMNS, output)


@token.command()
@click.argument("name")
@connection_options
@output_option
def revoke(name: str, endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """Revoke a token: it is worth nothing from now on, also on streams that are open.

    \b
    Example: raftberry token revoke greenhouse
    """
    with connect(endpoints, timeout) as connection:
        response = connection.call(
            REVOKE_TOKEN, access_pb2.RevokeTokenRequest(name=name), is_repeatable=False
        )
    emit_one({"revoked": name, "index": response.index, "term": response.term}, output)


@token.command()
@connection_options
def ca(endpoints: tuple[str, ...], timeout: Duration) -> None:
    """Print the certificate of the cluster's CA: what applications need, beside a token. Not a secret.

    Applications check that a node's certificate has the name raftberry.internal.

    \b
    Example: raftberry token ca > raftberry-ca.pem
    """
    with connect(endpoints, timeout) as connection:
        response = connection.call(GET_AUTHORITY, join_pb2.GetAuthorityRequest())
    click.echo(response.authority_pem.decode("ascii"), nl=False)


def _row(one: access_pb2.Token) -> Row:
    rights = one.rights
    return {
        "name": one.name,
        "write": list(rights.write),
        "read": list(rights.read),
        "key_write": list(rights.key_write),
        "key_read": list(rights.key_read),
        "operator": rights.operator,
        "rate": f"{rights.requests_per_second}/s" if rights.requests_per_second else "",
        "expires": format_time(rights.expires_unix_nano) if rights.expires_unix_nano else "",
    }
