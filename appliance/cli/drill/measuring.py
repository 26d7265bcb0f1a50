"""What a drill's records say: gaps, rates, elections, catching up, writes lost and double. Pure functions.

Invariant: times are seconds of one monotonic clock; a figure that cannot be known is None, never 0.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from appliance.client.steady import Acknowledged, Look

STEP_S: Final = 0.1
LOOKS_APART_S: Final = 0.5
"""A node has caught up when it has applied what was committed anywhere this long ago: looks are not simultaneous."""


@dataclass(slots=True)
class Disturbance:
    """One fault. Its window reaches from began_s to until_s, where the next may begin."""

    name: str
    title: str
    node: str
    began_s: float
    lifted_s: float = 0.0
    """When the fault was over: process started again, link mended."""

    until_s: float = 0.0
    returned: tuple[str, ...] = ()
    """Nodes that had been away and had to catch up."""

    moments: list[tuple[float, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one disturbance."""

    gap_s: float
    """The longest time without an acknowledged write that reaches into the window."""

    elections: int
    catch_up_s: float | None
    writes_per_second: float
    """While the fault lasted."""

    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the writes."""

    acknowledged: int
    lost: int
    duplicated: int
    unanswered: int
    """Sent and never answered: they may be there or not."""


def cost_of(fault: Disturbance, acks: Sequence[Acknowledged], looks: Sequence[Look]) -> Cost:
    """acks and looks: in order of at_s."""
    during = between(acks, fault.began_s, max(fault.lifted_s, fault.began_s + STEP_S))
    affected = [ack.latency_s for ack in between(acks, fault.began_s, fault.until_s)]
    seconds = max(fault.lifted_s - fault.began_s, STEP_S)
    catching = [catch_up_s(looks, node, fault.lifted_s) for node in fault.returned]
    known = [one for one in catching if one is not None]
    return Cost(
        gap_s=longest_gap_s([ack.at_s for ack in acks], fault.began_s, fault.until_s),
        elections=elections(looks, fault.began_s, fault.until_s),
        catch_up_s=max(known) if known and len(known) == len(catching) else None,
        writes_per_second=len(during) / seconds,
        p50_ms=quantile_ms(affected, 0.5),
        p99_ms=quantile_ms(affected, 0.99),
    )


def between(acks: Sequence[Acknowledged], from_s: float, to_s: float) -> Sequence[Acknowledged]:
    """Those of [from_s, to_s)."""
    return acks[
        bisect_left(acks, from_s, key=lambda ack: ack.at_s) : bisect_left(
            acks, to_s, key=lambda ack: ack.at_s
        )
    ]


def longest_gap_s(times_s: Sequence[float], from_s: float, to_s: float) -> float:
    """The longest pause between two of these moments that reaches into [from_s, to_s).

    It counts from the last moment before the window, but only up to the window's end: what is behind that is the next
    fault's.
    """
    first, last = bisect_left(times_s, from_s), bisect_left(times_s, to_s)
    before = times_s[first - 1] if first else from_s
    return max(later - earlier for earlier, later in pairwise([before, *times_s[first:last], to_s]))


def elections(looks: Iterable[Look], from_s: float, to_s: float) -> int:
    """Terms that began in the window. The term at its begin is the highest that was seen until then."""
    before = after = 0
    for look in looks:
        if look.at_s < from_s:
            before = max(before, look.term)
        if look.at_s < to_s:
            after = max(after, look.term)
    return after - before if before else 0


def catch_up_s(looks: Sequence[Look], node: str, returned_s: float) -> float | None:
    """From its return until the node had applied what was committed LOOKS_APART_S before; None: it never had."""
    committed: list[tuple[float, int]] = []
    highest = 0
    for look in looks:
        highest = max(highest, look.commit_index)
        committed.append((look.at_s, highest))
    for look in looks:
        if look.name != node or look.at_s < returned_s or not look.leader:
            continue
        known = bisect_left(committed, max(look.at_s - LOOKS_APART_S, returned_s), key=lambda pair: pair[0])
        if look.applied_index >= (committed[known - 1][1] if known else 0):
            return look.at_s - returned_s
    return None


def leader_at(looks: Iterable[Look], names: Iterable[str], since_s: float) -> str:
    """Who leads in the highest term that was seen since then; empty: nobody said so."""
    known = {look.name: look for look in looks if look.at_s >= since_s and look.name in set(names)}
    leading = [look for look in known.values() if look.is_leader]
    return max(leading, key=lambda look: look.term).name if leading else ""


def quantile_ms(latencies_s: Iterable[float], quantile: float) -> float | None:
    ordered = sorted(latencies_s)
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, math.ceil(quantile * len(ordered)) - 1)] * 1000


def timeline(acks: Sequence[Acknowledged], from_s: float, to_s: float) -> dict[str, list[float | None]]:
    """Columns with one row for each STEP_S: when it began (from from_s on), writes a second, p50 and p99 in ms."""
    # A hair's breadth of rounding is no step of its own.
    steps = max(1, math.ceil((to_s - from_s) / STEP_S - 1e-6))
    buckets: list[list[float]] = [[] for _ in range(steps)]
    for ack in acks:
        if from_s <= ack.at_s < to_s:
            buckets[min(steps - 1, int((ack.at_s - from_s) / STEP_S))].append(ack.latency_s)
    return {
        "at_s": [round(step * STEP_S, 3) for step in range(steps)],
        "writes_per_second": [round(len(bucket) / STEP_S, 1) for bucket in buckets],
        "p50_ms": [_rounded(quantile_ms(bucket, 0.5)) for bucket in buckets],
        "p99_ms": [_rounded(quantile_ms(bucket, 0.99)) for bucket in buckets],
    }


def tally(
    acks: Iterable[Acknowledged],
    unanswered: Mapping[str, set[int]],
    found: Mapping[str, Sequence[int]],
) -> Tally:
    """found: what was read back of each writer, a sequence as often as it is there."""
    promised: dict[str, set[int]] = {}
    for ack in acks:
        promised.setdefault(ack.writer, set()).add(ack.sequence)
    lost = duplicated = 0
    for writer in sorted({*promised, *found}):
        counts = Counter(found.get(writer, ()))
        lost += len(promised.get(writer, set()) - counts.keys())
        duplicated += counts.total() - len(counts)
    return Tally(
        acknowledged=sum(map(len, promised.values())),
        lost=lost,
        duplicated=duplicated,
        unanswered=sum(map(len, unanswered.values())),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
