"""drill: how long is nothing acknowledged when a node dies, hangs, is cut off; and is everything there afterwards?

Invariant: whatever ends it, nothing that it started or wrote is left: no process, no directory, no series.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
from click.core import ParameterSource

from appliance.cli.common import (
    DurationType,
    connect,
    connection_options,
    note,
    output_option,
    present_credentials,
)
from appliance.cli.drill.cluster import DrillCluster
from appliance.cli.drill.faults import FAULTS, TRANSFER, Cluster, Faults, Timing
from appliance.cli.drill.foreign import ForeignCluster
from appliance.cli.drill.measuring import tally
from appliance.cli.drill.record import COLUMNS, Record, Setting, Span, is_clean, make_record, rows, verdict
from appliance.cli.drill.report import render
from appliance.cli.main import EXIT_ERROR, EXIT_OK
from appliance.cli.output import emit
from appliance.cli.version import installed_version
from appliance.client.connection import Connection
from appliance.client.methods import DELETE_SERIES, QUERY, TRANSFER_LEADERSHIP
from appliance.client.steady import SteadyLoad
from appliance.errors import NotFound, RaftberryError
from appliance.host.machine import describe_machine
from appliance.units import Duration
from raftberry.v1 import cluster_pb2, reading_pb2

NODES: Final = ("3", "5")
WRITES_PER_SECOND_MAX: Final = 2_000
"""Each acknowledgement is kept until the end: some 200 bytes."""

READ_BACK_TIMEOUT: Final = Duration(120 * 10**9)


def _writable(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Known before minutes of measuring, not behind them."""
    if file is None or file.exists():
        return file
    if not file.parent.is_dir():
        what = "is not a directory" if file.parent.exists() else "does not exist"
        raise click.BadParameter(f"{file}: {file.parent} {what}; name a file in a directory that is there.")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{file}: you may not write into {file.parent}; name a file where you may.")
    return file


_new_file: Final = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.option("--nodes", type=click.Choice(NODES), default="3", show_default=True, help="Of its own cluster.")
@click.option(
    "--fault",
    "names",
    multiple=True,
    type=click.Choice(list(FAULTS)),
    help="Only this one; repeatable.  [default: all, in this order]",
)
@click.option("--hold", type=DurationType(), default="4s", show_default=True, help="How long a fault lasts.")
@click.option(
    "--settle", type=DurationType(), default="3s", show_default=True, help="Undisturbed load around each."
)
@click.option("--clients", type=click.IntRange(1, 64), default=4, show_default=True, help="Unary writers.")
@click.option(
    "--streams", type=click.IntRange(0, 64), default=2, show_default=True, help="Streaming writers."
)
@click.option(
    "--rate",
    type=click.IntRange(1, WRITES_PER_SECOND_MAX),
    default=200,
    show_default=True,
    help="Writes a second, over all of them.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where its own cluster keeps its data, on the disk to measure.  [default: the system's for temporary files]",
)
@click.option("--report", type=_new_file, callback=_writable, help="Also as one page of HTML.")
@click.option("--json", "json_file", type=_new_file, callback=_writable, help="Also all figures as JSON.")
@click.option(
    "--yes-disturb-this-cluster",
    "is_agreed",
    is_flag=True,
    help="With --endpoint: let a cluster in use change its leader under load.",
)
@connection_options
@output_option
@click.pass_context
def drill(context: click.Context, /, **options: Any) -> int:
    """Measure what failures cost: time without acknowledged writes, elections, catching up; lost and double writes.

    Starts a cluster of its own on this machine, in a temporary directory, and under a steady load kills, freezes, cuts
    off and slows its nodes, one after the other. With --endpoint on the command line the cluster there is measured
    instead, and the only fault is a leadership transfer. Exit status 1 if an acknowledged write is lost or one counted
    twice.

    \b
    Example: raftberry drill --nodes 3 --report drill.html
    """
    order = Order(**options)
    is_foreign = context.get_parameter_source("endpoints") is ParameterSource.COMMANDLINE
    if is_foreign and not order.is_agreed:
        raise click.UsageError(
            "This changes the leader of a cluster in use while writing to it; say --yes-disturb-this-cluster."
        )
    if is_foreign and set(order.names) - {TRANSFER}:
        raise click.UsageError(f"On a cluster in use the only fault is {TRANSFER}.")
    with _orderly_end(), ExitStack() as ends:
        record = _drill_theirs(order, ends) if is_foreign else _drill_own(order, ends)
    return _publish(record, order)


