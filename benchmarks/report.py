"""Figures as Markdown: medians, spreads and ratios, goals, what the load client took. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from benchmarks.figures import QUANTITIES, Figures, Key
from benchmarks.floor import DISK, ECHO, PARTS
from benchmarks.goals import OURS, Verdict, number

OTHER: Final = "etcd"
CLIENT_IS_LIMIT: Final = 80.0
"""Percent of a core: beyond it a rate says as much of the client as of the system."""

NOT_SYSTEMS: Final = (DISK, ECHO, PARTS)


def table(figures: Figures) -> str:
    """A row for each figure: median (least to greatest), and ours to etcd's."""
    systems = [name for name in figures.systems() if name not in NOT_SYSTEMS]
    lines = [_row(["figure", *systems, f"ratio to {OTHER}"]), "|---" + "|--:" * (len(systems) + 1) + "|"]
    for key, values in figures.values.items():
        if not any(name in NOT_SYSTEMS for name in values) and key[1] != "client":
            cells = [cell(values.get(name, ())) for name in systems]
            lines.append(_row([_title(figures, key), *cells, _ratio(figures, key)]))
    return "\n".join(lines)


def floor_table(figures: Figures) -> str:
    """What can be had without any system."""
    lines = ["| floor | |", "|---|--:|"]
    for key, values in figures.values.items():
        for name in NOT_SYSTEMS:
            if name in values and key[1] != "client":
                lines.append(_row([_title(figures, key), cell(values[name])]))
    return "\n".join(lines)


def goal_table(verdicts: Sequence[Verdict]) -> str:
    words = {True: "reached", False: "**not reached**", None: "not measured"}
    lines = ["| work | goal | measured | |", "|---|---|---|---|"]
    lines += [_row([one.work, one.goal, one.measured, words[one.is_reached]]) for one in verdicts]
    return "\n".join(lines)


def client_note(figures: Figures) -> str:
    """Which rates the load client limited: it says so itself."""
    shares = {
        (load, system): statistics.median(values)
        for (load, quantity), systems in figures.values.items()
        if quantity == "client"
        for system, values in systems.items()
        if system not in NOT_SYSTEMS
    }
    if not shares:
        return "The load client's own share was not measured."
    (load, system), most = max(shares.items(), key=lambda one: one[1])
    note = (
        f"The load client took at most {most:.0f} % of a core ({system}, {figures.titles[load]}), "
        f"{statistics.median(shares.values()):.0f} % in the median."
    )
    limited = [
        f"{system}, {figures.titles[load]} ({share:.0f} %)"
        for (load, system), share in shares.items()
        if share > CLIENT_IS_LIMIT
    ]
    return note + (
        f" **It was itself the limit of: {'; '.join(limited)}.**" if limited else " It was never the limit."
    )


def failures(figures: Figures) -> str:
    """Why a cell is empty."""
    lines = [
        f"- {system}, {figures.titles[load]}: {_heart(reason)}"
        for load, systems in figures.failures.items()
        for system, reason in systems.items()
    ]
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Median, and the range where there were several."""
    if not values:
        return ""
    median = number(statistics.median(values))
    return f"{median} ({number(min(values))} to {number(max(values))})" if len(values) > 1 else median


def _heart(reason: str) -> str:
    """What the client said, without the command that it was given."""
    return reason.splitlines()[0].rpartition("benchmark-client: ")[2]


def _title(figures: Figures, key: Key) -> str:
    load, quantity = key
    return f"{figures.titles[load]}: {QUANTITIES[quantity].title}, {QUANTITIES[quantity].unit}"


def _ratio(figures: Figures, key: Key) -> str:
    ours, theirs = figures.median(*key, OURS), figures.median(*key, OTHER)
    return f"{ours / theirs:.2f}" if ours is not None and theirs else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
