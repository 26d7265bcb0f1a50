"""Measures raftberry and, in turn, the peers that are asked for; keeps the figures of each slice as JSON below build/.

Each round starts a fresh cluster of each system in turn, so that what the machine does meanwhile hits all. Called by
script/benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import at_rest, failing, floor, keeping, machine, packages, publish, reading, writing
from benchmarks.figures import Figures
from benchmarks.systems import System, make

ROOT: Final = Path(__file__).resolve().parent.parent
RAW: Final = ROOT / "build" / "benchmarks" / "raw"
PEERS: Final = ("etcd", "nats", "influxdb", "redis")


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how often."""

    rounds: int
    watch_rounds: int
    seconds: float
    rest_s: float
    read: int
    kept: int
    kept_by_peers: int
    events: int
    trials: int
    kills: int


FULL: Final = Scale(3, 3, 3.0, 15.0, 1_000_000, 10_000_000, 1_000_000, 100, 6, 20)
QUICK: Final = Scale(1, 1, 2.0, 5.0, 100_000, 1_000_000, 100_000, 20, 1, 2)


class Run:
    """One slice: its figures, and the systems that take turns."""

    def __init__(self, folder: Path, peers: Sequence[str], scale: Scale) -> None:
        self.figures = Figures()
        self.folder = folder
        self.names = ["raftberry", *peers]
        self.scale = scale
        self.is_whole = True
        """Nothing went wrong; what a system does not offer is no wrong."""

    def write(self, loads: str) -> None:
        def measure(system: System) -> None:
            writing.measure_set(self.figures, system, self.folder, writing.SETS[loads], self.scale.seconds)

        self._in_rounds(self.scale.rounds, loads, self.names, measure)

    def read(self) -> None:
        def measure(system: System) -> None:
            reading.measure_reads(
                self.figures, system, self.folder, readings=self.scale.read, seconds=self.scale.seconds
            )

        self._in_turn("read", self.names, measure)

    def watch(self) -> None:
        def measure(system: System) -> None:
            reading.measure_watchers(self.figures, system, events=self.scale.events)

        names = [name for name in self.names if name != "influxdb"]
        self._in_rounds(self.scale.watch_rounds, "watch", names, measure)

    def rest(self) -> None:
        def measure(system: System) -> None:
            keeping.measure_rest(self.figures, system, self.folder, seconds=self.scale.rest_s)

        self._in_turn("rest", self.names, measure)

    def keep(self) -> None:
        def measure(readings: int) -> Callable[[System], None]:
            return lambda system: keeping.measure_kept(self.figures, system, self.folder, readings=readings)

        self._in_turn("keep", self.names, measure(self.scale.kept_by_peers))
        # The others would need minutes for so many.
        quick_ones = [name for name in self.names if name in ("raftberry", "influxdb")]
        self._in_turn("keep", quick_ones, measure(self.scale.kept))

    def real(self) -> None:
        at_rest.measure_real(self.figures, self.folder / "real", readings=self.scale.kept)
        shutil.rmtree(self.folder / "real")
        at_rest.measure_again(self.figures, self.folder / "again")
        shutil.rmtree(self.folder / "again")

    def fail(self, fault: str) -> None:
        names = [name for name in self.names if name != "influxdb" and (fault, name) != ("cut", "redis")]
        if "etcd" in names:
            names.insert(names.index("etcd") + 1, "etcd-500ms")
        trials = self.scale.kills if fault == "kill" else self.scale.trials

        def measure(system: System) -> None:
            failing.measure_faults(self.figures, system, fault, trials=trials)

        self._in_turn(fault, names, measure, with_links=fault == "cut")

    def floor(self) -> None:
        floor.measure_disk(self.figures, self.folder)
        floor.measure_echo(self.figures, seconds=self.scale.seconds)
        for _ in range(self.scale.rounds):
            floor.measure_parts(
                self.figures, self.folder, seconds=self.scale.seconds, events=self.scale.events
            )

    def _in_rounds(
        self, rounds: int, part: str, names: Sequence[str], measure: Callable[[System], None]
    ) -> None:
        """Every other round the other way about."""
        for number in range(rounds):
            self._in_turn(part, names if number % 2 == 0 else names[::-1], measure)

    def _in_turn(
        self, part: str, names: Sequence[str], measure: Callable[[System], None], *, with_links: bool = False
    ) -> None:
        """Fresh clusters, one after the other; each is gone before the next one begins.

        What goes wrong with one does not keep the others from being measured: it is told, and the run ends with 1.
        """
        for name in names:
            system = make(name, self.folder / name)
            try:
                if with_links:
                    system.connect_by_links()
                system.start()
                measure(system)
            except Exception as error:  # noqa: BLE001
                traceback.print_exc()
                self.figures.fail(part, f"part {part}", name, f"{type(error).__name__}: {error}")
                self.is_whole = False
            finally:
                system.stop()
                shutil.rmtree(self.folder / name, ignore_errors=True)


PARTS: Final[dict[str, Callable[[Run], None]]] = {
    "floor": Run.floor,
    "unary": lambda run: run.write("unary"),
    "stream": lambda run: run.write("stream"),
    "bulk": lambda run: run.write("bulk"),
    "read": Run.read,
    "watch": Run.watch,
    "rest": Run.rest,
    "keep": Run.keep,
    "real": Run.real,
    "kill": lambda run: run.fail("kill"),
    "freeze": lambda run: run.fail("freeze"),
    "cut": lambda run: run.fail("cut"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a result")
    parser.add_argument("--against", default="", help=f"measure these too, in turn: of {','.join(PEERS)}")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument(
        "--publish",
        nargs="*",
        type=Path,
        metavar="RAW",
        help="no measuring: tables, charts and goals of these slices (all in build/benchmarks/raw)",
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "benchmark-data", help="on the disk to measure"
    )
    arguments = parser.parse_args()
    if arguments.publish is not None:
        publish.publish(arguments.publish or sorted(RAW.glob("*.json")))
        return 0
    peers, parts = _names(arguments.against, PEERS, parser), _names(arguments.only, tuple(PARTS), parser)
    for name in peers:
        packages.fetch(name)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    run, moment = (
        Run(arguments.folder.resolve(), peers, QUICK if arguments.quick else FULL),
        datetime.now(UTC),
    )
    load_average = os.getloadavg()[0]
    try:
        for part in parts:
            PARTS[part](run)
    finally:
        _keep_raw(run.figures, peers, moment, load_average)
    return 0 if run.is_whole else 1


def _names(text: str, known: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            parser.error(f"{name} is none of {', '.join(known)}")
    return names


def _keep_raw(figures: Figures, peers: Sequence[str], moment: datetime, load_average: float) -> None:
    """Also of a run that was ended: what was measured was measured."""
    RAW.mkdir(parents=True, exist_ok=True)
    raw = {
        "command": " ".join(["script/benchmark", *sys.argv[1:]]),
        "machine": machine.description(),
        "moment": moment.isoformat(timespec="seconds"),
        "load_average": load_average,
        "versions": {name: packages.version(name) for name in peers},
        "figures": figures.as_json(),
    }
    path = RAW / f"{moment:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(raw, indent=1) + "\n", "utf-8")
    print(f"raw figures: {path.relative_to(ROOT)}; all slices together: script/benchmark --publish")


if __name__ == "__main__":
    raise SystemExit(main())
