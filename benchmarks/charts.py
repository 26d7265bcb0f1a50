"""Charts of the figures as SVG, one question each.

Invariant: the same figures make the same bytes, so that a chart changes when a figure does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import Figures
from benchmarks.goals import number

COLOURS: Final = {
    "raftberry": "#c2185b",
    "etcd": "#3b6ea5",
    "etcd-500ms": "#8fb4d9",
    "nats": "#4f9d69",
    "influxdb": "#8e6bbf",
    "redis": "#d98a3d",
}
NAMES: Final = {
    "nats": "nats (not flushed)",
    "influxdb": "influxdb (one node)",
    "redis": "redis (replicas not flushed)",
}
"""An acknowledgement of these means less, which the legend says."""

STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "raftberry",
    # Text stays text: a tenth of the size, and it can be searched.
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of one quantity: a group for each load, a bar for each system."""

    name: str
    title: str
    axis: str
    quantity: str
    loads: tuple[tuple[str, str], ...]
    """(load, label)."""

    is_log: bool = False


CHARTS: Final = (
    Chart(
        *("unary", "Single readings: more is better", "readings/s", "rate"),
        (
            ("unary-1", "1 client"),
            ("unary-16", "16"),
            ("unary-64", "64"),
            ("unary-256", "256"),
            ("unary-1000", "1,000"),
        ),
    ),
    Chart(
        *(
            "many",
            "Streams and bulk: more is better",
            "readings/s (log scale)",
            "rate",
        ),
        (
            ("stream-1-deep", "64 streams,\n1 a message"),
            ("stream-10", "10"),
            ("stream-100", "100"),
            ("stream-1000", "1,000"),
            ("bulk", "bulk,\none sensor\na message"),
            ("bulk-deep", "bulk,\n64 in flight"),
            ("bulk-many", "bulk,\n1,000 sensors\na message"),
        ),
        True,
    ),
    Chart(
        *("latency", "Time of one write: less is better", "p50, ms (log scale)", "p50"),
        (("unary-1", "1 client"), ("unary-64", "64 clients"), ("unary-256", "256 clients")),
        True,
    ),
    Chart(
        *("cpu", "CPU of all nodes: less is better", "s per 100,000 readings (log)", "cpu"),
        (
            ("unary-64", "unary, 64"),
            ("stream-1-deep", "streams"),
            ("stream-100", "100 a message"),
            ("bulk", "bulk"),
        ),
        True,
    ),
    Chart(
        *("wear", "Written to the device: less is better", "bytes per reading and node (log)", "device"),
        (
            ("unary-1", "unary, 1"),
            ("unary-64", "64"),
            ("unary-1000", "1,000"),
            ("stream-100", "100 a message"),
            ("bulk", "bulk"),
        ),
        True,
    ),
    Chart(
        *("failover", "No write acknowledged: less is better", "seconds, median", "gap"),
        (("gap-kill", "leader killed"), ("gap-freeze", "frozen"), ("gap-cut", "cut off")),
    ),
    Chart(
        *("watch", "From a write to the last watcher: less is better", "p50, ms", "p50"),
        (("watch-1", "1 watcher"), ("watch-100", "100"), ("watch-1000", "1,000")),
        True,
    ),
    Chart(
        *("read", "Reading back, one million readings: less is better", "p50, ms", "p50"),
        (
            ("latest", "latest,\n64 clients"),
            ("range", "range of\n10,000"),
            ("aggregate", "means over\n90,000"),
        ),
        True,
    ),
)


def draw(figures: Figures, folder: Path) -> list[Path]:
    """performance-NAME.svg of each chart that has figures; what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(STYLE):
        for chart in CHARTS:
            loads = [one for one in chart.loads if (one[0], chart.quantity) in figures.values]
            if loads:
                written.append(_draw_one(figures, chart, loads, folder / f"performance-{chart.name}.svg"))
    return written


def _draw_one(figures: Figures, chart: Chart, loads: Sequence[tuple[str, str]], path: Path) -> Path:
    systems = [
        name for name in COLOURS if any(name in figures.values[load, chart.quantity] for load, _ in loads)
    ]
    figure = Figure(figsize=(8.2, 3.4), facecolor="white", layout="constrained")
    axes: Axes = figure.add_subplot()
    width = 0.84 / len(systems)
    for place, system in enumerate(systems):
        for group, (load, _) in enumerate(loads):
            value = figures.median(load, chart.quantity, system)
            if value is None:
                continue
            left = group - 0.42 + width * (place + 0.5)
            label = (
                NAMES.get(system, system) if group == _first_group(figures, chart, loads, system) else None
            )
            values = figures.values[load, chart.quantity][system]
            axes.bar(left, value, width * 0.92, color=COLOURS[system], label=label)
            axes.vlines(left, min(values), max(values), color="#333333", linewidth=0.8)
            axes.annotate(
                *(number(value), (left, max(values))),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90 if len(systems) * len(loads) > 12 else 0,
                fontsize=6.5,
            )
    axes.set_xticks(range(len(loads)), [label for _, label in loads])
    axes.set_title(chart.title, loc="left", fontweight="bold")
    axes.set_ylabel(chart.axis)
    if chart.is_log:
        axes.set_yscale("log")
    axes.margins(y=0.22)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=len(systems), frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path


def _first_group(figures: Figures, chart: Chart, loads: Sequence[tuple[str, str]], system: str) -> int:
    return next(
        group for group, (load, _) in enumerate(loads) if system in figures.values[load, chart.quantity]
    )
