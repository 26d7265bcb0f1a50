"""Linearizability of each key as a register, from what clients saw alone: nothing of the log is known here.

Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26 (1997), section 4.3: when every value is written
once, reads tell their writes. The operations of one value are a cluster; its zone lies between the earliest end and
the latest beginning. The history is linearizable exactly if no two forward zones overlap, and no backward zone lies
within a forward zone. A write of unknown outcome counts if somebody read it, and never ends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tests.simulation.failure import CheckFailed
from tests.simulation.history import RegisterRead, RegisterWrite

_NEVER = 1 << 62


@dataclass(slots=True)
class _Cluster:
    """earliest_end > latest_begin: backward zone, all its operations overlap."""

    key: str
    identity: int
    write_begun_ns: int
    earliest_end: int
    latest_begin: int


def check_registers(writes: Iterable[RegisterWrite], reads: Iterable[RegisterRead]) -> int:
    """Raises CheckFailed; returns how many reads were checked."""
    clusters: dict[str, dict[int, _Cluster]] = defaultdict(dict)
    for write in writes:
        end = _NEVER if write.ended_ns is None else write.ended_ns
        clusters[write.key][write.identity] = _Cluster(
            write.key, write.identity, write.begun_ns, end, write.begun_ns
        )
    count = 0
    for read in reads:
        count += 1
        of_key = clusters[read.key]
        cluster = of_key.get(read.identity)
        if cluster is None:
            if read.identity != 0:
                raise CheckFailed("registers", f"{read.key} returned {read.identity}, which nobody wrote")
            cluster = of_key[0] = _Cluster(read.key, 0, -1, -1, -1)
        if read.ended_ns < cluster.write_begun_ns:
            raise CheckFailed("registers", f"{read.key} returned {read.identity} before it was written")
        cluster.earliest_end = min(cluster.earliest_end, read.ended_ns)
        cluster.latest_begin = max(cluster.latest_begin, read.begun_ns)
    for of_key in clusters.values():
        _check_zones([cluster for cluster in of_key.values() if cluster.earliest_end < _NEVER])
    return count


def _check_zones(clusters: list[_Cluster]) -> None:
    forward = sorted(
        (c for c in clusters if c.earliest_end < c.latest_begin), key=lambda cluster: cluster.earliest_end
    )
    for one, other in pairwise(forward):
        if other.earliest_end < one.latest_begin:
            _fail(one, other)
    for cluster in clusters:
        if cluster.earliest_end < cluster.latest_begin:
            continue
        # Forward zones don't overlap: only the last that begins before this one can reach beyond its end.
        place = bisect_left(forward, cluster.latest_begin, key=lambda one: one.earliest_end)
        if place and cluster.earliest_end < forward[place - 1].latest_begin:
            _fail(forward[place - 1], cluster)


def _fail(one: _Cluster, other: _Cluster) -> None:
    raise CheckFailed(
        "registers", f"{one.key}: values {one.identity} and {other.identity} were seen in no possible order"
    )
