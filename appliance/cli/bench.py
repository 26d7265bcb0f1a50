"""bench: how fast is this cluster for its users, and how fast could it be on this machine?

Invariant: it writes only into series of its own, no more than it was allowed, and deletes them at its end, also when
it is interrupted.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from appliance.cli.common import CONSISTENCIES, DurationType, connect, connection_options, note, output_option
from appliance.cli.output import Row, emit
from appliance.client.connection import Connection
from appliance.client.measure import Measured, measure_calls, measure_stream, measure_watch
from appliance.client.methods import DELETE_SERIES, GET_LATEST, GET_STATUS, QUERY, WRITE
from appliance.errors import NoLeader, RaftberryError
from appliance.host.disk import sync_latencies_s
from appliance.units import Duration
from raftberry.v1 import cluster_pb2, reading_pb2

COUNTED_S: Final = 5.2
"""A node looks every five seconds at what it has sent to disks."""

COLUMNS: Final = ("work", "per_second", "unit", "p50_ms", "p99_ms", "compared")
STREAM_READINGS: Final = 1_000
RANGE_READINGS: Final = 10_000
SYNCS: Final = 100
WATCH_EVENTS: Final = 100
STEP_NS: Final = 1_000_000_000


@click.command()
@click.option("--clients", type=click.IntRange(1, 64), default=8, show_default=True, help="For unary calls.")
@click.option(
    "--for", "duration", type=DurationType(), default="5s", show_default=True, help="Of each measurement."
)
@click.option(
    "--readings-max",
    type=click.IntRange(20_000, 100_000_000),
    default=2_000_000,
    show_default=True,
    help="Streams write no more than this.",
)
@click.option(
    "--disk",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Also time fdatasync here: the data directory's disk, if a node runs on this machine.",
)
@connection_options
@output_option
def bench(
    clients: int,
    duration: Duration,
    readings_max: int,
    disk: Path | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Measure writes, streams, reads and watches against the running cluster.

    Safe on a cluster in use: the readings go into series of their own (raftberry-bench-...), are bounded in number and
    are deleted at the end. `compared` sets each figure beside what this machine can do at best: a call that does
    nothing, and the disk's own fdatasync (--disk).

    \b
    Example: raftberry bench --for 10s --disk /var/lib/raftberry
    """
    with connect(endpoints, timeout) as connection:
        status = connection.call(GET_STATUS, cluster_pb2.GetStatusRequest())
        if not status.has_quorum:
            raise NoLeader(
                "the cluster has no quorum: nothing was measured or written; see `raftberry status`"
            )
        one = Bench(connection, connection.in_order()[0], clients=clients, seconds=duration / 1e9)
        note(f"series {one.sensor} through {one.endpoint}, leader {status.leader}, {len(status.peers)} nodes")
        rows: list[Row] = []
        with one.cleaned_up():
            for row in one.rows(readings_max, disk):
                rows.append(row)
                note(f"{row['work']}: {row['per_second']} {row['unit']}, p50 {row['p50_ms']} ms")
            time.sleep(COUNTED_S)
            sent_bytes = one.status().written_bytes - status.written_bytes
    emit(rows, COLUMNS, output)
    sys.stdout.flush()
    note(
        f"{status.name} sent {sent_bytes:,} bytes to its disk meanwhile, {sent_bytes / one.written_count:.0f} for each "
        f"of the {one.written_count:,} readings written here, all else that the cluster did included"
    )
    if one.was_limited:
        note(
            "(client) marks what this command itself limited: one Python process; more of them would show more"
        )


