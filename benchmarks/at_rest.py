"""Bytes at rest: real sensors' readings through one node's API, then `data.mdb` as it lies, free pages included.

Each series repeats one of the files of tests/data/real-sensors, from another place in it, with the file's own
distances of time; a file has as many series as its share of all the files' readings.
Invariant: every reading is counted by a query before its bytes are.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.figures import Figures
from benchmarks.goals import OURS
from raftberry.v1 import maintenance_pb2, maintenance_pb2_grpc, reading_pb2, reading_pb2_grpc
from tests.process.nodes import Cluster, Node

ROOT: Final = Path(__file__).resolve().parent.parent
REAL: Final = ROOT / "tests" / "data" / "real-sensors"
SERIES: Final = 96
PER_MESSAGE: Final = 1_000
AGAIN_SERIES: Final = 20
AGAIN_READINGS: Final = 8_640
"""Of each series: a day, ten seconds apart."""

AGAIN_TIMES: Final = 24
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


def fill(node: Node, series: list[Series], per_message: int) -> None:
    """Write everything."""
    answered = 0
    for response in reading_pb2_grpc.ReadingServiceStub(node.channel).StreamWrite(
        requests(series, per_message)
    ):
        assert response.status.code == 0, response.status.message
        answered += 1
    assert answered == -(-len(series[0][0]) // per_message) * len(series)


def count(node: Node) -> int:
    query = reading_pb2.QueryRequest(aggregations=[reading_pb2.AGGREGATION_COUNT])
    responses = reading_pb2_grpc.ReadingServiceStub(node.channel).Query(query)
    return sum(sum(readings.int_value) for response in responses for readings in response.readings)


def measure_real(figures: Figures, folder: Path, *, readings: int) -> None:
    """One node: what it keeps is what each node of a cluster keeps."""
    each = readings // SERIES
    series = [real_series(number, each, of=SERIES) for number in range(SERIES)]
    total = each * SERIES
    key, title = (
        f"real-{readings}",
        f"{readings / 1e6:g} million real readings in {SERIES} series, their own times",
    )
    with Cluster(folder, size=1) as cluster:
        cluster.start()
        (node,) = cluster
        fill(node, series, PER_MESSAGE)
        stub = maintenance_pb2_grpc.MaintenanceServiceStub(node.channel)
        stub.Checkpoint(maintenance_pb2.CheckpointRequest(), timeout=120)
        found = count(node)
        distinct = sum(len(np.unique(times)) for times, _ in series)
        assert found == distinct, f"{distinct} acknowledged, {found} read back"
        figures.note(key, title, "rss", OURS, machine.usage(node.pid).rss_anon_bytes / (1 << 20))
        node.terminate(timeout_s=120)
        (store,) = node.data.glob("store.*")
        figures.note(key, title, "rest", OURS, (store / "data.mdb").stat().st_size / total)


def measure_again(figures: Figures, folder: Path) -> None:
    """A gateway that sends its last day again each hour; a checkpoint each time."""
    series = [real_series(number, AGAIN_READINGS, of=AGAIN_SERIES) for number in range(AGAIN_SERIES)]
    distinct = sum(len(np.unique(times)) for times, _ in series)
    with Cluster(folder, size=1) as cluster:
        cluster.start()
        (node,) = cluster
        stub = maintenance_pb2_grpc.MaintenanceServiceStub(node.channel)
        for time in range(1, AGAIN_TIMES + 1):
            fill(node, series, PER_MESSAGE)
            stub.Checkpoint(maintenance_pb2.CheckpointRequest(), timeout=120)
            if time in (1, AGAIN_TIMES):
                found = count(node)
                assert found == distinct, f"{distinct} acknowledged, {found} read back"
                (store,) = node.data.glob("store.*")
                key = f"again-{time}"
                title = f"a day of {AGAIN_SERIES} real series, sent {time} times"
                figures.note(key, title, "rest", OURS, (store / "data.mdb").stat().st_size / distinct)
