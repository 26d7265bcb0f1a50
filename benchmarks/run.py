"""Measures raftberry and, in turn, the peers that are asked for; keeps the figures of each slice as JSON below build/.

Each round starts a fresh cluster of each system in turn, so that what the machine does meanwhile hits all. Called by
script/benchmark.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import machine, packages, writing
from benchmarks.figures import Figures
from benchmarks.systems import make

ROOT: Final = Path(__file__).resolve().parent.parent
RAW: Final = ROOT / "build" / "benchmarks" / "raw"
PARTS: Final = tuple(writing.SETS)


def measure(
    figures: Figures, part: str, names: list[str], folder: Path, *, rounds: int, seconds: float
) -> None:
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            system = make(name, folder / name)
            try:
                system.start()
                writing.measure_set(figures, system, folder, writing.SETS[part], seconds)
            finally:
                system.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a result")
    parser.add_argument(
        "--against", default="", help="measure these too, alternating: etcd,nats,influxdb,redis"
    )
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "benchmark-data", help="on the disk to measure"
    )
    arguments = parser.parse_args()
    peers = [name for name in arguments.against.split(",") if name]
    for name in peers:
        packages.fetch(name)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    figures, moment = Figures(), datetime.now(UTC)
    rounds, seconds = (1, 3.0) if arguments.quick else (2, 5.0)
    for part in arguments.only.split(","):
        measure(figures, part, ["raftberry", *peers], arguments.folder, rounds=rounds, seconds=seconds)
    RAW.mkdir(parents=True, exist_ok=True)
    raw = {
        "command": " ".join(["script/benchmark", *sys.argv[1:]]),
        "machine": machine.description(),
        "moment": moment.isoformat(),
        "figures": figures.as_json(),
    }
    path = RAW / f"{moment:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(raw, indent=1) + "\n", "utf-8")
    print(f"raw figures: {path}")


if __name__ == "__main__":
    main()