class Bench:
    """One run through one node."""

    def __init__(self, connection: Connection, endpoint: str, *, clients: int, seconds: float) -> None:
        self.endpoint = endpoint
        self.sensor = f"raftberry-bench-{secrets.token_hex(4)}"
        self.was_limited = False
        self.written_count = 0
        """Readings, in all measurements."""
        self._connection, self._clients, self._seconds = connection, clients, seconds
        self._began_ns = time.time_ns()

    @contextmanager
    def cleaned_up(self) -> Iterator[None]:
        """Whatever happens in the body, the series are deleted, or the user hears how."""
        try:
            yield
        finally:
            request = reading_pb2.DeleteSeriesRequest(sensor=self.sensor, metric="*")
            try:
                self._connection.call(DELETE_SERIES, request)
            except RaftberryError as error:
                note(
                    f"the series are still there ({error}); delete them: raftberry series delete {self.sensor} '*'"
                )

    def rows(self, readings_max: int, disk: Path | None) -> Iterator[Row]:
        sync = self._sync(disk) if disk else None
        if sync is not None:
            yield self._row(f"fdatasync of 4 KiB in {disk}", "syncs/s", sync)
        empty = measure_calls(self._empty_call, clients=1, seconds=self._seconds)
        yield self._row("status, 1 client (no disk, no other node)", "calls/s", empty)
        alone = measure_calls(self._write_one, clients=1, seconds=self._seconds)
        yield self._row("write, 1 client", "readings/s", alone, (empty, "a call"), (sync, "a sync"))
        many = measure_calls(self._write_one, clients=self._clients, seconds=self._seconds)
        yield self._row(f"write, {self._clients} clients", "readings/s", many, (alone, "one client's"))
        stream = measure_stream(
            self._connection,
            self.endpoint,
            self._message,
            in_flight=16,
            seconds=self._seconds,
            items_per_message=STREAM_READINGS,
            messages_max=readings_max // STREAM_READINGS,
        )
        self.written_count = alone.items + many.items + stream.items
        yield self._row(f"stream, {STREAM_READINGS} a message, 16 in flight", "readings/s", stream)
        for consistency in CONSISTENCIES:
            call = self._latest(consistency)
            latest = measure_calls(call, clients=self._clients, seconds=self._seconds)
            yield self._row(
                f"latest, {consistency}, {self._clients} clients", "calls/s", latest, (empty, "a call")
            )
        query = measure_calls(self._query, clients=1, seconds=self._seconds)
        yield self._row(f"query of up to {RANGE_READINGS} readings", "readings/s", query)
        request = reading_pb2.WatchRequest(sensor=self.sensor, metric="watched")
        watch = measure_watch(
            self._connection,
            self.endpoint,
            request,
            lambda number: self._write("watched", number),
            events=WATCH_EVENTS,
        )
        self.written_count += watch.items
        yield self._row("watch, from write to event", "events/s", watch, (alone, "a write"))

    def _row(self, work: str, unit: str, measured: Measured, *floors: tuple[Measured | None, str]) -> Row:
        p50_ms = measured.quantile_ms(0.5)
        compared = [
            f"{p50_ms / base:.1f} x {name}"
            for floor, name in floors
            if floor and (base := floor.quantile_ms(0.5))
        ]
        if measured.is_client_limited:
            self.was_limited = True
            compared.append("(client)")
        return {
            "work": work,
            "per_second": round(measured.per_second()),
            "unit": unit,
            "p50_ms": round(p50_ms, 3),
            "p99_ms": round(measured.quantile_ms(0.99), 3),
            "compared": ", ".join(compared),
        }

    def _sync(self, disk: Path) -> Measured:
        latencies_s = sync_latencies_s(disk, count=SYNCS)
        return Measured(seconds=sum(latencies_s), items=SYNCS, latencies_s=latencies_s)

    def status(self) -> cluster_pb2.GetStatusResponse:
        request = cluster_pb2.GetStatusRequest()
        return self._connection.call_at(
            self.endpoint, GET_STATUS, request, timeout_s=self._connection.timeout_s
        )

    def _empty_call(self, _client: int, _number: int) -> int:
        self.status()
        return 1

    def _write_one(self, client: int, number: int) -> int:
        self._write(f"client-{client}", number)
        return 1

    def _write(self, metric: str, number: int) -> None:
        readings = reading_pb2.Readings(
            sensor=self.sensor, metric=metric, time_unix_nano=[time.time_ns()], value=[20 + number % 50 / 10]
        )
        request = reading_pb2.WriteRequest(readings=[readings])
        self._connection.call_at(self.endpoint, WRITE, request, timeout_s=self._connection.timeout_s)

    def _message(self, number: int) -> reading_pb2.StreamWriteRequest:
        """A sensor's last thousand seconds, with the small steps that sensors make."""
        first = self._began_ns + number * STREAM_READINGS * STEP_NS
        readings = reading_pb2.Readings(
            sensor=self.sensor,
            metric=f"stream-{number % 8}",
            time_unix_nano=range(first, first + STREAM_READINGS * STEP_NS, STEP_NS),
            value=[20 + (number + step) % 50 / 10 for step in range(STREAM_READINGS)],
        )
        return reading_pb2.StreamWriteRequest(readings=[readings])

    def _latest(self, consistency: str) -> Callable[[int, int], int]:
        request = reading_pb2.GetLatestRequest(
            sensor=self.sensor, metric="client-0", consistency=CONSISTENCIES[consistency]
        )

        def call(_client: int, _number: int) -> int:
            for _ in self._connection.stream_at(self.endpoint, GET_LATEST, request):
                pass
            return 1

        return call

    def _query(self, _client: int, _number: int) -> int:
        request = reading_pb2.QueryRequest(sensor=self.sensor, metric="stream-0", limit=RANGE_READINGS)
        responses = self._connection.stream_at(self.endpoint, QUERY, request)
        return sum(len(readings.time_unix_nano) for response in responses for readings in response.readings)
