"""sensor: this machine's own sensors, streamed into the cluster."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import closing

import click

from appliance.cli.common import DurationType, connect, connection_options, note
from appliance.client.writer import Batch, ResumingWriter
from appliance.host.sensors import read_sensors
from appliance.units import Duration
from raftberry.v1 import reading_pb2


@click.command()
@click.option("--name", help="Sensor to write as.  [default: the host name]")
@click.option(
    "--interval", type=DurationType(), default="1s", show_default=True, help="Between two readings."
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many.  [default: never]")
@connection_options
def sensor(
    name: str | None, interval: Duration, count: int | None, endpoints: tuple[str, ...], timeout: Duration
) -> None:
    """Stream CPU temperature (where there is a sensor), load, memory, disk and network of this machine.

    Goes on through the next endpoint when a node is lost; what was measured meanwhile follows.

    \b
    Example: raftberry sensor --name pi-1 --interval 5s
    """
    if interval < 10**6:
        raise click.UsageError("--interval is at least 1ms.")
    name = name or platform.node().partition(".")[0]
    note(f"streaming as {name!r} every {interval / 1e9:g} s to {', '.join(endpoints)}; ctrl-C ends it")
    with connect(endpoints, timeout) as connection:
        # A new id for each run: sequences of an earlier run may still be on their way.
        producer_id = f"sensor-{secrets.token_hex(8)}"
        writer = ResumingWriter(connection, producer_id=producer_id, on_trouble=note)
        acknowledged_at = ""
        with closing(writer.acknowledgements(_measure(name, interval, count))) as acknowledgements:
            for one in acknowledgements:
                if one.endpoint != acknowledged_at:
                    acknowledged_at = one.endpoint
                    note(f"{acknowledged_at} acknowledges, at index {one.index}")


def _measure(name: str, interval: Duration, count: int | None) -> Iterator[Batch]:
    """A batch every interval, without drift. Late ones are not made up for: the next is due in time."""
    sequence = 0
    due_ns = time.monotonic_ns()
    while count is None or sequence < count:
        now_ns = time.monotonic_ns()
        if now_ns < due_ns:
            time.sleep((due_ns - now_ns) / 1e9)
        due_ns = max(due_ns, now_ns - interval) + interval
        sequence += 1
        yield Batch(sequence, _take(name, time.time_ns()))


def _take(name: str, time_unix_nano: int) -> list[reading_pb2.Readings]:
    return [
        reading_pb2.Readings(sensor=name, metric=metric, time_unix_nano=[time_unix_nano], value=[value])
        for metric, value in sorted(read_sensors().items())
    ]
