"""Nodes of this version and of the next in one cluster: what needs the new level waits until all have learned it."""

from __future__ import annotations

import pytest

from appliance import features
from appliance.errors import ConditionFailed, DataDirectoryRefused
from appliance.model import Verdict
from tests.node.harness import Cluster, Machine, cluster, put

NEXT = features.LEVEL + 1


@pytest.fixture(autouse=True)
def puts_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the next version had brought Put."""
    monkeypatch.setattr(features, "REQUIRED", {"put": NEXT})


def write(made: Cluster, machine: Machine, key: str) -> list[Verdict]:
    done: list[Verdict] = []
    machine.core.submit(
        put(key),
        made.clock.now_ns + 10**10,
        lambda outcome: done.append(outcome.result.verdict),  # type: ignore[attr-defined]
    )
    made.run_for(1_000)
    return done


def levels(made: Cluster) -> set[int]:
    return {machine.core.state.feature_level for machine in made.machines.values()}


def test_one_node_of_the_previous_version_keeps_the_level_down_and_the_cluster_works() -> None:
    with cluster(levels={1: NEXT, 2: NEXT, 3: features.LEVEL}) as made:
        leader = made.elect()
        made.run_for(5_000)
        assert levels(made) == {features.LEVEL}
        with pytest.raises(
            ConditionFailed,
            match=rf"put needs feature level {NEXT}, the cluster has {features.LEVEL}.*upgrade every node",
        ):
            leader.core.submit(put(), made.clock.now_ns + 10**10, lambda _: None)


def test_a_rolling_upgrade_raises_the_level_when_the_last_node_has_it() -> None:
    with cluster(levels={1: features.LEVEL, 2: features.LEVEL, 3: features.LEVEL}) as made:
        made.elect()
        for number in (1, 2, 3):
            assert NEXT not in levels(made)
            made.restart(number, level=NEXT)
            made.connect()
            made.run_for(8_000)
        assert levels(made) == {NEXT}
        assert write(made, made.followers[0], "k") == [Verdict.APPLIED]
        assert {machine.core.state.key_count for machine in made.machines.values()} == {1}


def test_a_node_that_is_away_keeps_the_level_down() -> None:
    with cluster(levels={1: NEXT, 2: NEXT, 3: NEXT}) as made:
        made.connect((1, 2))
        made.run_for(8_000)
        assert levels(made) == {features.FIRST}
        made.connect()
        made.run_for(8_000)
        assert levels(made) == {NEXT}


def test_the_previous_version_is_refused_by_its_checkpoint_and_at_the_door() -> None:
    with cluster(levels={1: NEXT, 2: NEXT, 3: NEXT}) as made:
        made.elect()
        made.run_for(5_000)
        assert levels(made) == {NEXT}
        one, old = made.machines[next(iter(made.machines))], made.machines[list(made.machines)[2]]
        hello = old.core.hello(one.core.me.member_id)
        hello.hello.feature_level = features.LEVEL
        refusal = one.core.check_hello(hello)
        assert refusal is not None
        assert f"knows feature level {features.LEVEL}; the cluster has {NEXT}" in refusal.message
        old.core.checkpoint(lambda _: None)
        made.run_for(1_000)
        with pytest.raises(DataDirectoryRefused, match="install the version of the other nodes"):
            made.restart(3, level=features.LEVEL)


def test_the_level_survives_restarts_of_all() -> None:
    with cluster(levels={1: NEXT, 2: NEXT, 3: NEXT}) as made:
        made.elect()
        made.run_for(5_000)
        for number in (1, 2, 3):
            made.restart(number, level=NEXT)
        made.connect()
        made.run_for(8_000)
        assert levels(made) == {NEXT}
