"""The short form of script/test-cluster: four faults, one of each sort, and every checker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.process.nodes import ROOT

KINDS: Final = ("kill_leader", "partition_leader_in_minority", "full_disk_of_follower", "cut_streams")
TIMEOUT_S: Final = 840
"""It takes less than a minute where nothing else runs."""


def test_nothing_acknowledged_is_lost_under_faults_of_process_link_and_disk(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # Whatever becomes of this process: the run ends with it.
    with_parent = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    command = (sys.executable, "-m", "tests.cluster", "--seed", "1", "--kinds", ",".join(KINDS))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "generated")))}
    done = subprocess.run(
        (*with_parent, *command, "--folder", str(folder)),
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    result = json.loads((folder / "result.json").read_text())
    print(done.stdout)
    assert result["verdict"] == "all checks passed"
    assert result["faults"] == dict.fromkeys(sorted(KINDS), 1)
    # Every checker had something to look at.
    wanted = {
        "log_matching", "entries", "acknowledged", "read", "register_reads", "local_reads", "watched_readings",
        "watched_keys", "contents",
    }  # fmt: skip
    assert {check for check in wanted if not result["checks"].get(check)} == set()
