"""The loads that read, on a million readings that were written before: latest, range, aggregate; and watchers.

Invariant: the client compares what it is given with what was written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.client import ClientFailed, Load, Result
from benchmarks.figures import Figures
from benchmarks.systems import System
from benchmarks.writing import WriteLoad, leader_first, measure

SERIES: Final = 10
RANGE: Final = 10_000
AGGREGATED: Final = 90_000
WINDOW: Final = 60
"""Readings lie a second apart."""

WATCHERS: Final = (1, 100, 1_000)
WATCH_SERIES: Final = 90_000


def measure_reads(figures: Figures, system: System, folder: Path, *, readings: int, seconds: float) -> None:
    """Fills an empty cluster first."""
    load = WriteLoad("fill", f"{readings:,} readings in {SERIES} series", 1, 4, 1000, SERIES, 1, True, True)
    measure(figures, system, folder, load, ["--readings", readings], first_series=0)
    each = readings // SERIES
    many = ("--clients", 64, "--seconds", seconds, "--per-series", each, "--series", SERIES)
    one = ("--clients", 1, "--seconds", seconds, "--per-series", each, "--series", SERIES)
    of = f"of {readings:,}"
    _measure(figures, system, "latest", f"latest, 64 clients, {readings:,} readings", *many)
    _measure(
        figures, system, "range", f"range of {RANGE:,} {of}, 1 client", *one, "--batch", min(RANGE, each)
    )
    _measure(
        figures,
        system,
        "aggregate",
        f"means of {WINDOW} over {AGGREGATED:,} {of}, 1 client",
        *(*one, "--batch", min(AGGREGATED, each * 9 // 10), "--window", WINDOW),
    )


def _measure(figures: Figures, system: System, load: str, title: str, *options: str | float) -> None:
    try:
        result = _between_looks(figures, system, load, title, *options)
    except ClientFailed as failure:
        figures.fail(load, title, system.name, str(failure))
        return
    figures.note(load, title, "calls", system.name, result["per_second"])
    figures.note(load, title, "p50", system.name, result["p50_ms"])
    figures.note(load, title, "p99", system.name, result["p99_ms"])
    figures.note(load, title, "client", system.name, result["client_cpu_share"] * 100)


def _between_looks(figures: Figures, system: System, load: str, title: str, *options: str | float) -> Result:
    client = Load(system.protocol, load, leader_first(system), *options, "--pause")
    client.wait_for("ready")
    before = machine.usages(system.pids())
    client.go_on()
    client.wait_for("read")
    after = machine.usages(system.pids())
    client.go_on()
    result = client.result()
    cpu_s = sum(late.cpu_s - early.cpu_s for early, late in zip(before, after, strict=True))
    figures.note(load, title, "cpu-calls", system.name, cpu_s / result["calls"] * 100_000)
    return result


def measure_watchers(
    figures: Figures, system: System, *, events: int, key: str = "", title: str = ""
) -> None:
    """key and title: what those of each load begin with."""
    for number, watchers in enumerate(WATCHERS):
        load = f"{key}watch-{watchers}"
        what = f"{title}watch, {watchers:,} watcher{'s' * (watchers > 1)}: write to last event"
        try:
            client = Load(
                *(
                    system.protocol,
                    "watch",
                    leader_first(system),
                    "--clients",
                    watchers,
                    "--readings",
                    events,
                ),
                *("--first-series", WATCH_SERIES + number),
            )
            result = client.result()
        except ClientFailed as failure:
            figures.fail(load, what, system.name, str(failure))
            continue
        figures.note(load, what, "p50", system.name, result["p50_ms"])
        figures.note(load, what, "p99", system.name, result["p99_ms"])
        figures.note(load, what, "client", system.name, result["client_cpu_share"] * 100)
