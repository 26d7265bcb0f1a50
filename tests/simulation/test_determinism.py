"""Same seed, same trace: on a second run, and whatever the hash seed of the process."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.simulation.swarm import run_seed
from tests.simulation.world import Plan

SEED = 2


def test_a_second_run_has_the_same_trace() -> None:
    assert run_seed(Plan(SEED)).trace_digest == run_seed(Plan(SEED)).trace_digest


def test_another_seed_has_another_trace() -> None:
    assert run_seed(Plan(SEED)).trace_digest != run_seed(Plan(SEED + 1)).trace_digest


def test_the_trace_does_not_depend_on_the_hash_seed() -> None:
    last_lines = [_replay(hash_seed).splitlines()[-1] for hash_seed in ("1", "2")]
    assert last_lines[0] == last_lines[1]
    assert f"seed {SEED}" in last_lines[0]


def _replay(hash_seed: str) -> str:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "tests.simulation", "replay", str(SEED)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
