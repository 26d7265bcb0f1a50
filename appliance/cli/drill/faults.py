"""The faults of a drill, one after the other, each with its moments.

Invariant: a fault begins when every node follows and has caught up, and is lifted before the next begins; at most one
of them is there at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.cli.drill.measuring import Disturbance, catch_up_s, leader_at
from appliance.client.failures import Unfinished
from appliance.client.steady import LOOK_S, SteadyLoad

SLOW_LINK_S: Final = 0.05
"""Each way: a bad radio link."""

SLOW_DISK_S: Final = 0.2
"""A commit: a card that cleans up behind itself."""

FRESH_S: Final = 1.0
"""A look that is older says nothing about now."""

WELL_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.05


class Links(Protocol):
    """Those between nodes; clients are not concerned."""

    def cut_off(self, name: str) -> None: ...

    def delay(self, name: str, delay_s: float) -> None: ...

    def mend(self) -> None: ...


class Cluster(Protocol):
    """What faults do to a cluster."""

    @property
    def names(self) -> list[str]: ...

    @property
    def links(self) -> Links: ...

    def kill(self, name: str) -> None: ...

    def restart(self, name: str) -> None: ...

    def freeze(self, name: str) -> None: ...

    def thaw(self, name: str) -> None: ...

    def stall_disk(self, name: str, seconds: float) -> None: ...

    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """hold_s: how long a fault lasts; settle_s: before the first and after each, when all is well again."""

    hold_s: float
    settle_s: float


class Faults:
    """Injects; records in `done`."""

    def __init__(
        self, cluster: Cluster, load: SteadyLoad, timing: Timing, *, transfer: Callable[[str], None]
    ) -> None:
        """transfer: hands leadership over; empty: to whom the leader likes."""
        self.done: list[Disturbance] = []
        self._cluster, self._load, self._timing, self._transfer = cluster, load, timing, transfer

    def inject(self, name: str) -> Disturbance:
        """One of FAULTS, from a cluster that is well to one that is well again and has settled."""
        leader = self.await_well()
        kind = FAULTS[name]
        followers = [other for other in self._cluster.names if other != leader]
        node = leader if kind.is_at_leader else followers[0]
        fault = Disturbance(name, kind.title, node, began_s=time.monotonic())
        self.done.append(fault)
        kind.act(self, fault)
        fault.lifted_s = fault.lifted_s or time.monotonic()
        self.await_well(since_s=fault.lifted_s)
        self._mark(fault, "all follow again")
        self.pause(self._timing.settle_s)
        fault.until_s = time.monotonic()
        return fault

    def await_well(self, *, since_s: float = 0.0) -> str:
        """Waits until all follow one leader and have caught up since then; who leads. Raises Unfinished."""
        deadline_s = time.monotonic() + WELL_TIMEOUT_S
        since_s = since_s or time.monotonic() - FRESH_S
        while time.monotonic() < deadline_s:
            self._check()
            recent = [look for look in list(self._load.looks)[-4_000:] if look.at_s >= since_s - 2 * FRESH_S]
            leader = leader_at(recent, self._cluster.names, time.monotonic() - FRESH_S)
            fresh = {
                look.name: look for look in recent if look.at_s >= max(since_s, time.monotonic() - FRESH_S)
            }
            if (
                leader
                and set(fresh) == set(self._cluster.names)
                and all(look.leader == leader for look in fresh.values())
                and all(catch_up_s(recent, name, since_s) is not None for name in fresh)
            ):
                return leader
            time.sleep(LOOK_S)
        raise Unfinished(f"the cluster was not well again within {WELL_TIMEOUT_S:g} s; the drill stopped")

    def pause(self, seconds: float) -> None:
        """While the load goes on."""
        end_s = time.monotonic() + seconds
        while (rest_s := end_s - time.monotonic()) > 0:
            self._check()
            time.sleep(min(POLL_S, rest_s))

    def _check(self) -> None:
        self._cluster.check()
        if self._load.error is not None:
            raise self._load.error

    def _mark(self, fault: Disturbance, what: str) -> float:
        now_s = time.monotonic()
        fault.moments.append((now_s, what))
        return now_s

    def kill_and_restart(self, fault: Disturbance) -> None:
        self._cluster.kill(fault.node)
        self._mark(fault, f"{fault.node} killed")
        self.pause(self._timing.hold_s)
        self._cluster.restart(fault.node)
        fault.lifted_s = self._mark(fault, f"{fault.node} started again")
        fault.returned = (fault.node,)

    def freeze(self, fault: Disturbance) -> None:
        self._cluster.freeze(fault.node)
        self._mark(fault, f"{fault.node} stopped")
        try:
            self.pause(self._timing.hold_s)
        finally:
            self._cluster.thaw(fault.node)
        fault.lifted_s = self._mark(fault, f"{fault.node} goes on")
        fault.returned = (fault.node,)

    def cut_off(self, fault: Disturbance) -> None:
        self._cluster.links.cut_off(fault.node)
        self._mark(fault, f"{fault.node} cut off")
        self.pause(self._timing.hold_s)
        self._cluster.links.mend()
        fault.lifted_s = self._mark(fault, "links mended")
        fault.returned = (fault.node,)

    def slow_links(self, fault: Disturbance) -> None:
        self._cluster.links.delay(fault.node, SLOW_LINK_S)
        self._mark(fault, f"links of {fault.node} delayed by {SLOW_LINK_S * 1000:g} ms each way")
        self.pause(self._timing.hold_s)
        self._cluster.links.mend()
        fault.lifted_s = self._mark(fault, "links mended")

    def slow_disk(self, fault: Disturbance) -> None:
        self._cluster.stall_disk(fault.node, SLOW_DISK_S)
        self._mark(fault, f"each commit of {fault.node} takes {SLOW_DISK_S * 1000:g} ms more")
        self.pause(self._timing.hold_s)
        self._cluster.stall_disk(fault.node, 0)
        fault.lifted_s = self._mark(fault, "disk well again")

    def restart_all(self, fault: Disturbance) -> None:
        fault.node = "all"
        for name in self._cluster.names:
            self._cluster.kill(name)
        self._mark(fault, "all killed")
        for name in self._cluster.names:
            self._cluster.restart(name)
        fault.lifted_s = self._mark(fault, "all started again")
        fault.returned = tuple(self._cluster.names)

    def hand_over(self, fault: Disturbance) -> None:
        self._mark(fault, "leadership transfer asked for")
        self._transfer("")
        fault.lifted_s = self._mark(fault, "another node leads")


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault: whether it happens to the leader, and what happens."""

    title: str
    is_at_leader: bool
    act: Callable[[Faults, Disturbance], None]


TRANSFER: Final = "leadership-transfer"
FAULTS: Final = {
    "leader-killed": Kind("Leader killed (-9), restarted", True, Faults.kill_and_restart),
    "leader-frozen": Kind("Leader frozen (SIGSTOP)", True, Faults.freeze),
    "follower-killed": Kind("Follower killed (-9), restarted", False, Faults.kill_and_restart),
    "leader-cut-off": Kind("Leader cut off from the others", True, Faults.cut_off),
    "slow-link": Kind("Slow links of the leader", True, Faults.slow_links),
    "slow-disk": Kind("Slow disk of the leader", True, Faults.slow_disk),
    "all-restarted": Kind("All killed at once, restarted", True, Faults.restart_all),
    TRANSFER: Kind("Leadership transfer", True, Faults.hand_over),
}
"""By name, in the order of a drill."""
