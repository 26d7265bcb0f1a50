"""drill with real nodes: every fault is in its report, nothing is lost or double, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.process.nodes import READY_TIMEOUT_S, ROOT, wait_for

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "generated")])}


def start_drill(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "appliance", "drill", "--directory", str(folder), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def processes_below(folder: Path) -> list[int]:
    """Those whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{folder}/raftberry-drill-".encode() in command:
                found.append(int(entry.name))
    return found


def test_a_drill_of_two_faults_loses_nothing_and_reports_both(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    report, figures = tmp_path / "drill.html", tmp_path / "drill.json"
    arguments = ["--fault", "leader-killed", "--fault", "leader-cut-off", "--hold", "2s", "--settle", "500ms"]
    arguments += ["--rate", "50", "--report", str(report), "--json", str(figures)]
    with start_drill(home, *arguments) as process:
        _, err = process.communicate(timeout=3 * READY_TIMEOUT_S)
    assert process.returncode == 0, err
    record = json.loads(figures.read_text())
    assert (record["writes"]["lost"], record["writes"]["duplicated"]) == (0, 0)
    assert record["writes"]["acknowledged"] > 0
    assert [fault["name"] for fault in record["faults"]] == ["leader-killed", "leader-cut-off"]
    page = report.read_text()
    assert all(fault["title"] in page for fault in record["faults"])
    assert list(home.iterdir()) == []
    assert processes_below(home) == []


def test_an_interrupted_drill_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_drill(tmp_path, "--fault", "leader-frozen", "--hold", "120s", "--settle", "100ms") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "frozen" in line:
                break
        assert processes_below(tmp_path)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=READY_TIMEOUT_S)
    assert process.returncode == 130, err
    wait_for("the nodes to be gone", lambda: not processes_below(tmp_path))
    assert list(tmp_path.iterdir()) == []
