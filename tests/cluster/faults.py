"""What is done to the nodes and to what joins them. One fault, or two at once, at a time; then all is made whole.

Invariant: a fault says what it needs undone by nothing but Fleet.resume_all; which faults come, in which order and for
how long, follows from the seed (what they meet does not: the processes are real).
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import grpc

from raftberry.v1 import cluster_pb2, cluster_pb2_grpc
from tests.cluster.fleet import PATIENCE_S, Fleet
from tests.process.nodes import Node, wait_for

Begin = Callable[["Faults"], float]
"""Begins a fault; how many seconds it lasts."""


class Faults:
    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.fleet, self.rng = fleet, rng
        self.counts: Counter[str] = Counter()

    def run(self, kind: str) -> None:
        """Begin, wait, and make all whole again."""
        seconds = FAULTS[kind](self)
        self.counts[kind] += 1
        self._last(seconds)
        self.fleet.resume_all()

    def run_together(self, kinds: Sequence[str]) -> None:
        """The second meets what the first has left."""
        seconds = 0.0
        for kind in kinds:
            seconds = max(seconds, FAULTS[kind](self))
            self.counts[kind] += 1
            self._last(self.rng.uniform(0.1, 1.0))
        self._last(seconds)
        self.fleet.resume_all()

    def _last(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.fleet.watch_over()
            time.sleep(0.05)

    # who --------------------------------------------------------------------------------------------------

    def leader(self) -> Node:
        """The leader as far as any node knows; anybody if none does."""
        for node in self.fleet.nodes:
            status = node.status() if node.is_running else None
            if status is not None and status.leader:
                return self.fleet[status.leader]
        return self.any()

    def any(self) -> Node:
        return self.rng.choice(self.fleet.nodes)

    def follower(self) -> Node:
        leader = self.leader()
        return self.rng.choice([node for node in self.fleet.nodes if node is not leader])

    def kill(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if node.is_running:
                node.signal(signal.SIGKILL)
        for node in nodes:
            node.kill()
            node.process = None

    def names(self) -> list[str]:
        names = list(self.fleet.network.names)
        self.rng.shuffle(names)
        return names


# processes -----------------------------------------------------------------------------------------------


def kill_leader(faults: Faults) -> float:
    faults.kill([faults.leader()])
    return faults.rng.uniform(0.0, 4.0)


def kill_follower(faults: Faults) -> float:
    faults.kill([faults.follower()])
    return faults.rng.uniform(0.0, 4.0)


def kill_two(faults: Faults) -> float:
    faults.kill(faults.rng.sample(faults.fleet.nodes, 2))
    return faults.rng.uniform(0.0, 4.0)


def kill_majority(faults: Faults) -> float:
    faults.kill(faults.rng.sample(faults.fleet.nodes, 3))
    return faults.rng.uniform(0.0, 2.0)


def kill_all(faults: Faults) -> float:
    faults.kill(faults.fleet.nodes)
    return 0.0


def kill_while_starting(faults: Faults) -> float:
    node = faults.any()
    faults.kill([node])
    for _ in range(3):
        faults.fleet.start_node(node)
        time.sleep(faults.rng.uniform(0.05, 1.5))
        faults.kill([node])
    return 0.0


def stop_gracefully(faults: Faults) -> float:
    node = faults.leader()
    assert node.terminate(timeout_s=PATIENCE_S) == 0, f"{node.name}: {node.log[-4000:]}"
    node.process = None
    return faults.rng.uniform(0.0, 1.0)


def pause_leader(faults: Faults) -> float:
    faults.leader().signal(signal.SIGSTOP)
    return faults.rng.uniform(0.5, 8.0)


def pause_follower(faults: Faults) -> float:
    faults.follower().signal(signal.SIGSTOP)
    return faults.rng.uniform(0.5, 8.0)


def pause_two(faults: Faults) -> float:
    for node in faults.rng.sample(faults.fleet.nodes, 2):
        node.signal(signal.SIGSTOP)
    return faults.rng.uniform(0.5, 6.0)


def transfer(faults: Faults) -> float:
    """Leadership is asked to go to somebody; a refusal is no matter."""
    target = faults.any().name
    stub = cluster_pb2_grpc.ClusterServiceStub(faults.leader().channel)
    try:
        stub.TransferLeadership(cluster_pb2.TransferLeadershipRequest(target=target), timeout=5)
    except grpc.RpcError as error:
        assert error.code() is not grpc.StatusCode.INTERNAL, f"{error}"
    return 0.0


# links ---------------------------------------------------------------------------------------------------


def link_down_leader(faults: Faults) -> float:
    faults.fleet.network.link_down(faults.leader().name)
    return faults.rng.uniform(0.5, 9.0)


def link_down_any(faults: Faults) -> float:
    faults.fleet.network.link_down(faults.any().name)
    return faults.rng.uniform(0.5, 9.0)


def partition_leader_in_minority(faults: Faults) -> float:
    leader = faults.leader().name
    others = [name for name in faults.names() if name != leader]
    faults.fleet.network.partition([leader, others[0]], others[1:])
    return faults.rng.uniform(1.0, 9.0)


def partition_in_three(faults: Faults) -> float:
    names = faults.names()
    faults.fleet.network.partition(names[:2], names[2:4], names[4:])
    return faults.rng.uniform(1.0, 6.0)


def partition_all(faults: Faults) -> float:
    faults.fleet.network.partition(*([name] for name in faults.names()))
    return faults.rng.uniform(0.5, 4.0)


def one_way_from_leader(faults: Faults) -> float:
    """Nobody hears the leader; it hears everybody."""
    leader = faults.leader().name
    for name in faults.names():
        if name != leader:
            faults.fleet.network.block(leader, name)
    return faults.rng.uniform(1.0, 8.0)


def one_way_to_leader(faults: Faults) -> float:
    """Everybody hears the leader; it hears nobody."""
    leader = faults.leader().name
    for name in faults.names():
        if name != leader:
            faults.fleet.network.block(name, leader)
    return faults.rng.uniform(1.0, 8.0)


def one_way_pairs(faults: Faults) -> float:
    for pair in faults.rng.sample(list(faults.fleet.network.pairs()), 5):
        faults.fleet.network.block(*pair)
    return faults.rng.uniform(1.0, 8.0)


def slow_links(faults: Faults) -> float:
    for one, other in faults.fleet.network.pairs():
        path = faults.fleet.network.path(one, other)
        path.delay_s, path.jitter_s = faults.rng.uniform(0.0, 0.3), faults.rng.uniform(0.0, 0.3)
    return faults.rng.uniform(2.0, 8.0)


def thin_links(faults: Faults) -> float:
    for one, other in faults.fleet.network.pairs():
        faults.fleet.network.path(one, other).bytes_per_s = faults.rng.uniform(2e4, 2e5)
    return faults.rng.uniform(2.0, 8.0)


def stalled_links(faults: Faults) -> float:
    """Longer than an election timeout, shorter than a keepalive: streams survive, and what they hold comes late."""
    pairs = faults.fleet.network.proxied_pairs()
    for one, other in faults.rng.sample(pairs, max(1, len(pairs) // 2)):
        faults.fleet.network.path(one, other).is_blocked = True
    return faults.rng.uniform(0.5, 5.0)


def cut_streams(faults: Faults) -> float:
    """What a lossy link does to TCP in the end: connections break, again and again."""
    pairs = faults.fleet.network.proxied_pairs()
    for _ in range(12):
        faults.fleet.network.cut(faults.rng.sample(pairs, max(1, len(pairs) // 3)))
        time.sleep(faults.rng.uniform(0.02, 0.4))
    return 0.0


# disks ---------------------------------------------------------------------------------------------------


def full_disk_of_leader(faults: Faults) -> float:
    faults.fleet.fill(faults.leader())
    return faults.rng.uniform(3.0, 9.0)


def full_disk_of_follower(faults: Faults) -> float:
    faults.fleet.fill(faults.follower())
    return faults.rng.uniform(3.0, 9.0)


def full_disks_of_majority(faults: Faults) -> float:
    """Nothing can be acknowledged any more."""
    for node in faults.rng.sample(faults.fleet.nodes, 3):
        faults.fleet.fill(node)
    return faults.rng.uniform(3.0, 6.0)


# snapshots -----------------------------------------------------------------------------------------------


def long_absence(faults: Faults) -> float:
    """A node comes back to a leader whose log no longer reaches back to where it was."""
    fleet = faults.fleet
    absent, leading = faults.rng.sample(fleet.nodes[3:], 2)
    _lead(faults, leading)
    status = absent.status(timeout_s=5)
    faults.kill([absent])
    if status is not None:
        _trim_past(leading, status.applied_index)
    return 0.0


def _lead(faults: Faults, node: Node) -> None:
    end = time.monotonic() + 20
    while faults.leader() is not node and time.monotonic() < end:
        stub = cluster_pb2_grpc.ClusterServiceStub(faults.leader().channel)
        try:
            stub.TransferLeadership(cluster_pb2.TransferLeadershipRequest(target=node.name), timeout=3)
        except grpc.RpcError:
            time.sleep(0.1)


def _trim_past(leader: Node, index: int) -> None:
    """More log than the leader keeps is written meanwhile, by the clients; a checkpoint lets it go."""

    def is_trimmed() -> bool:
        leader.request_checkpoint()
        status = leader.status(timeout_s=2)
        if status is None or status.role != cluster_pb2.ROLE_LEADER:
            return True  # somebody else leads now: then it is an absence like any other
        return status.commit_index > index + ABSENT_ENTRIES

    wait_for("the cluster to get on without a node", is_trimmed, timeout_s=PATIENCE_S)


ABSENT_ENTRIES: Final = 800
"""64 KiB of log, in entries of 100 bytes and more."""

FAULTS: Final[dict[str, Begin]] = {
    each.__name__: each
    for each in (
        kill_leader, kill_follower, kill_two, kill_majority, kill_all, kill_while_starting, stop_gracefully,
        pause_leader, pause_follower, pause_two, transfer, link_down_leader, link_down_any,
        partition_leader_in_minority, partition_in_three, partition_all, one_way_from_leader, one_way_to_leader,
        one_way_pairs, slow_links, thin_links, stalled_links, cut_streams, full_disk_of_leader,
        full_disk_of_follower, full_disks_of_majority, long_absence,
    )
}  # fmt: skip

TOGETHER: Final = (
    ("slow_links", "kill_leader"), ("cut_streams", "pause_leader"), ("full_disk_of_follower", "kill_leader"),
    ("one_way_pairs", "kill_follower"), ("pause_follower", "kill_leader"), ("thin_links", "partition_in_three"),
    ("stalled_links", "kill_two"), ("pause_leader", "link_down_any"),
)  # fmt: skip
