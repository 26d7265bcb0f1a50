"""What the fault test does to a cluster: one fault at a time, each counted, each followed by recovery.

Invariant: at most one node of three is away at a time, so that the cluster always could serve.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.process.nodes import Cluster, Node, wait_for

PAUSE_S: Final = 3.0
FAILPOINTS: Final = (
    "journal.before_commit:kill:0.05",
    "journal.after_commit:kill:0.05",
    "store.before_commit:kill:1",
    "store.after_commit:kill:1",
)
"""Where the committer of a node is killed: between the steps of journal and checkpoint."""

FAILPOINT_TIMEOUT_S: Final = 20.0
"""From the start of the process to its end at the failpoint."""


@dataclass
class FaultCounts:
    """Faults that happened, by kind."""

    kills: int = 0
    leader_kills: int = 0
    committer_kills: int = 0
    pauses: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def is_enough(self, *, kills: int, leader_kills: int, committer_kills: int, pauses: int) -> bool:
        return (
            self.kills >= kills
            and self.leader_kills >= leader_kills
            and self.committer_kills >= committer_kills
            and self.pauses >= pauses
        )


class Faults:
    """Injects faults into a cluster under load; seeded, so that a failure can be tried again."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.counts = FaultCounts()
        self.recovery_s: list[float] = []

    def kill(self, node: Node, *, is_leader: bool) -> None:
        """kill -9, restart, wait until it follows; every third time it is killed once more while it starts."""
        node.kill()
        self._count_kill(is_leader=is_leader)
        node.start()
        if self.counts.kills % 3 == 0:
            time.sleep(self.rng.uniform(0.05, 1.0))
            if node.is_running:
                node.kill()
                self._count_kill(is_leader=False)
                self.counts.kinds["while starting"] += 1
                node.start()
        self._wait_back(node)

    def kill_leader(self) -> None:
        """kill -9 of the leader."""
        self.counts.kinds["leader"] += 1
        self.kill(self.cluster.leader(), is_leader=True)

    def kill_any(self) -> None:
        """kill -9 of a random node."""
        node = self.rng.choice(self.cluster.nodes)
        self.counts.kinds["any"] += 1
        self.kill(node, is_leader=node is self.cluster.leader())

    def kill_in_committer(self, node: Node | None = None) -> None:
        """Restarts a node so that its committer kills the process at a failpoint; then restarts it without."""
        node = node or self.rng.choice(self.cluster.followers())
        is_leader = len(self.cluster.nodes) == 1
        failpoint = FAILPOINTS[self.counts.committer_kills % len(FAILPOINTS)]
        node.kill()
        self._count_kill(is_leader=is_leader)
        node.start(failpoint=failpoint)
        end = time.monotonic() + FAILPOINT_TIMEOUT_S
        while node.is_running:
            assert time.monotonic() < end, f"{failpoint} did not end {node.name}; log: {node.log_path}"
            if failpoint.startswith("store."):
                node.request_checkpoint()
            time.sleep(0.01)
        assert node.wait_exit() == -signal.SIGKILL, f"{failpoint}: {node.log[-2000:]}"
        self._count_kill(is_leader=is_leader)
        self.counts.committer_kills += 1
        self.counts.kinds[failpoint] += 1
        node.start()
        self._wait_back(node)

    def pause_follower(self) -> None:
        """SIGSTOP for 3 s of a follower: it comes back to follow."""
        node = self.rng.choice(self.cluster.followers())
        term = self._term_of(self.cluster.leader())
        self._pause(node)
        self._wait_back(node)
        self._count_election(term, node)

    def pause_leader(self) -> None:
        """SIGSTOP for 3 s of the leader: another is elected, and the old one comes back to follow it."""
        node = self.cluster.leader()
        node.signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        term = self._term_of(self.cluster.leader())
        node.signal(signal.SIGCONT)
        self.counts.pauses += 1
        self.counts.kinds["leader stopped"] += 1
        self._wait_back(node)
        self._count_election(term, node)

    def _pause(self, node: Node) -> None:
        node.signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        node.signal(signal.SIGCONT)
        self.counts.pauses += 1
        self.counts.kinds["follower stopped"] += 1

    def _count_kill(self, *, is_leader: bool) -> None:
        self.counts.kills += 1
        self.counts.leader_kills += is_leader

    def _wait_back(self, node: Node) -> None:
        begin = time.monotonic()
        self.cluster.wait_following(node)
        self.recovery_s.append(time.monotonic() - begin)

    def _term_of(self, node: Node) -> int:
        return wait_for("the term", node.status, timeout_s=60).term

    def _count_election(self, term: int, node: Node) -> None:
        """The simulator asserts that a node that returns causes none; here a stall of the machine may."""
        status = wait_for("the status", node.status, timeout_s=60)
        self.counts.kinds["election after a pause"] += status.term != term

    def summary(self) -> str:
        """One line for the test's output."""
        return (
            f"{self.counts.kills} kills ({self.counts.leader_kills} of the leader, "
            f"{self.counts.committer_kills} inside the committer), {self.counts.pauses} pauses; back after "
            f"{statistics.median(self.recovery_s):.2f} s median, {max(self.recovery_s):.2f} s at most; "
            f"{dict(self.counts.kinds)}"
        )
