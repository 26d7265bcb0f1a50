"""A table of medians and ratios, appended to benchmarks/RESULTS.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

HEADING = """# Results

Made by `script/benchmark`, newest last. Three nodes of each system on one machine, started fresh for each round,
in turn. Medians over the rounds; the ratio is ours to etcd's. Every acknowledged reading was read back and
compared before its rate counted. The load client is one Python process for either system, on the same cores as
the nodes: it is part of the figure. etcd: Debian's 3.4 with its defaults (quota raised), bulk as transactions of
128 Puts, 8 in flight; `etcd-500ms`: with our election timeout. "Bytes to the device" counts all that the machine
wrote meanwhile; "by the processes" is their `write_bytes`.
"""


def append_results(
    path: Path,
    figures: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    command: str,
    machine: str,
    moment: datetime,
) -> None:
    """Appends one section; prints it too."""
    systems = list(dict.fromkeys(name for values in figures.values() for name in values))
    with_ratio = {"raftberry", "etcd"} <= set(systems)
    columns = ["figure", *systems, *(["ratio"] if with_ratio else [])]
    lines = [
        f"\n## {moment:%Y-%m-%d %H:%M} UTC: `{command}`\n",
        f"{machine}\n",
        "| " + " | ".join(columns) + " |",
        "|---" + "|--:" * (len(columns) - 1) + "|",
    ]
    for figure, values in figures.items():
        medians = {name: statistics.median(values[name]) for name in values}
        cells = [figure, *(_cell(values.get(name)) for name in systems)]
        if with_ratio:
            ours, theirs = medians.get("raftberry"), medians.get("etcd")
            cells.append(f"{ours / theirs:.2f}" if ours is not None and theirs else "")
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    if not path.exists():
        path.write_text(HEADING, encoding="utf-8")
    with path.open("a", encoding="utf-8") as results:
        results.write(text)
    print(text)


def _cell(values: Sequence[float] | None) -> str:
    """Median, and the range where there were several."""
    if not values:
        return ""
    median = _number(statistics.median(values))
    return f"{median} ({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else median


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:.3g}"
