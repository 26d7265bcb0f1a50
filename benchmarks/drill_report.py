"""What several drills of several systems say together: one plain object, and a table of it. Pure functions.

Invariant: a figure stands there with all its rounds, an unknown one as null.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

FORM: Final = 1
FIGURES: Final = ("without_writes_ms", "elections", "catch_up_ms", "writes_per_second", "p50_ms", "p99_ms")
OURS: Final = "raftberry"

Record = dict[str, Any]


def summary(records: Mapping[str, Sequence[Record]], *, etcd: str) -> Record:
    """records: of each system, one a round, as the product's drill makes them. etcd: its version."""
    first = next(iter(records.values()))[0]
    return {
        "form": FORM,
        "setting": {**first["setting"], "etcd": etcd, "rounds": len(next(iter(records.values())))},
        "writes": {
            name: {
                key: sum(each["writes"][key] for each in rounds)
                for key in ("acknowledged", "lost", "duplicated", "unanswered")
            }
            for name, rounds in records.items()
        },
        "undisturbed": {
            name: {
                figure: [each["undisturbed"][figure] for each in rounds]
                for figure in ("writes_per_second", "p50_ms", "p99_ms")
            }
            for name, rounds in records.items()
        },
        "faults": [
            {
                "name": fault["name"],
                "title": fault["title"],
                **{
                    name: {figure: [each["faults"][place][figure] for each in rounds] for figure in FIGURES}
                    for name, rounds in records.items()
                },
            }
            for place, fault in enumerate(first["faults"])
        ],
    }


def table(result: Record) -> str:
    """Markdown: time without acknowledged writes, median and range, and the ratio of ours to each other's."""
    names = list(result["writes"])
    others = [name for name in names if name != OURS] if OURS in names else []
    heads = ["fault", *names, *(f"ratio to {name}" for name in others)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for fault in result["faults"]:
        gaps = {name: fault[name]["without_writes_ms"] for name in names}
        cells = [fault["name"], *(_spread(gaps[name]) for name in names)]
        cells += [f"{statistics.median(gaps[OURS]) / statistics.median(gaps[name]):.2f}" for name in others]
        lines.append("| " + " | ".join(cells) + " |")
    for figure, title in (("p50_ms", "undisturbed, p50"), ("p99_ms", "undisturbed, p99")):
        cells = [_spread(result["undisturbed"][name][figure]) for name in names]
        lines.append("| " + " | ".join([title, *cells, *("" for _ in others)]) + " |")
    lines.append("")
    for name, writes in result["writes"].items():
        lines.append(
            f"{name}: {writes['acknowledged']} acknowledged, {writes['lost']} lost, "
            f"{writes['duplicated']} applied twice, {writes['unanswered']} never answered."
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    """`76 ms (70 to 91)`."""
    middle = _number(statistics.median(values))
    return (
        f"{middle} ms ({_number(min(values))} to {_number(max(values))})"
        if len(values) > 1
        else f"{middle} ms"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
