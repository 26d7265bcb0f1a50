"""The main job: real sensor files in through one node, out through another, also after kill -9 of all."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.process.client import readings_of
from tests.process.nodes import ROOT, Cluster

SENSORS = sorted((ROOT / "tests" / "data" / "real-sensors").glob("*.csv"))


def expected_readings(path: Path) -> list[tuple[int, float]]:
    """What a file holds, by time; of two lines with one timestamp the later stands."""
    with path.open(newline="", encoding="utf-8") as lines:
        by_time = {
            round(datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()) * 10**9: float(
                row["value"]
            )
            for row in csv.DictReader(lines)
        }
    return sorted(by_time.items())


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a raftberry command to its end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "generated")])}
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def check_all_files(cluster: Cluster, node: str) -> None:
    for path in SENSORS:
        assert readings_of(cluster[node].channel, path.stem, "value") == expected_readings(path), path.name


def test_real_files_come_back_equal_through_another_node_before_and_after_kill_9_of_all(
    cluster: Cluster,
) -> None:
    assert len(SENSORS) == 8
    for path in SENSORS:
        done = run_command(
            *("import", str(path), "--sensor", path.stem, "--metric", "value"),
            *("--endpoint", cluster["n1"].client_address),
        )
        assert done.returncode == 0, done.stderr
    check_all_files(cluster, "n2")
    before = cluster.wait_equal_state()

    cluster.kill_all()
    cluster.start()
    check_all_files(cluster, "n3")
    assert cluster.wait_equal_state() == before


def test_an_import_done_again_changes_nothing(cluster: Cluster) -> None:
    path = SENSORS[0]
    for node in ("n1", "n2"):
        done = run_command(
            *("import", str(path), "--sensor", path.stem, "--metric", "value"),
            *("--endpoint", cluster[node].client_address),
        )
        assert done.returncode == 0, done.stderr
    assert readings_of(cluster["n3"].channel, path.stem, "value") == expected_readings(path)


def test_an_exported_file_equals_the_imported_one(cluster: Cluster, tmp_path: Path) -> None:
    path = SENSORS[1]
    endpoint = ("--endpoint", cluster["n1"].client_address)
    series = ("--sensor", path.stem, "--metric", "value")
    assert run_command("import", str(path), *series, *endpoint).returncode == 0
    done = run_command("export", *series, *endpoint)
    assert done.returncode == 0, done.stderr
    copy = tmp_path / "copy.csv"
    copy.write_text(done.stdout, encoding="utf-8")
    assert expected_readings_of_export(copy) == expected_readings(path)


def expected_readings_of_export(path: Path) -> list[tuple[int, float]]:
    """An exported file; its timestamps carry their zone."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            (round(datetime.fromisoformat(row["timestamp"]).timestamp()) * 10**9, float(row["value"]))
            for row in csv.DictReader(lines)
        ]
