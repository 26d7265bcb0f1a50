"""policy: how long readings are kept, and what is kept of them afterwards."""

from __future__ import annotations

from typing import Final

import click

from appliance.cli.common import (
    DurationType,
    connect,
    connection_options,
    note,
    output_option,
    parse_bounded_duration,
)
from appliance.cli.output import Row, emit, emit_one
from appliance.client.connection import Connection
from appliance.client.methods import DELETE_POLICY, LIST_POLICIES, SET_POLICY
from appliance.units import Duration, format_duration
from raftberry.v1 import policy_pb2

COLUMNS: Final = ("sensor", "metric", "keep", "roll_ups")
FOR_EVER: Final = "for ever"


class RollUpType(click.ParamType[tuple[int, int]]):
    """`1m:2y`, or `1m` for ever."""

    name = "WIDTH:KEEP"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        width, _, keep = str(value).partition(":")
        try:
            return parse_bounded_duration(width), parse_bounded_duration(keep) if keep else 0
        except ValueError as error:
            self.fail(f"{value!r} is not a roll-up like 1m:2y, or 1m for ever: {error}", param, ctx)


@click.group()
def policy() -> None:
    """How long readings are kept, by SENSOR/METRIC globs; the longest that matches a series decides.

    The last slash divides: 'barn/east/*' is sensor barn/east with all its metrics.

    \b
    Example: raftberry policy set 'greenhouse/*' --keep 90d --rollup 1m:2y
    """


@policy.command(name="set")
@click.argument("series", metavar="SENSOR/METRIC")
@click.option("--keep", type=DurationType(), help="Readings older than this are dropped.  [default: never]")
@click.option(
    "--rollup",
    "roll_ups",
    type=RollUpType(),
    multiple=True,
    help="Keep windows of this width for that long, as in 1m:2y, or 1m for ever; repeatable.",
)
@connection_options
@output_option
def set_policy(
    series: str,
    keep: Duration | None,
    roll_ups: tuple[tuple[int, int], ...],
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> None:
    """Set or replace the policy of a glob. A window is read as METRIC@1m.mean, .min, .max and .count.

    \b
    Examples:
      raftberry policy set 'greenhouse/*' --keep 90d --rollup 1m:2y
      raftberry policy set '*' --keep 2y
    """
    if keep is None and not roll_ups:
        raise click.UsageError(
            "Give --keep, --rollup or both; what ends a policy is raftberry policy delete."
        )
    sensor, metric = split_globs(series)
    wanted = policy_pb2.Policy(
        sensor=sensor,
        metric=metric,
        keep_nano=keep or 0,
        roll_ups=[policy_pb2.RollUp(width_nano=width, keep_nano=kept) for width, kept in roll_ups],
    )
    with connect(endpoints, timeout) as connection:
        response = connection.call(SET_POLICY, policy_pb2.SetPolicyRequest(policy=wanted), is_repeatable=True)
    emit_one(_row(wanted) | {"index": response.index, "term": response.term}, output)


@policy.command(name="list")
@connection_options
@output_option
def list_policies(endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """List the policies, and whether clocks that disagree hold them.

    \b
    Example: raftberry policy list
    """
    with connect(endpoints, timeout) as connection:
        response = connection.call(LIST_POLICIES, policy_pb2.ListPoliciesRequest())
    emit([_row(one) for one in response.policies], COLUMNS, output)
    if response.held:
        note(f"retention is held: {response.held}")


@policy.command()
@click.argument("series", metavar="SENSOR/METRIC")
@connection_options
@output_option
def delete(series: str, endpoints: tuple[str, ...], timeout: Duration, output: str) -> None:
    """Delete the policy of a glob; what it dropped does not come back, its roll-ups stay.

    \b
    Example: raftberry policy delete 'greenhouse/*'
    """
    with connect(endpoints, timeout) as connection:
        sensor, metric = _find(connection, *split_globs(series))
        request = policy_pb2.DeletePolicyRequest(sensor=sensor, metric=metric)
        response = connection.call(DELETE_POLICY, request, is_repeatable=False)
    emit_one({"deleted": f"{sensor}/{metric}", "index": response.index, "term": response.term}, output)


def split_globs(series: str) -> tuple[str, str]:
    """Names of sensors often hold slashes, those of metrics rarely; without one it is a sensor with all its metrics."""
    sensor, _, metric = series.rpartition("/")
    return (sensor, metric or "*") if sensor else (series.rstrip("/"), "*")


def _find(connection: Connection, sensor: str, metric: str) -> tuple[str, str]:
    """The globs of the policy that reads so: the API also makes policies of metrics with a slash."""
    policies = connection.call(LIST_POLICIES, policy_pb2.ListPoliciesRequest()).policies
    alike = [(one.sensor, one.metric) for one in policies if _series(one) == f"{sensor}/{metric}"]
    return (sensor, metric) if (sensor, metric) in alike or not alike else alike[0]


def _series(one: policy_pb2.Policy) -> str:
    return f"{one.sensor}/{one.metric}"


def _row(one: policy_pb2.Policy) -> Row:
    return {
        "series": _series(one),
        "sensor": one.sensor,
        "metric": one.metric,
        "keep": _time(one.keep_nano),
        "roll_ups": [f"{format_duration(each.width_nano)}:{_time(each.keep_nano)}" for each in one.roll_ups],
    }


def _time(keep_ns: int) -> str:
    return format_duration(keep_ns) if keep_ns else FOR_EVER
