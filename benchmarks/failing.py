"""How long nothing is acknowledged when the leader is killed, frozen or cut off from the others.

Invariant: one writer for all systems, which gives an attempt a quarter of a second and then goes on to the next node;
what it was acknowledged is read back after the fault has ended.
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.client import Load
from benchmarks.figures import Figures
from benchmarks.systems import System

FAULTS: Final = {
    "kill": "leader killed (kill -9)",
    "freeze": "leader frozen (SIGSTOP)",
    "cut": "leader cut off",
}
BEFORE_S: Final = 1.0
SERIES: Final = 80_000
SLOW: Final = frozenset({"nats", "redis"})
"""Their gaps are long: they are watched longer."""

SHARES: Final = {"raftberry": 1, "etcd": 2, "etcd-500ms": 2}
"""Ours is tried most often, because its worst case counts; of the others (3) one in so many."""


def measure_faults(figures: Figures, system: System, fault: str, *, trials: int) -> None:
    """trials faults of one kind, the cluster being whole again before each."""
    after_s = 12.0 if system.name in SLOW else 4.0
    for trial in range(max(1, trials // SHARES.get(system.name, 3))):
        leader = system.leader()
        client = Load(
            *(system.protocol, "gap", leader_first_but_last(system, leader), "--clients", 1),
            *("--seconds", BEFORE_S + after_s, "--first-series", SERIES + trial, "--pause"),
        )
        client.wait_for("ready")
        client.go_on()
        time.sleep(BEFORE_S)
        _inject(system, fault, leader)
        client.wait_for("written")
        _mend(system, fault, leader)
        system.leader()
        client.go_on()
        result = client.result()
        title = f"{FAULTS[fault]}: nothing acknowledged"
        figures.note(f"gap-{fault}", title, "gap", system.name, result["gap_s"])
        if result["lost"]:
            figures.fail(f"gap-{fault}", title, system.name, client.remarks)
        time.sleep(1.0)


def leader_first_but_last(system: System, leader: int) -> list[str]:
    """The writer begins at the leader; what is read back comes through the last, a node without the fault."""
    return system.endpoints[leader:] + system.endpoints[:leader]


def _inject(system: System, fault: str, leader: int) -> None:
    if fault == "kill":
        system.kill(leader)
    elif fault == "freeze":
        system.freeze(leader)
    else:
        assert system.links is not None
        system.links.cut(leader)


def _mend(system: System, fault: str, leader: int) -> None:
    if fault == "kill":
        system.start_one(leader)
    elif fault == "freeze":
        system.thaw(leader)
    else:
        assert system.links is not None
        system.links.mend()
    time.sleep(1.5)
