"""kv: put, get, delete, list, watch.

Values are bytes. They are shown as text where they are UTF-8, else as base64 with `encoding: base64`.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from appliance import limits
from appliance.cli.arguments import ValueCommand
from appliance.cli.common import (
    CONSISTENCIES,
    COUNTER_MAX,
    DurationType,
    connect,
    connection_options,
    consistency_option,
    note,
    output_option,
    producer_options,
    require_producer_pair,
    whole_seconds,
)
from appliance.cli.output import Row, emit, emit_forever, emit_one
from appliance.client.methods import DELETE, GET, LIST, PUT
from appliance.client.watcher import watch_keys
from appliance.errors import NotFound
from appliance.units import Duration
from raftberry.v1 import key_value_pb2

COLUMNS: Final = ("key", "value", "mod_revision", "version", "ttl_seconds")
EVENT_COLUMNS: Final = ("event", "key", "value", "mod_revision", "index")

if_revision_option = click.option(
    "--if-mod-revision",
    type=click.IntRange(0, COUNTER_MAX),
    help="Only if the key's revision is this; 0: only if it does not exist.",
)


@click.group()
def kv() -> None:
    """Keys and values beside the readings, replicated like them.

    \b
    Example: raftberry kv put heating/target 21
    """


@kv.command(cls=ValueCommand)
@click.argument("key")
@click.argument("value", required=False)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the value from this file.",
)
@if_revision_option
@click.option("--ttl", type=DurationType(), help="Delete the key after this time without a put: 30s, 1h.")
@producer_options
@connection_options
@output_option
def put(
    key: str,
    value: str | None,
    file: Path | None,
    if_mod_revision: int | None,
    ttl: Duration | None,
    producer: str | None,
    sequence: int | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Set KEY to VALUE.

    \b
    Example: raftberry kv put heating/target 21 --if-mod-revision 0
    """
    require_producer_pair(producer, sequence)
    if (value is None) == (file is None):
        raise click.UsageError("Give a VALUE or a --file.")
    ttl_seconds = 0 if ttl is None else whole_seconds("--ttl", ttl)
    content = file.read_bytes() if file else (value or "").encode(errors="surrogateescape")
    if len(content) > limits.VALUE_BYTES_MAX:
        raise click.BadParameter(
            f"{len(content)} bytes; a value has at most {limits.VALUE_BYTES_MAX}: keys hold settings, not files.",
            param_hint="--file" if file else "VALUE",
        )
    request = key_value_pb2.PutRequest(
        key=key,
        value=content,
        if_mod_revision=if_mod_revision,
        ttl_seconds=ttl_seconds,
        producer_id=producer or "",
        sequence=sequence or 0,
    )
    with connect(endpoints, timeout) as connection:
        response = connection.call(PUT, request, is_repeatable=sequence is not None)
    row: Row = {"mod_revision": response.mod_revision, "index": response.index, "term": response.term}
    emit_one({**row, "duplicate": response.duplicate}, output)


@kv.command()
@click.argument("key")
@click.option("--raw", is_flag=True, help="Only the value, byte for byte.")
@consistency_option
@connection_options
@output_option
def get(
    key: str, raw: bool, consistency: str, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """Show the value of KEY; exit status 4 if there is none.

    \b
    Example: raftberry kv get heating/target --raw
    """
    request = key_value_pb2.GetRequest(key=key, consistency=CONSISTENCIES[consistency])
    with connect(endpoints, timeout) as connection:
        response = connection.call(GET, request)
    if not response.HasField("key_value"):
        raise NotFound(f"{key}: no such key")
    if raw:
        sys.stdout.buffer.write(response.key_value.value)
    else:
        emit_one(_row(response.key_value), output)


@kv.command()
@click.argument("key")
@if_revision_option
@producer_options
@connection_options
@output_option
def delete(
    key: str,
    if_mod_revision: int | None,
    producer: str | None,
    sequence: int | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Delete KEY; exit status 4 if there was none.

    \b
    Example: raftberry kv delete heating/target
    """
    require_producer_pair(producer, sequence)
    request = key_value_pb2.DeleteRequest(
        key=key, if_mod_revision=if_mod_revision, producer_id=producer or "", sequence=sequence or 0
    )
    with connect(endpoints, timeout) as connection:
        response = connection.call(DELETE, request, is_repeatable=sequence is not None)
    if not response.deleted and not response.duplicate:
        raise NotFound(f"{key}: no such key")
    emit_one({"index": response.index, "term": response.term, "duplicate": response.duplicate}, output)


@kv.command("list")
@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(0, 2**32 - 1), default=0, help="[default: no limit]")
@consistency_option
@connection_options
@output_option
def list_keys(
    prefix: str, limit: int, consistency: str, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """List keys that begin with PREFIX (default: all). The table cuts long values; -o json has them whole.

    \b
    Example: raftberry kv list heating/ -o json
    """
    request = key_value_pb2.ListRequest(prefix=prefix, limit=limit, consistency=CONSISTENCIES[consistency])
    with connect(endpoints, timeout) as connection:
        responses = connection.collect(LIST, request)
    emit((_row(one) for response in responses for one in response.key_values), COLUMNS, output)


@kv.command("watch")
@click.argument("key", default="")
@click.option("--prefix", "is_prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option(
    "--after",
    type=click.IntRange(0, COUNTER_MAX),
    help="Resume behind this index; 0: all that is kept.  [default: from now]",
)
@connection_options
@output_option
def watch_key(
    key: str, is_prefix: bool, after: int | None, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """Show changes of KEY (default: of all keys) as they are committed.

    \b
    Example: raftberry kv watch heating/ --prefix -o jsonl
    """
    request = key_value_pb2.KeyValueServiceWatchRequest(
        key=key, is_prefix=is_prefix or not key, after_index=after
    )
    with connect(endpoints, timeout) as connection:
        entries = watch_keys(connection, request, on_trouble=note)
        emit_forever(_event_rows(entries), EVENT_COLUMNS, output)


def _event_rows(entries: Iterator[list[key_value_pb2.KeyValueServiceWatchResponse]]) -> Iterator[Row]:
    for entry in entries:
        for response in entry:
            for event in response.events:
                kind = key_value_pb2.KeyValueEvent.Kind.Name(event.kind)
                name = kind.removeprefix("KIND_").lower()
                yield {"event": name, **_row(event.key_value), "index": entry[-1].index}


def _row(one: key_value_pb2.KeyValue) -> Row:
    try:
        value, encoding = one.value.decode(), "utf-8"
    except UnicodeDecodeError:
        value, encoding = base64.b64encode(one.value).decode(), "base64"
    return {
        "key": one.key,
        "value": value,
        "encoding": encoding,
        "create_revision": one.create_revision,
        "mod_revision": one.mod_revision,
        "version": one.version,
        "ttl_seconds": one.ttl_seconds,
    }
