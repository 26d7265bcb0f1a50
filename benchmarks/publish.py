"""Slices of a run put together: a section of benchmarks/RESULTS.md, the charts, and what docs/performance.md quotes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import charts, goals, report
from benchmarks.figures import Figures, merge

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
PICTURES: Final = ROOT / "docs" / "pictures"
RESULTS: Final = ROOT / "benchmarks" / "RESULTS.md"

MARK: Final = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
"""A part of the page that is made here: its text goes, the rest stays."""


def publish(paths: Sequence[Path]) -> None:
    """paths: raw files, in the order of time."""
    slices = [json.loads(path.read_text("utf-8")) for path in paths]
    figures = merge(Figures.from_json(one["figures"]) for one in slices)
    with RESULTS.open("a", encoding="utf-8") as results:
        results.write(section(slices, figures))
    for path in charts.draw(figures, PICTURES):
        print(path.relative_to(ROOT))
    PAGE.write_text(fill(PAGE.read_text("utf-8"), parts(slices, figures)), "utf-8")
    print(report.goal_table(goals.judge(figures)))


def parts(slices: Sequence[Mapping[str, Any]], figures: Figures) -> dict[str, str]:
    """What the page shows between its marks."""
    return {
        "setting": setting(slices),
        "goals": report.goal_table(goals.judge(figures)),
        "client": report.client_note(figures),
        "floor": report.floor_table(figures),
        "figures": report.table(figures),
        "failures": report.failures(figures),
    }


def fill(page: str, texts: Mapping[str, str]) -> str:
    """The page with its marked parts replaced; a mark that nobody fills is an error (KeyError)."""
    return MARK.sub(lambda found: f"{found[1]}{texts[found[2]]}\n{found[3]}", page)


def setting(slices: Sequence[Mapping[str, Any]]) -> str:
    """When, where and of what versions."""
    versions = {name: version for one in slices for name, version in one["versions"].items()}
    moments = [one["moment"] for one in slices]
    commands = dict.fromkeys(one["command"] for one in slices)
    loads = [one["load_average"] for one in slices]
    quick = (
        " **A quick look, one short round each: no result.**"
        if any("--quick" in one for one in commands)
        else ""
    )
    described = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            f"{moments[0]} to {moments[-1]}, on {slices[-1]['machine']}. Peers: {described or 'none'}."
            f" Load average when slices began: {min(loads):.1f} to {max(loads):.1f}.{quick}",
            "",
            *(f"    {command}" for command in commands),
        ]
    )


def section(slices: Sequence[Mapping[str, Any]], figures: Figures) -> str:
    """One more of RESULTS.md."""
    texts = parts(slices, figures)
    failed = (
        f"\nWhat a system did not bear or does not offer:\n\n{texts['failures']}\n"
        if texts["failures"]
        else ""
    )
    moment, count = slices[-1]["moment"][:16].replace("T", " "), len(slices)
    return (
        f"\n## {moment} UTC, {count} slice{'s' if count > 1 else ''}\n\n"
        f"{texts['setting']}\n\n{texts['client']}\n\n{texts['floor']}\n\n{texts['figures']}\n{failed}"
    )
