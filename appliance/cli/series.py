"""series: list, set, delete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from appliance.cli.common import (
    CONSISTENCIES,
    connect,
    connection_options,
    consistency_option,
    output_option,
)
from appliance.cli.output import Row, emit, emit_one
from appliance.cli.times import format_time
from appliance.client.methods import DELETE_SERIES, LIST_SERIES, SET_SERIES
from appliance.errors import NotFound
from appliance.units import Duration
from raftberry.v1 import reading_pb2

COLUMNS: Final = (
    "sensor",
    "metric",
    "reading_count",
    "first_time",
    "last_time",
    "size_bytes",
    "unit",
    "labels",
)


@click.group(invoke_without_command=True)
@consistency_option
@connection_options
@output_option
@click.pass_context
def series(
    context: click.Context, consistency: str, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """List series; set their unit and labels; delete them. Alone it lists all.

    \b
    Example: raftberry series list 'kitchen*'
    """
    if context.invoked_subcommand is None:
        _list("*", "*", consistency, endpoints, timeout, output)


@series.command("list")
@click.argument("sensor", default="*")
@click.argument("metric", default="*")
@consistency_option
@connection_options
@output_option
def list_series(
    sensor: str, metric: str, consistency: str, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """List the series that match the globs SENSOR and METRIC (default: all)."""
    _list(sensor, metric, consistency, endpoints, timeout, output)


@series.command("set")
@click.argument("sensor")
@click.argument("metric")
@click.option("--unit", default="", help="Unit of the values, such as Cel or %.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@connection_options
@output_option
def set_series(
    sensor: str,
    metric: str,
    unit: str,
    labels: tuple[str, ...],
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Set unit and labels of a series, once: other values later are refused.

    \b
    Example: raftberry series set kitchen temperature --unit Cel --label floor=1
    """
    if not unit and not labels:
        raise click.UsageError("Give --unit, --label or both: they can be set only once.")
    pairs = dict(_split_label(label) for label in labels)
    request = reading_pb2.SetSeriesRequest(sensor=sensor, metric=metric, unit=unit, labels=pairs)
    with connect(endpoints, timeout) as connection:
        # Setting the same again changes nothing, so it may be repeated.
        response = connection.call(SET_SERIES, request)
    emit_one({"index": response.index, "term": response.term}, output)


@series.command("delete")
@click.argument("sensor")
@click.argument("metric")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options
@output_option
def delete_series(
    sensor: str, metric: str, yes: bool, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """Delete the series that match the globs SENSOR and METRIC, with all their readings.

    \b
    Example: raftberry series delete kitchen '*'
    """
    if not yes:
        click.confirm(f"Delete all readings of {sensor!r} {metric!r}?", abort=True, err=True)
    request = reading_pb2.DeleteSeriesRequest(sensor=sensor, metric=metric)
    with connect(endpoints, timeout) as connection:
        response = connection.call(DELETE_SERIES, request, is_repeatable=False)
    row: Row = {"series_count": response.series_count, "index": response.index, "term": response.term}
    emit_one(row, output)
    if not response.series_count:
        raise NotFound(f"no series matches {sensor!r} {metric!r}")


def _list(
    sensor: str, metric: str, consistency: str, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    request = reading_pb2.ListSeriesRequest(
        sensor=sensor, metric=metric, consistency=CONSISTENCIES[consistency]
    )
    with connect(endpoints, timeout) as connection:
        emit(_rows(connection.collect(LIST_SERIES, request)), COLUMNS, output)


def _rows(responses: list[reading_pb2.ListSeriesResponse]) -> Iterator[Row]:
    for response in responses:
        for one in response.series:
            has_times = one.reading_count > 0
            yield {
                "sensor": one.sensor,
                "metric": one.metric,
                "reading_count": one.reading_count,
                "first_time": format_time(one.first_time_unix_nano) if has_times else None,
                "last_time": format_time(one.last_time_unix_nano) if has_times else None,
                "size_bytes": one.size_bytes,
                "unit": one.unit,
                "labels": dict(sorted(one.labels.items())),
                "integer": one.integer,
            }


def _split_label(label: str) -> tuple[str, str]:
    key, separator, value = label.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{label!r} is not KEY=VALUE.", param_hint="--label")
    return key, value
