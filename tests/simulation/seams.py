"""What is rebound in production modules while a simulation runs: PySyncObj's clock, and sizes made tiny.

Invariant: outside `applied` every module is as it was. Sizes are bounds, never rules: a cluster that is right with
megabytes must be right with kilobytes, and then checkpoints, trims and snapshots happen all the time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import cast

import pysyncobj.syncobj as syncobj

from appliance.consensus import flow, log, snapshot
from appliance.node import batch, forwarding, log_sizes, proposals
from appliance.state import checkpoint
from appliance.state.moment import ITEMS_PER_TURN, Moment
from tests.simulation.guards import watched

Owner = ModuleType | FunctionType
Sizes = tuple[tuple[Owner, str, object], ...]

_TINY: tuple[tuple[Owner, str, tuple[object, ...]], ...] = (
    (log_sizes, "MARK_BYTES", (200,)),
    (snapshot, "SNAPSHOT_CHUNK_BYTES", (600, 2_000, 6_000)),
    (batch, "BATCH_BYTES_TARGET", (1_500, 6_000)),
    (batch, "ENTRY_OPERATIONS_MAX", (7, 40)),
    (flow, "PEER_IN_FLIGHT_BYTES_MAX", (4_000,)),
    (log, "LOG_SLICE_ENTRIES_MAX", (5,)),
    (log, "LOG_SLICE_BYTES_MAX", (1_200,)),
    (proposals, "PROPOSALS_PENDING_MAX", (40, 200)),
    (forwarding, "PROPOSALS_PENDING_MAX", (30, 150)),
    (checkpoint, "ITEMS_PER_TURN", (1, 4, ITEMS_PER_TURN)),
    (cast(FunctionType, Moment.capture_some), "__defaults__", ((1,), (4,), (ITEMS_PER_TURN,))),
)
TINIEST: Sizes = tuple((module, name, sizes[0]) for module, name, sizes in _TINY)


def draw_sizes(rng: random.Random) -> Sizes:
    """Each on its own: what is rare with one is common with another."""
    return tuple((module, name, rng.choice(sizes)) for module, name, sizes in _TINY)


@contextmanager
def applied(
    seconds: Callable[[], float], rng: random.Random, sizes: Sizes, counts: Counter[str]
) -> Iterator[None]:
    """seconds: the clock of the machine that is at work. counts: where the guard's rules are counted."""
    rebound: list[tuple[type | Owner, str, object]] = [
        (syncobj, "monotonicTime", seconds),
        (syncobj, "random", rng),
        *watched(counts),
        *sizes,
    ]
    kept = [(module, name, getattr(module, name)) for module, name, _ in rebound]
    for module, name, value in rebound:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
