"""What is rebound in production modules while a simulation runs: PySyncObj's clock, and sizes made tiny.

Invariant: outside `applied` every module is as it was. Sizes are bounds, never rules: a cluster that is right with
megabytes must be right with kilobytes, and then checkpoints, trims and snapshots happen all the time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pysyncobj.syncobj as syncobj

from appliance.consensus import flow, log, snapshot
from appliance.node import batch, forwarding, log_sizes, proposals

_TINY: tuple[tuple[ModuleType, str, int], ...] = (
    (log_sizes, "MARK_BYTES", 200),
    (snapshot, "SNAPSHOT_CHUNK_BYTES", 600),
    (batch, "BATCH_BYTES_TARGET", 1_500),
    (batch, "ENTRY_OPERATIONS_MAX", 7),
    (flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000),
    (log, "LOG_SLICE_ENTRIES_MAX", 5),
    (log, "LOG_SLICE_BYTES_MAX", 1_200),
    (proposals, "PROPOSALS_PENDING_MAX", 40),
    (forwarding, "PROPOSALS_PENDING_MAX", 30),
)


@contextmanager
def applied(seconds: Callable[[], float], rng: random.Random) -> Iterator[None]:
    """seconds: the clock of the machine that is at work."""
    rebound: list[tuple[ModuleType, str, object]] = [
        (syncobj, "monotonicTime", seconds),
        (syncobj, "random", rng),
        *_TINY,
    ]
    kept = [(module, name, getattr(module, name)) for module, name, _ in rebound]
    for module, name, value in rebound:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
