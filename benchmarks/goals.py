"""What was to be reached, each goal held against the figures of the same run.

Invariant: a goal without its figures is "not measured", never reached.
"""

from __future__ import annotations

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
    """The limit is factor, or where rival is named, factor times its median of the same quantity."""

    work: str
    goal: str
    load: str
    quantity: str
    factor: float
    rival: str = ""
    rival_load: str = ""
    """Where it is not the same load."""

    is_floor: bool = False
    """The limit is the least there should be, not the most."""

    is_worst: bool = False
    """The worst value counts, not the median."""

    def judge(self, figures: Figures) -> Verdict:
        values = figures.values.get((self.load, self.quantity), {}).get(OURS)
        limit = self._limit(figures)
        if not values or limit is None:
            return Verdict(self.work, self.goal, "not measured", None)
        value = max(values) if self.is_worst else figures.median(self.load, self.quantity, OURS)
        assert value is not None
        unit = QUANTITIES[self.quantity].unit
        measured = f"{number(value)} {unit}; the goal is {number(limit)} here"
        return Verdict(self.work, self.goal, measured, value >= limit if self.is_floor else value <= limit)

    def _limit(self, figures: Figures) -> float | None:
        """None while what it depends on is not measured."""
        if not self.rival:
            return self.factor
        median = figures.median(self.rival_load or self.load, self.quantity, self.rival)
        return None if median is None else self.factor * median


_STREAM = "StreamWrite, 1 reading a message, 64 streams, 8 in flight"
_BULK = "bulk, 1,000 a message, 64 in flight"
_LATEST = "latest, 64 clients, linearizable, after 1 million readings"

# fmt: off
GOALS: Final = (
    Goal("unary, 64 clients", "at least 0.7 of etcd's rate", "unary-64", "rate", 0.7, "etcd", is_floor=True),
    Goal("unary, 1 client", "p50 at most twice etcd's", "unary-1", "p50", 2, "etcd"),
    Goal(
        _STREAM, "twice etcd's unary rate with 64 clients", "stream-1-deep", "rate", 2, "etcd", "unary-64",
        is_floor=True,
    ),
    Goal(_BULK, "2 million readings a second", "bulk-deep", "rate", 2e6, is_floor=True),
    Goal("bytes to the device per reading and node, bulk", "at most 16", "bulk", "device", 16),
    Goal("the same, unary, 64 clients", "half of etcd's", "unary-64", "device", 0.5, "etcd"),
    Goal("the same, unary, 1,000 clients", "a quarter of etcd's", "unary-1000", "device", 0.25, "etcd"),
    Goal("bytes at rest per reading and node", "at most 4.0 of real ones", "real-10000000", "rest", 4.0),
    Goal("RssAnon after 10 million readings", "at most 150 MiB a node", "kept-10000000", "rss", 150),
    Goal(_LATEST, "twice etcd's rate", "latest", "calls", 2, "etcd", is_floor=True),
    Goal("range of 10,000 of 1 million", "at most half of InfluxDB's time", "range", "p50", 0.5, "influxdb"),
    Goal("watch, 100 watchers", "at most etcd's", "watch-100", "p50", 1, "etcd"),
    Goal("failover gap, kill -9", "median at most 0.4 s", "gap-kill", "gap", 0.4),
    Goal("failover gap, kill -9", "worst at most 1.5 s", "gap-kill", "gap", 1.5, is_worst=True),
    Goal("failover gap, leader frozen", "median at most 1.0 s", "gap-freeze", "gap", 1.0),
    Goal("failover gap, leader cut off", "median at most 1.0 s", "gap-cut", "gap", 1.0),
)
# fmt: on


def judge(figures: Figures) -> list[Verdict]:
    return [goal.judge(figures) for goal in GOALS]


def number(value: float) -> str:
    """Three digits that count, or all of a large one."""
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:.3g}"
