"""What was to be reached, each goal held against the figures of the same run.

Invariant: a goal without its figures is "not measured", never reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import QUANTITIES, Figures

OURS: Final = "raftberry"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table of goals."""

    work: str
    goal: str
    measured: str
    is_reached: bool | None
    """None: not measured."""


@dataclass(frozen=True, slots=True)
class Goal:
    """limit: of the figures; None while something that it depends on is not measured."""

    work: str
    goal: str
    load: str
    quantity: str
    limit: Callable[[Figures], float | None]
    is_floor: bool = False
    """The limit is the least there should be, not the most."""

    is_worst: bool = False
    """The worst value counts, not the median."""

    def judge(self, figures: Figures) -> Verdict:
        values = figures.values.get((self.load, self.quantity), {}).get(OURS)
        limit = self.limit(figures)
        if not values or limit is None:
            return Verdict(self.work, self.goal, "not measured", None)
        value = max(values) if self.is_worst else figures.median(self.load, self.quantity, OURS)
        assert value is not None
        unit = QUANTITIES[self.quantity].unit
        measured = f"{number(value)} {unit}; the goal is {number(limit)} here"
        return Verdict(self.work, self.goal, measured, value >= limit if self.is_floor else value <= limit)


def _constant(value: float) -> Callable[[Figures], float | None]:
    return lambda _: value


def _times(factor: float, load: str, quantity: str, system: str) -> Callable[[Figures], float | None]:
    def limit(figures: Figures) -> float | None:
        median = figures.median(load, quantity, system)
        return None if median is None else factor * median

    return limit


GOALS: Final = (
    Goal(
        work="unary, 64 clients",
        goal="at least 0.7 of etcd's rate",
        load="unary-64",
        quantity="rate",
        limit=_times(0.7, "unary-64", "rate", "etcd"),
        is_floor=True,
    ),
    Goal(
        "unary, 1 client", "p50 at most twice etcd's", "unary-1", "p50", _times(2, "unary-1", "p50", "etcd")
    ),
    Goal(
        work="StreamWrite, 1 reading a message, 64 streams, 8 in flight",
        goal="twice etcd's unary rate with 64 clients",
        load="stream-1-deep",
        quantity="rate",
        limit=_times(2, "unary-64", "rate", "etcd"),
        is_floor=True,
    ),
    Goal(
        "bulk, 1,000 a message", "2 million readings a second", "bulk", "rate", _constant(2e6), is_floor=True
    ),
    Goal("bytes to the device per reading and node, bulk", "at most 16", "bulk", "device", _constant(16)),
    Goal(
        work="the same, unary, 64 clients",
        goal="half of etcd's",
        load="unary-64",
        quantity="device",
        limit=_times(0.5, "unary-64", "device", "etcd"),
    ),
    Goal(
        work="the same, unary, 1,000 clients",
        goal="a quarter of etcd's",
        load="unary-1000",
        quantity="device",
        limit=_times(0.25, "unary-1000", "device", "etcd"),
    ),
    Goal(
        "bytes at rest per reading and node",
        "at most 4.0 of real ones",
        "real-10000000",
        "rest",
        _constant(4.0),
    ),
    Goal(
        "RssAnon after 10 million readings", "at most 150 MiB a node", "kept-10000000", "rss", _constant(150)
    ),
    Goal(
        work="latest, 64 clients, linearizable, after 1 million readings",
        goal="twice etcd's rate",
        load="latest",
        quantity="calls",
        limit=_times(2, "latest", "calls", "etcd"),
        is_floor=True,
    ),
    Goal(
        work="range of 10,000 of 1 million",
        goal="at most half of InfluxDB's time",
        load="range",
        quantity="p50",
        limit=_times(0.5, "range", "p50", "influxdb"),
    ),
    Goal("watch, 100 watchers", "at most etcd's", "watch-100", "p50", _times(1, "watch-100", "p50", "etcd")),
    Goal("failover gap, kill -9", "median at most 0.4 s", "gap-kill", "gap", _constant(0.4)),
    Goal("failover gap, kill -9", "worst at most 1.5 s", "gap-kill", "gap", _constant(1.5), is_worst=True),
    Goal("failover gap, leader frozen", "median at most 1.0 s", "gap-freeze", "gap", _constant(1.0)),
    Goal("failover gap, leader cut off", "median at most 1.0 s", "gap-cut", "gap", _constant(1.0)),
)


def judge(figures: Figures) -> list[Verdict]:
    return [goal.judge(figures) for goal in GOALS]


def number(value: float) -> str:
    """Three digits that count, or all of a large one."""
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:.3g}"
