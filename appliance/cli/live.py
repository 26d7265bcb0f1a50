"""The live view: who leads, readings a second, the lag of each node, the last values.

On a terminal it redraws in place; elsewhere it prints a plain snapshot every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from appliance import errors
from appliance.cli import survey
from appliance.cli.common import connect
from appliance.cli.main import EXIT_NO_QUORUM, EXIT_OK
from appliance.cli.output import Row, human_size, reading_rows, render_table
from appliance.client.connection import Connection
from appliance.client.methods import GET_LATEST
from appliance.units import Duration
from raftberry.v1 import reading_pb2

ANSWER_TIMEOUT_S: Final = 1.0
SNAPSHOT_INTERVAL_S: Final = 5.0
"""Between two snapshots where there is no terminal, so that a log stays readable."""

VALUES_MAX: Final = 15
"""Latest values shown; more would push the nodes off the screen."""

NODE_COLUMNS: Final = (
    "name",
    "role",
    "term",
    "applied_index",
    "lag",
    "readings_per_second",
    "store_size_bytes",
)
VALUE_COLUMNS: Final = ("sensor", "metric", "value", "time")
ROLE_STYLES: Final = {"leader": "bold green", "unreachable": "bold red", "quarantined": "bold red"}


class View:
    """One look at the cluster."""

    def __init__(self, answers: Sequence[survey.Answer], values: Sequence[Row], value_count: int) -> None:
        self.nodes = survey.rows(answers)
        self.alarms = survey.alarms(answers)
        self.has_quorum = survey.has_quorum(answers)
        self.values = values
        self.value_count = value_count
        leader = survey.leader_of(answers)
        self.headline = "no leader"
        if leader is not None:
            rate = leader.readings_per_second
            self.headline = (
                f"{leader.name} leads in term {leader.term}, {rate:,.1f} readings/s, "
                f"{leader.reading_count:,} readings in {leader.series_count:,} series"
            )

    def as_text(self) -> str:
        """The look as plain lines."""
        parts = [f"{time.strftime('%H:%M:%S')} {self.headline}", render_table(self.nodes, NODE_COLUMNS)]
        if self.values:
            parts.append(render_table(self.values, VALUE_COLUMNS))
        return "\n".join([*parts, *(f"alarm: {alarm}" for alarm in self.alarms)]) + "\n"

    def as_renderable(self) -> Group:
        """The look for a terminal."""
        parts: list[Panel | Table | Text] = [Panel(self.headline, title="raftberry", expand=True)]
        parts.append(_node_table(self.nodes))
        parts.append(_value_table(self.values, self.value_count))
        parts += [Text(f"alarm: {alarm}", style="bold red") for alarm in self.alarms]
        return Group(*parts, Text("ctrl-C ends the view", style="dim"))


def show(endpoints: Sequence[str], *, interval: Duration, duration: Duration | None) -> int:
    """Show looks until the duration is over or ctrl-C; the exit status tells whether the last had a quorum."""
    deadline = time.monotonic() + (duration / 1e9 if duration is not None else float("inf"))
    is_terminal = sys.stdout.isatty()
    pause_s = interval / 1e9 if is_terminal else max(SNAPSHOT_INTERVAL_S, interval / 1e9)
    with (
        survey.Survey(endpoints, timeout_s=ANSWER_TIMEOUT_S) as nodes,
        connect(endpoints, Duration(int(ANSWER_TIMEOUT_S * 1e9))) as connection,
    ):

        def look() -> View:
            answers = nodes.ask()
            for one in answers:
                if one.status is not None:
                    connection.prefer(one.endpoint)
            rows = _latest_values(connection)
            return View(answers, rows[:VALUES_MAX], len(rows))

        try:
            if is_terminal:
                with Live(console=Console(), auto_refresh=False, screen=False) as display:
                    return _repeat(look, lambda view: _draw(display, view), pause_s, deadline)
            return _repeat(look, lambda view: click.echo(view.as_text()), pause_s, deadline)
        except KeyboardInterrupt:
            return EXIT_OK


def _repeat(look: Callable[[], View], draw: Callable[[View], None], pause_s: float, deadline: float) -> int:
    while True:
        view = look()
        draw(view)
        if time.monotonic() + pause_s >= deadline:
            time.sleep(max(0.0, deadline - time.monotonic()))
            return EXIT_OK if view.has_quorum else EXIT_NO_QUORUM
        time.sleep(pause_s)


def _draw(display: Live, view: View) -> None:
    display.update(view.as_renderable(), refresh=True)


def _latest_values(connection: Connection) -> list[Row]:
    """The latest readings as one node has them, newest first; none while no node answers."""
    request = reading_pb2.GetLatestRequest(consistency=reading_pb2.CONSISTENCY_LOCAL)
    try:
        responses = connection.collect(GET_LATEST, request)
    except errors.RaftberryError:
        return []
    rows = [row for response in responses for one in response.readings for row in reading_rows(one)]
    return sorted(
        rows, key=lambda row: (-_number(row["time_unix_nano"]), str(row["sensor"]), str(row["metric"]))
    )


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _node_table(nodes: Sequence[Row]) -> Table:
    table = Table(expand=True)
    for title in ("node", "role", "term", "applied", "lag", "readings/s", "store"):
        table.add_column(title, justify="left" if title in ("node", "role") else "right")
    for row in nodes:
        size, rate = row["store_size_bytes"], row["readings_per_second"]
        role = str(row["role"])
        cells = [
            str(row["name"]),
            role,
            *("-" if row[key] is None else f"{row[key]:,}" for key in ("term", "applied_index", "lag")),
            f"{rate:,.1f}" if isinstance(rate, float) else "-",
            human_size(size) if isinstance(size, int) else "-",
        ]
        table.add_row(*cells, style=ROLE_STYLES.get(role, ""))
    return table


def _value_table(values: Sequence[Row], value_count: int) -> Table:
    more = f"; {value_count - len(values):,} more: raftberry latest" if value_count > len(values) else ""
    table = Table(expand=True, title=f"latest values{more}", title_justify="left")
    for title in VALUE_COLUMNS:
        table.add_column(title, justify="right" if title == "value" else "left")
    for row in values:
        value = row["value"]
        text = f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        table.add_row(str(row["sensor"]), str(row["metric"]), text, str(row["time"]))
    return table
