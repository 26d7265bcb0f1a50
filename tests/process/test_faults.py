"""Promises 1 to 3 under fire: what was acknowledged is there, once, on every node, with equal state."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.process.faults import Faults
from tests.process.nodes import Cluster
from tests.process.writers import check_all, start_writers

DURATION_S = 60.0
DURATION_S_MAX = 400.0
"""Faults are made one after the other, each after the recovery from the one before: slow machines need longer."""

SEED = 20_240_601


@pytest.mark.timeout(600)
def test_no_acknowledged_write_is_lost_or_doubled_by_kills_and_pauses(cluster: Cluster) -> None:
    faults = Faults(cluster, random.Random(SEED))
    writers = start_writers(cluster.endpoints)
    begin = time.monotonic()
    menu = [
        faults.kill_leader,
        faults.kill_any,
        faults.kill_in_committer,
        faults.kill_leader,
        faults.pause_follower,
        faults.kill_any,
        faults.kill_in_committer,
        faults.kill_leader,
        faults.pause_leader,
    ]
    goals = {"kills": 30, "leader_kills": 10, "committer_kills": 5, "pauses": 4}
    turn = 0
    while time.monotonic() - begin < DURATION_S or not faults.counts.is_enough(**goals):
        assert time.monotonic() - begin < DURATION_S_MAX, f"too few faults in time: {faults.summary()}"
        menu[turn % len(menu)]()
        turn += 1
    print(f"{faults.summary()}; {check_all(cluster, writers, begun=begin)}")


@pytest.mark.timeout(600)
def test_a_cluster_of_one_loses_nothing_either(make_cluster: Callable[..., Cluster]) -> None:
    single = make_cluster(size=1)
    single.start()
    faults = Faults(single, random.Random(SEED))
    writers = start_writers(single.endpoints)
    begin = time.monotonic()
    goals = {"kills": 12, "leader_kills": 10, "committer_kills": 5, "pauses": 0}
    turn = 0
    while time.monotonic() - begin < 20 or not faults.counts.is_enough(**goals):
        assert time.monotonic() - begin < DURATION_S_MAX, f"too few faults in time: {faults.summary()}"
        if turn % 2:
            faults.kill_in_committer(single.nodes[0])
        else:
            faults.kill_leader()
        turn += 1
    print(f"{faults.summary()}; {check_all(single, writers, begun=begin)}")
