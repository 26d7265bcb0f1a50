"""write, latest, query, watch: readings from the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Final

import click

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
)
from appliance.cli.output import Row, emit, emit_forever, emit_one, reading_rows
from appliance.cli.times import TIME_UNIX_NANO_MIN, format_time, parse_time_or_age
from appliance.cli.values import parse_value
from appliance.client.connection import Connection
from appliance.client.methods import GET_LATEST, LIST_SERIES, QUERY, WRITE
from appliance.client.watcher import watch_readings
from appliance.errors import NotFound
from appliance.units import Duration
from raftberry.v1 import reading_pb2

COLUMNS: Final = ("time", "sensor", "metric", "value")

AGGREGATIONS: Final = {
    name.removeprefix("AGGREGATION_").lower(): name
    for name, number in reading_pb2.Aggregation.items()
    if number
}


class TimeType(click.ParamType[int]):
    """A time as times.parse_time_or_age takes it; gives nanoseconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_time_or_age(str(value), now_unix_nano=time.time_ns())
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=ValueCommand)
@click.argument("sensor")
@click.argument("metric")
@click.argument("value")
@click.option(
    "--time",
    "time_unix_nano",
    type=TimeType(),
    help="ISO 8601, epoch seconds or nanoseconds, or -1h.  [default: when it arrives]",
)
@click.option("--integer", is_flag=True, help="Keep the value as a 64-bit integer.")
@producer_options
@connection_options
@output_option
def write(
    sensor: str,
    metric: str,
    value: str,
    time_unix_nano: int | None,
    integer: bool,
    producer: str | None,
    sequence: int | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Write one reading; returns when it is on disk on a majority.

    \b
    Example: raftberry write kitchen temperature 21.5
    """
    require_producer_pair(producer, sequence)
    readings = reading_pb2.Readings(sensor=sensor, metric=metric)
    try:
        number = parse_value(value, is_integer=integer)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="VALUE") from error
    if integer:
        readings.int_value.append(int(number))
    else:
        readings.value.append(number)
    if time_unix_nano is not None:
        readings.time_unix_nano.append(time_unix_nano)
    request = reading_pb2.WriteRequest(
        readings=[readings], producer_id=producer or "", sequence=sequence or 0
    )
    with connect(endpoints, timeout) as connection:
        response = connection.call(WRITE, request, is_repeatable=sequence is not None)
    emit_one({"index": response.index, "term": response.term, "duplicate": response.duplicate}, output)


@click.command()
@click.argument("sensor", default="*")
@click.argument("metric", default="*")
@consistency_option
@connection_options
@output_option
def latest(
    sensor: str, metric: str, consistency: str, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """Show the latest reading of each series that matches the globs SENSOR and METRIC (default: all).

    \b
    Example: raftberry latest 'kitchen*' temperature -o json
    """
    request = reading_pb2.GetLatestRequest(
        sensor=sensor, metric=metric, consistency=CONSISTENCIES[consistency]
    )
    with connect(endpoints, timeout) as connection:
        responses = connection.collect(GET_LATEST, request)
    rows = [row for response in responses for readings in response.readings for row in reading_rows(readings)]
    emit(rows, COLUMNS, output)
    if not rows:
        raise NotFound(f"no series matches {sensor!r} {metric!r}")


@click.command()
@click.argument("sensor", default="*")
@click.argument("metric", default="*")
@click.option("--start", type=TimeType(), help="From this time on: ISO 8601, epoch, or -1h.  [default: all]")
@click.option("--end", type=TimeType(), help="Before this time.  [default: all]")
@click.option(
    "--last", type=DurationType(is_bounded=False), help="The last 10m, 1h, 7d: short for --start -10m."
)
@click.option(
    "--limit", type=click.IntRange(0, 2**32 - 1), default=0, help="Per series.  [default: no limit]"
)
@click.option("--descending", is_flag=True, help="Newest first.")
@click.option(
    "--aggregate",
    "aggregations",
    multiple=True,
    type=click.Choice(list(AGGREGATIONS)),
    help="Reduce each window to one value; repeatable.  [default: raw readings]",
)
@click.option("--step", type=DurationType(), help="Width of a window.  [default: the whole range]")
@click.option("--quantile", type=click.FloatRange(0, 1), help="For percentile.  [default: 0.5]")
@consistency_option
@connection_options
@output_option
def query(
    sensor: str,
    metric: str,
    start: int | None,
    end: int | None,
    last: Duration | None,
    limit: int,
    descending: bool,
    aggregations: tuple[str, ...],
    step: Duration | None,
    quantile: float | None,
    consistency: str,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Show readings of the series that match the globs SENSOR and METRIC (default: all).

    \b
    Example: raftberry query kitchen temperature --last 1h --aggregate mean --step 1m
    """
    if last is not None and start is not None:
        raise click.UsageError("--last and --start exclude each other.")
    if step and not aggregations:
        raise click.UsageError("--step needs --aggregate.")
    if quantile is not None and "percentile" not in aggregations:
        raise click.UsageError("--quantile needs --aggregate percentile.")
    if last is not None:
        start = max(time.time_ns() - last, TIME_UNIX_NANO_MIN)
    if start is not None and end is not None and end < start:
        raise click.UsageError(
            f"--end {format_time(end)} lies before the start, {format_time(start)}; give an end behind it."
        )
    request = reading_pb2.QueryRequest(
        sensor=sensor,
        metric=metric,
        limit=limit,
        descending=descending,
        aggregations=[AGGREGATIONS[name] for name in aggregations],
        quantile=(0.5 if quantile is None else quantile) if "percentile" in aggregations else 0,
        step_nano=step or 0,
        consistency=CONSISTENCIES[consistency],
        start_time_unix_nano=start,
        end_time_unix_nano=end,
    )
    columns = ("time", "sensor", "metric", "aggregation", "value") if aggregations else COLUMNS
    with connect(endpoints, timeout) as connection:
        rows = _query_rows(connection.stream(QUERY, request))
        first = next(rows, None)
        emit(() if first is None else chain((first,), rows), columns, output)
        if first is None:
            _explain_nothing(connection, request)


@click.command()
@click.argument("sensor", default="*")
@click.argument("metric", default="*")
@click.option(
    "--after",
    type=click.IntRange(0, COUNTER_MAX),
    help="Resume behind this index; 0: all that is kept.  [default: from now]",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many readings.  [default: never]")
@connection_options
@output_option
def watch(
    sensor: str,
    metric: str,
    after: int | None,
    count: int | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Show readings as they are committed; goes on through the next endpoint when a node is lost.

    \b
    Example: raftberry watch 'kitchen*' -o jsonl
    """
    request = reading_pb2.WatchRequest(sensor=sensor, metric=metric, after_index=after)
    with connect(endpoints, timeout) as connection:
        rows = (
            {**row, "index": entry[-1].index}
            for entry in watch_readings(connection, request, on_trouble=note)
            for response in entry
            for readings in response.readings
            for row in reading_rows(readings)
        )
        emit_forever(_first(rows, count), (*COLUMNS, "index"), output)


def _explain_nothing(connection: Connection, asked: reading_pb2.QueryRequest) -> None:
    """NotFound where there is no such series."""
    request = reading_pb2.ListSeriesRequest(
        sensor=asked.sensor, metric=asked.metric, consistency=asked.consistency
    )
    if not any(response.series for response in connection.stream(LIST_SERIES, request)):
        raise NotFound(f"no series matches {asked.sensor!r} {asked.metric!r}")
    note("no readings in this span")


def _query_rows(responses: Iterator[reading_pb2.QueryResponse]) -> Iterator[Row]:
    for response in responses:
        aggregation = reading_pb2.Aggregation.Name(response.aggregation)
        name = aggregation.removeprefix("AGGREGATION_").lower() if response.aggregation else "raw"
        for readings in response.readings:
            for row in reading_rows(readings):
                yield {**row, "aggregation": name} if response.aggregation else row


def _first(rows: Iterator[Row], count: int | None) -> Iterator[Row]:
    """At most count rows; the watch is not asked for one more."""
    for number, row in enumerate(rows, start=1):
        yield row
        if number == count:
            return
