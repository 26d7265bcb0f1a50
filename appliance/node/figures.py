"""Figures of a node that only metrics want: counters since its start, what waits, why it refuses writes.

Values only. A node that stands by has the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.errors import NotApplied
from appliance.node.core import NodeCore
from appliance.node.meter import COMMIT_BOUNDS_NS, Histogram
from appliance.node.turns import Turns
from raftberry.internal.v1 import command_pb2


@dataclass(frozen=True, slots=True)
class Figures:
    commits: Histogram = field(default_factory=lambda: Histogram(COMMIT_BOUNDS_NS))
    """Durations of the journal's commits."""

    readings_applied_count: int = 0
    event_counts: Mapping[str, int] = field(default_factory=dict)
    """Consensus events by kind."""

    dropped_counts: Mapping[str, int] = field(default_factory=dict)
    """Frames that the guard dropped, by reason."""

    watch_count: int = 0
    store_bytes_max: int = 0
    loop_turn_longest_ns: Mapping[str, int] = field(default_factory=dict)
    loop_turn_long_counts: Mapping[str, int] = field(default_factory=dict)
    """See Turns."""

    write_refusal: str = ""
    """Why this node takes no writes although it is served; empty: it takes them."""


def figures(core: NodeCore, turns: Turns, *, watch_count: int) -> Figures:
    return Figures(
        commits=core.pipeline.durations,
        readings_applied_count=core.writes.reading_count,
        event_counts=core.events.counts,
        dropped_counts=core.engine.dropped_count,
        watch_count=watch_count,
        store_bytes_max=core.options.store_bytes_max,
        loop_turn_longest_ns=turns.longest_ns(),
        loop_turn_long_counts=turns.long_counts,
        write_refusal=_write_refusal(core),
    )


def _write_refusal(core: NodeCore) -> str:
    """Asked of the same check that a write has to pass."""
    try:
        core.housekeeping.check_space(command_pb2.Operation(write=command_pb2.WriteReadings()))
    except NotApplied as error:
        return str(error)
    return ""
