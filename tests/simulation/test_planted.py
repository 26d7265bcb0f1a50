"""Bugs planted in six places are found by the first seeds of the default swarm, each by the checker that should."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import pytest

from tests.simulation import ablation_leaders as scripts
from tests.simulation.failure import CheckFailed
from tests.simulation.planted import BUGS, CHECKS
from tests.simulation.swarm import run_seed
from tests.simulation.world import Plan

SEEDS = range(8)
"""Every seed so far has caught each of these; some more, so that a change of the simulator needs no other seed here."""

FOUND_AT_ONCE = tuple(name for name in BUGS if name in CHECKS)


@pytest.mark.parametrize("name", FOUND_AT_ONCE)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with monkeypatch.context() as patch:
        BUGS[name](patch)
        reports = (run_seed(Plan(seed)) for seed in SEEDS)
        failures = list(islice((report.failure for report in reports if report.failure), 1))
    assert failures, f"{name} was not found by seeds {SEEDS}"
    assert failures[0].partition(":")[0] in CHECKS[name], failures[0]


@pytest.mark.parametrize(
    ("name", "script", "check"),
    [
        ("vote_recovery", scripts.a_voter_restarts_between_two_candidates, "one_vote"),
        (
            "read_round",
            scripts.the_leader_is_asked_in_the_very_moment_of_its_fall,
            "linearizable_reads",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_script_finds_what_seeds_seldom_reach(
    monkeypatch: pytest.MonkeyPatch, name: str, script: Callable[[], None], check: str
) -> None:
    script()
    BUGS[name](monkeypatch)
    with pytest.raises(CheckFailed, match=check):
        script()


def test_the_seed_that_finds_them_passes_without() -> None:
    assert run_seed(Plan(SEEDS[0])).failure is None
