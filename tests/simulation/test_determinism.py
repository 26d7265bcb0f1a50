"""Same seed, same trace: on a second run, whatever the hash seed of the process and wherever its objects lie."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from appliance.state.series import Series
from tests.simulation.checkers.watches import WaitedFor
from tests.simulation.swarm import run_seed
from tests.simulation.world import Plan

SEED = 2
SEED_WITH_TWO_WATCHES_OF_A_NODE = 0


def test_a_second_run_has_the_same_trace() -> None:
    assert run_seed(Plan(SEED)).trace_digest == run_seed(Plan(SEED)).trace_digest


def test_another_seed_has_another_trace() -> None:
    assert run_seed(Plan(SEED)).trace_digest != run_seed(Plan(SEED + 1)).trace_digest


def test_the_trace_does_not_depend_on_where_objects_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of objects without a hash of their own goes by their addresses: here by their age, either way."""
    digests = []
    for direction in (1, -1):
        for kind in (WaitedFor, Series):
            monkeypatch.setattr(kind, "__hash__", hash_by_age(direction))
        digests.append(run_seed(Plan(SEED_WITH_TWO_WATCHES_OF_A_NODE)).trace_digest)
    assert digests[0] == digests[1]


def hash_by_age(direction: int) -> Callable[[object], int]:
    aged: dict[int, tuple[int, object]] = {}

    def age(thing: object) -> int:
        """The thing is kept, so that no other gets its id."""
        number, _ = aged.setdefault(id(thing), (len(aged), thing))
        return direction * number

    return age


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