@dataclass(frozen=True, slots=True)
class Order:
    """The options of the command line."""

    nodes: str
    names: tuple[str, ...]
    hold: Duration
    settle: Duration
    clients: int
    streams: int
    rate: int
    directory: Path | None
    report: Path | None
    json_file: Path | None
    is_agreed: bool
    endpoints: tuple[str, ...]
    timeout: Duration
    output: str


def _drill_own(order: Order, ends: ExitStack) -> Record:
    cluster = DrillCluster(int(order.nodes), parent=order.directory)
    ends.callback(cluster.close)
    cluster.start()
    note(f"{order.nodes} nodes of its own; what failures cost on a machine that they share")
    connection = ends.enter_context(Connection(cluster.endpoints, timeout_s=READ_BACK_TIMEOUT / 1e9))
    return _drill(order, cluster, connection, order.names or tuple(FAULTS))


def _drill_theirs(order: Order, ends: ExitStack) -> Record:
    connection = ends.enter_context(connect(order.endpoints, order.timeout))
    cluster = ForeignCluster(connection)
    note(f"cluster of {', '.join(cluster.names)}: only its leadership is handed over")
    return _drill(order, cluster, connection, (TRANSFER,), ends=ends)


def _drill(
    order: Order,
    cluster: Cluster,
    connection: Connection,
    names: Sequence[str],
    *,
    ends: ExitStack | None = None,
) -> Record:
    """ends: the series are deleted there, where the cluster stays."""
    load = SteadyLoad(
        connection.endpoints,
        sensor=f"raftberry-drill-{secrets.token_hex(4)}",
        clients=order.clients,
        streams=order.streams,
        writes_per_second=order.rate,
        credentials=present_credentials(),
    )
    if ends is not None:
        ends.callback(_delete_series, connection, load.sensor)

    def transfer(target: str) -> None:
        connection.call(TRANSFER_LEADERSHIP, cluster_pb2.TransferLeadershipRequest(target=target))

    faults = Faults(cluster, load, Timing(order.hold / 1e9, order.settle / 1e9), transfer=transfer)
    load.start()
    try:
        faults.await_well()
        began_s = time.monotonic()
        faults.pause(order.settle / 1e9)
        steady_s = time.monotonic()
        for name in names:
            note(f"{FAULTS[name].title} ...")
            faults.inject(name)
        ended_s = time.monotonic()
        load.stop()
    finally:
        load.stop(patience_s=0.0)
    note("reading back what was acknowledged ...")
    found = {writer: _read_back(connection, load.sensor, writer) for writer in load.writers}
    writes = tally(load.acknowledgements, load.unanswered, found)
    setting = _setting(order, len(cluster.names))
    span = Span(began_s, steady_s, ended_s)
    return make_record(setting, span, faults.done, load.acknowledgements, load.looks, writes)


def _read_back(connection: Connection, sensor: str, writer: str) -> list[int]:
    """Every sequence as often as it is there. A linearizable read."""
    request = reading_pb2.QueryRequest(sensor=sensor, metric=writer)
    return [
        value
        for response in connection.collect(QUERY, request)
        for readings in response.readings
        for value in readings.int_value
    ]


def _delete_series(connection: Connection, sensor: str) -> None:
    try:
        connection.call(DELETE_SERIES, reading_pb2.DeleteSeriesRequest(sensor=sensor, metric="*"))
    except NotFound:
        # Nothing was written before the end came.
        return
    except RaftberryError as error:
        note(f"the series are still there ({error}); delete them: raftberry series delete {sensor} '*'")


def _setting(order: Order, nodes: int) -> Setting:
    return Setting(
        date=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=describe_machine(),
        version=installed_version(),
        command=f"raftberry {shlex.join(sys.argv[1:])}",
        nodes=nodes,
        clients=order.clients,
        streams=order.streams,
        writes_per_second=order.rate,
        hold_s=order.hold / 1e9,
        settle_s=order.settle / 1e9,
    )


def _publish(record: Record, order: Order) -> int:
    """What was measured is shown, whatever becomes of the files, and written, whatever becomes of the pipe."""
    try:
        emit(rows(record), COLUMNS, order.output)
        sys.stdout.flush()
        note(verdict(record))
    finally:
        if order.json_file:
            order.json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        if order.report:
            order.report.write_text(render(record), "utf-8")
    return EXIT_OK if is_clean(record) else EXIT_ERROR


@contextmanager
def _orderly_end() -> Iterator[None]:
    """SIGTERM and SIGHUP end it like Ctrl-C; and while it cleans up, no second one interrupts that."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
