"""bench with a real node: its table, and that it leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from raftberry.v1 import reading_pb2, reading_pb2_grpc
from tests.process.nodes import READY_TIMEOUT_S, ROOT, Cluster, Node

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "generated")])}


def start_bench(node: Node, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "appliance",
        "bench",
        "-e",
        node.client_address,
        "--timeout",
        "120s",
        *arguments,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def series_of(node: Node) -> list[reading_pb2.Series]:
    stub = reading_pb2_grpc.ReadingServiceStub(node.channel)
    return [one for response in stub.ListSeries(reading_pb2.ListSeriesRequest()) for one in response.series]


def test_every_kind_of_work_is_measured_and_nothing_is_left_behind(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    single = make_cluster(size=1)
    single.start()
    node = single.nodes[0]
    disk = tmp_path / "disk"
    disk.mkdir()
    with start_bench(node, "--for", "200ms", "--clients", "2", "--disk", str(disk), "-o", "json") as process:
        out, err = process.communicate(timeout=READY_TIMEOUT_S)
    assert process.returncode == 0, err
    rows = json.loads(out)
    assert [row["work"].split(",")[0].split(" ")[0] for row in rows] == [
        *("fdatasync", "status", "write", "write", "stream", "latest", "latest", "query", "watch")
    ]
    assert all(row["per_second"] > 0 and row["p50_ms"] > 0 for row in rows)
    sent = re.search(
        r"n1 sent ([\d,]+) bytes to its disk meanwhile, (\d+) for each of the ([\d,]+) readings", err
    )
    assert sent is not None, err
    assert int(sent[1].replace(",", "")) > 0
    assert series_of(node) == []
    assert list(disk.iterdir()) == []


def test_an_interrupted_run_deletes_its_series_too(make_cluster: Callable[..., Cluster]) -> None:
    single = make_cluster(size=1)
    single.start()
    node = single.nodes[0]
    with start_bench(node, "--for", "3s", "--clients", "2") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "status, 1 client" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=READY_TIMEOUT_S)
    assert process.returncode == 130, err
    assert series_of(node) == [], err
