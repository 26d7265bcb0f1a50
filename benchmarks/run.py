"""Measures raftberry, beside etcd if asked, and appends a table to benchmarks/RESULTS.md.

Each round starts a fresh cluster of three of each system in turn, so that what the machine does meanwhile
hits both. Figures are medians over the rounds. Called by script/benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.report import append_results
from benchmarks.systems import System, make

ROOT: Final = Path(__file__).resolve().parent.parent
Figures = dict[str, dict[str, list[float]]]
"""Name of a figure, then of a system: one value for each round."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how often."""

    rounds: int
    seconds: float
    rest_seconds: float
    memory_readings: int
    kills: int


FULL: Final = Scale(rounds=3, seconds=10, rest_seconds=60, memory_readings=10_000_000, kills=10)
QUICK: Final = Scale(rounds=1, seconds=4, rest_seconds=10, memory_readings=1_000_000, kills=3)


def load(
    system: System, workload: str, *options: str, endpoints: Sequence[str] | None = None
) -> dict[str, float]:
    """Runs the load client in a process of its own; its figures."""
    done = subprocess.run(
        _command(system, workload, options, endpoints), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{system.name}: {workload} failed:\n{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _command(
    system: System, workload: str, options: Sequence[str], endpoints: Sequence[str] | None
) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.load", "--system", system.name, "--workload", workload]
    for endpoint in endpoints or system.endpoints:
        command += ["--endpoint", endpoint]
    return [*command, *options]


class Benchmark:
    """One run; figures gather what was measured."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self.scale = scale
        self.figures: Figures = defaultdict(lambda: defaultdict(list))

    def note(self, figure: str, system: str, value: float) -> None:
        print(f"  {system:12} {figure}: {value:,.3f}", file=sys.stderr, flush=True)
        self.figures[figure][system].append(value)

    def speed(self, name: str) -> None:
        """Unary with 64 clients and one, bulk; each with the bytes it cost."""
        system = make(name, self.folder / name)
        try:
            system.start()
            seconds = ("--seconds", str(self.scale.seconds))
            many = self._with_bytes(
                system,
                name,
                "unary, 64 clients",
                "unary",
                "--clients",
                "64",
                "--first-client",
                "100",
                *seconds,
            )
            self.note("unary, 64 clients: readings/s", name, many["per_second"])
            self.note("unary, 64 clients: p99 ms", name, many["p99_ms"])
            leader = [system.endpoints[system.leader()]]
            one = load(system, "unary", *seconds, endpoints=leader)
            self.note("unary, 1 client at the leader: p50 ms", name, one["p50_ms"])
            self.note("unary, 1 client at the leader: p99 ms", name, one["p99_ms"])
            bulk = self._with_bytes(system, name, "bulk", "bulk", *seconds)
            self.note("bulk, 1 client, 8 in flight: readings/s", name, bulk["per_second"])
        finally:
            system.stop()

    def _with_bytes(
        self, system: System, name: str, label: str, workload: str, *options: str
    ) -> dict[str, float]:
        """Runs a load between two looks at the counters: bytes per reading and node."""
        device_before = machine.device_bytes_written(self.folder)
        before = sum(usage.write_bytes for usage in machine.usages(system.pids()))
        result = load(system, workload, *options)
        written = sum(usage.write_bytes for usage in machine.usages(system.pids())) - before
        os.sync()
        device_after = machine.device_bytes_written(self.folder)
        shares = result["readings"] * len(system.endpoints)
        self.note(f"{label}: bytes written by the processes per reading and node", name, written / shares)
        if device_before is not None and device_after is not None:
            device = (device_after - device_before) / shares
            self.note(f"{label}: bytes to the device per reading and node", name, device)
        return result

    def rest(self, name: str) -> None:
        """What an idle cluster costs."""
        system = make(name, self.folder / name)
        try:
            system.start()
            time.sleep(5)
            before = machine.usages(system.pids())
            time.sleep(self.scale.rest_seconds)
            after = machine.usages(system.pids())
            pairs = list(zip(before, after, strict=True))
            written = max(late.write_bytes - early.write_bytes for early, late in pairs)
            busy = max(late.cpu_s - early.cpu_s for early, late in pairs) / self.scale.rest_seconds
            self.note("at rest: write_bytes, worst node", name, written)
            self.note("at rest: % of a core, worst node", name, busy * 100)
            self.note("at rest: RssAnon MiB, worst node", name, _worst_rss_mib(system))
        finally:
            system.stop()

    def memory(self, name: str, *, series: int) -> None:
        """RssAnon after many readings."""
        system = make(name, self.folder / name)
        try:
            system.start()
            result = load(
                system, "bulk", "--readings", str(self.scale.memory_readings), "--series", str(series)
            )
            figure = f"after {self.scale.memory_readings:,} readings in {series:,} series"
            self.note(f"{figure}: RssAnon MiB, worst node", name, _worst_rss_mib(system))
            self.note(f"{figure}: readings/s", name, result["per_second"])
        finally:
            system.stop()

    def failover(self, name: str) -> None:
        """kill -9 of the leader under a writer that rotates endpoints."""
        system = make(name, self.folder / name)
        try:
            system.start()
            for trial in range(self.scale.kills):
                options = ("--seconds", "8", "--first-client", str(1_000 + trial))
                client = subprocess.Popen(
                    _command(system, "gap", options, None), cwd=ROOT, stdout=subprocess.PIPE, text=True
                )
                assert client.stdout is not None
                assert client.stdout.readline().strip() == "ready"
                time.sleep(1.5)
                leader = system.leader()
                system.kill(leader)
                out, _ = client.communicate(timeout=60)
                assert client.returncode == 0, "the gap client failed"
                self.note("leader killed: longest gap s", name, json.loads(out.splitlines()[-1])["gap_s"])
                system.restart(leader)
        finally:
            system.stop()


def _worst_rss_mib(system: System) -> float:
    return max(usage.rss_anon_bytes for usage in machine.usages(system.pids())) / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a result")
    parser.add_argument("--against", choices=["etcd"], help="measure it too, alternating")
    parser.add_argument("--only", action="append", choices=["speed", "rest", "memory", "failover"])
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "benchmark-data", help="on the disk to measure"
    )
    parser.add_argument("--no-raftberry", action="store_true", help="only the other system")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    parts = arguments.only or ["speed", "rest", "memory", "failover"]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    names = ([] if arguments.no_raftberry else ["raftberry"]) + (
        [arguments.against] if arguments.against else []
    )
    benchmark = Benchmark(arguments.folder, scale)
    for number in range(scale.rounds if "speed" in parts else 0):
        for name in names if number % 2 == 0 else names[::-1]:
            benchmark.speed(name)
    for name in names:
        if "rest" in parts:
            benchmark.rest(name)
        if "memory" in parts and name == "raftberry":
            for series in (8, 10_000):
                benchmark.memory(name, series=series)
    if "failover" in parts:
        for name in [*names, *(["etcd-500ms"] if "etcd" in names else [])]:
            benchmark.failover(name)
    append_results(
        ROOT / "benchmarks" / "RESULTS.md",
        benchmark.figures,
        command=" ".join(["script/benchmark", *sys.argv[1:]]),
        machine=machine.description(),
        moment=datetime.now(UTC),
    )
    print(f"medians over {scale.rounds} rounds; see benchmarks/RESULTS.md")


if __name__ == "__main__":
    main()
