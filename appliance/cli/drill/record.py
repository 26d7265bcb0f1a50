"""The record of a drill: one plain object, as --json writes it and the report shows it. Pure functions.

Invariant: everything in the report is in the record. Times in it are seconds since the drill began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from appliance.cli.drill.measuring import Disturbance, Tally, between, cost_of, quantile_ms, timeline
from appliance.cli.output import Row
from appliance.client.steady import Acknowledged, Look

VERSION: Final = 1
"""Of the record's form."""

COLUMNS: Final = (
    "fault",
    "node",
    "without_writes_ms",
    "elections",
    "catch_up_ms",
    "writes_per_second",
    "p50_ms",
    "p99_ms",
)

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how it was measured."""

    date: str
    machine: str
    version: str
    command: str
    nodes: int
    clients: int
    streams: int
    writes_per_second: float
    hold_s: float
    settle_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """The time of the drill; monotonic, like everything that was recorded."""

    began_s: float
    steady_s: float
    """Until then nothing was disturbed."""

    ended_s: float


def make_record(
    setting: Setting,
    span: Span,
    faults: Sequence[Disturbance],
    acks: Sequence[Acknowledged],
    looks: Sequence[Look],
    writes: Tally,
) -> Record:
    """acks and looks in any order."""
    acks = sorted(acks, key=lambda ack: ack.at_s)
    looks = sorted(looks, key=lambda look: look.at_s)
    steady = between(acks, span.began_s, span.steady_s)
    latencies = [ack.latency_s for ack in steady]
    return {
        "form": VERSION,
        "setting": asdict(setting),
        "writes": asdict(writes),
        "undisturbed": {
            "writes_per_second": round(len(steady) / max(0.001, span.steady_s - span.began_s), 1),
            "p50_ms": _rounded(quantile_ms(latencies, 0.5)),
            "p99_ms": _rounded(quantile_ms(latencies, 0.99)),
        },
        "faults": [_fault(fault, acks, looks, span.began_s) for fault in faults],
        "leaders": _leaders(looks, span.began_s),
        "timeline": timeline(acks, span.began_s, span.ended_s),
    }


def rows(record: Record) -> list[Row]:
    """For the table on the terminal."""
    return [
        {
            "fault": fault["name"],
            "node": fault["node"],
            "without_writes_ms": fault["without_writes_ms"],
            "elections": fault["elections"],
            "catch_up_ms": "-" if fault["catch_up_ms"] is None else fault["catch_up_ms"],
            "writes_per_second": fault["writes_per_second"],
            "p50_ms": fault["p50_ms"],
            "p99_ms": fault["p99_ms"],
        }
        for fault in record["faults"]
    ]


def is_clean(record: Record) -> bool:
    """Nothing lost, nothing double."""
    return bool(record["writes"]["lost"] == 0 and record["writes"]["duplicated"] == 0)


def verdict(record: Record) -> str:
    """One line about the writes."""
    writes = record["writes"]
    text = (
        f"{writes['acknowledged']} writes acknowledged, {writes['lost']} lost, {writes['duplicated']} double"
    )
    return f"{text}, {writes['unanswered']} never answered" if writes["unanswered"] else text


def _fault(
    fault: Disturbance, acks: Sequence[Acknowledged], looks: Sequence[Look], began_s: float
) -> dict[str, object]:
    cost = cost_of(fault, acks, looks)
    return {
        "name": fault.name,
        "title": fault.title,
        "node": fault.node,
        "began_s": round(fault.began_s - began_s, 3),
        "lifted_s": round(fault.lifted_s - began_s, 3),
        "until_s": round(fault.until_s - began_s, 3),
        "moments": [{"at_s": round(at_s - began_s, 3), "what": what} for at_s, what in fault.moments],
        "without_writes_ms": round(cost.gap_s * 1000),
        "elections": cost.elections,
        "catch_up_ms": None if cost.catch_up_s is None else round(cost.catch_up_s * 1000),
        "writes_per_second": round(cost.writes_per_second, 1),
        "p50_ms": _rounded(cost.p50_ms),
        "p99_ms": _rounded(cost.p99_ms),
    }


def _leaders(looks: Sequence[Look], began_s: float) -> list[dict[str, object]]:
    """Each term's leader when it was first seen."""
    seen: dict[int, dict[str, object]] = {}
    for look in looks:
        if look.is_leader and look.term not in seen:
            seen[look.term] = {
                "at_s": round(look.at_s - began_s, 3),
                "name": look.name,
                "term": look.term,
            }
    return [seen[term] for term in sorted(seen)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
