"""Bytes at rest: real sensors' readings through one node's API, then `data.mdb` as it lies, free pages included.

    PYTHONPATH=.:generated .venv/bin/python -m benchmarks.at_rest [--readings 10000000] [--series 96] [--per-message 20]

Each series repeats one of the files of tests/data/real-sensors, from another place in it, with the file's own
distances of time; a file has as many series as its share of all the files' readings.
Invariant: every reading is counted by a query before its bytes are.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import lmdb
import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.report import append_results
from raftberry.v1 import maintenance_pb2, maintenance_pb2_grpc, reading_pb2, reading_pb2_grpc
from tests.process.nodes import Cluster, Node, wait_for

ROOT: Final = Path(__file__).resolve().parent.parent
REAL: Final = ROOT / "tests" / "data" / "real-sensors"
Series = tuple[NDArray[np.int64], NDArray[np.float64]]


def real_series(number: int, count: int, *, of: int) -> Series:
    """count readings of the number-th of so many series."""
    files = [_read(file) for file in sorted(REAL.glob("*.csv"))]
    ends = np.cumsum([len(times) for times, _ in files])
    times, values = files[int(np.searchsorted(ends, (number + 0.5) / of * ends[-1], side="right"))]
    gaps = np.append(np.diff(times), np.int64(np.median(np.diff(times))))
    places = (np.arange(count) + number * 997) % len(times)
    return times[0] + np.cumsum(gaps[places]), values[places]


@cache
def _read(file: Path) -> Series:
    with file.open() as lines:
        rows = list(csv.reader(lines))[1:]
    stamps = [datetime.fromisoformat(row[0]).replace(tzinfo=UTC).timestamp() for row in rows]
    return np.array(stamps, np.int64) * 1_000_000_000, np.array([float(row[1]) for row in rows])


def requests(series: list[Series], per_message: int) -> Iterator[reading_pb2.StreamWriteRequest]:
    """All series in turn, per_message readings of one in each request."""
    for begin in range(0, len(series[0][0]), per_message):
        for number, (times, values) in enumerate(series):
            request = reading_pb2.StreamWriteRequest()
            readings = request.readings.add(sensor=f"sensor-{number:03}", metric="value")
            readings.time_unix_nano.extend(times[begin : begin + per_message].tolist())
            readings.value.extend(values[begin : begin + per_message].tolist())
            yield request


def fill(node: Node, series: list[Series], per_message: int) -> float:
    """Write everything; the rate."""
    began, answered = time.perf_counter(), 0
    for response in reading_pb2_grpc.ReadingServiceStub(node.channel).StreamWrite(
        requests(series, per_message)
    ):
        assert response.status.code == 0, response.status.message
        answered += 1
    assert answered == -(-len(series[0][0]) // per_message) * len(series)
    return sum(len(times) for times, _ in series) / (time.perf_counter() - began)


def count(node: Node) -> int:
    query = reading_pb2.QueryRequest(aggregations=[reading_pb2.AGGREGATION_COUNT])
    responses = reading_pb2_grpc.ReadingServiceStub(node.channel).Query(query)
    return sum(sum(readings.int_value) for response in responses for readings in response.readings)


def pages(path: Path) -> tuple[int, int]:
    """(bytes in use, bytes of free pages) of an environment that nobody has open."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment:
        stat, info = environment.stat(), environment.info()
        used = stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])
        return used, stat["psize"] * (info["last_pgno"] + 1) - used


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    each = arguments.readings // arguments.series
    series = [real_series(number, each, of=arguments.series) for number in range(arguments.series)]
    total = each * arguments.series
    with Cluster(folder, size=1) as cluster:
        cluster.start()
        (node,) = cluster
        rate = fill(node, series, arguments.per_message)
        stub = maintenance_pb2_grpc.MaintenanceServiceStub(node.channel)
        stub.Checkpoint(maintenance_pb2.CheckpointRequest(), timeout=120)
        found = count(node)
        distinct = sum(len(np.unique(times)) for times, _ in series)
        assert found == distinct, f"{distinct} acknowledged, {found} read back"
        usage = machine.usage(node.pid)
        node.terminate(timeout_s=120)
        (store,) = node.data.glob("store.*")
        used, free = pages(store)
        size = (store / "data.mdb").stat().st_size
        began = time.perf_counter()
        node.start()
        wait_for("the node to serve again", lambda: node.health() or None, timeout_s=300)
        return {
            "bytes at rest per reading, data.mdb as it lies": size / total,
            "in pages that are in use": used / total,
            "in free pages": free / total,
            "RssAnon MiB after writing and reading": usage.rss_anon_bytes / (1 << 20),
            "readings/s": rate,
            "start-up s": time.perf_counter() - began,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--readings", type=int, default=10_000_000)
    parser.add_argument("--series", type=int, default=96)
    parser.add_argument("--per-message", type=int, default=20)
    parser.add_argument("--no-results", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raftberry-at-rest-", dir=os.environ.get("TMPDIR")) as folder:
        found = measure(arguments, Path(folder))
    what = f"{arguments.readings:,} readings in {arguments.series} series, {arguments.per_message} a message"
    figures = {f"{what}: {name}": {"raftberry": [value]} for name, value in found.items()}
    if arguments.no_results:
        for name, value in found.items():
            print(f"{name}: {value:.3f}")
        return
    command = (
        f"python -m benchmarks.at_rest --readings {arguments.readings} --series {arguments.series} "
        f"--per-message {arguments.per_message}"
    )
    append_results(
        ROOT / "benchmarks" / "RESULTS.md",
        figures,
        command=command,
        machine=machine.description(),
        moment=datetime.now(UTC),
    )


if __name__ == "__main__":
    main()
