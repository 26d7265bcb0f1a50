"""A rolling upgrade of three real nodes under load, with leaders of both versions, and nothing lost.

`python -m tests.process.upgrading TREE [--reverse]`, from script/test-upgrade: from the version in another tree,
which was set up, to this one, or from this to that. Prints what it did; an AssertionError says what was wrong.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from raftberry.v1 import cluster_pb2, cluster_pb2_grpc
from tests.process.nodes import Cluster, Node, Program, wait_for
from tests.process.writers import Writer, check_all, start_writers, wait_more

CALL_TIMEOUT_S = 60.0


def change_program(cluster: Cluster, node: Node, program: Program) -> None:
    """Stop the node as a package's upgrade does, and start another version of it."""
    assert node.terminate() == 0, node.log[-3000:]
    node.program = program
    node.start()
    cluster.wait_following(node)


def lead(cluster: Cluster, node: Node) -> None:
    """Make this node the leader; a target that lags refuses, then it is asked again."""

    def leads() -> bool:
        leader = cluster.leader()
        if leader is node:
            return True
        stub = cluster_pb2_grpc.ClusterServiceStub(leader.channel)
        request = cluster_pb2.TransferLeadershipRequest(target=node.name)
        stub.TransferLeadership(request, timeout=CALL_TIMEOUT_S)
        return False

    wait_for(f"{node.name} to lead", leads)


def upgrade_under_load(
    cluster: Cluster, program: Program, after_each: Callable[[Node], None] = lambda _: None
) -> list[str]:
    """All nodes of the cluster, which runs, to program, one after the other; what was done, for people."""
    writers = start_writers(cluster.endpoints)
    story, begun = [], time.monotonic()
    try:
        wait_more(writers, "before the upgrade")
        for node in cluster.nodes:
            story.append(_upgrade(cluster, node, program, writers))
            after_each(node)
    except BaseException:
        for writer in writers:
            writer.stop()
        raise
    story.append(check_all(cluster, writers, begun=begun))
    return story


def _upgrade(cluster: Cluster, node: Node, program: Program, writers: list[Writer]) -> str:
    """One node, and back, and again; then leaders of both versions, and a node that is lost without a word."""
    old = node.program
    change_program(cluster, node, program)
    waiting = [one for one in cluster.nodes if one.program == old]
    if waiting:
        # As long as one node is of the old version, any may go back to it.
        change_program(cluster, node, old)
        change_program(cluster, node, program)
    leaders = [node, *waiting[:1]]
    for leader in leaders:
        lead(cluster, leader)
        wait_more(writers, f"while {leader.name} ({leader.program.name}) leads")
    follower = next(one for one in cluster.nodes if one is not leaders[-1])
    follower.kill()
    wait_more(writers, f"while {follower.name} is away")
    follower.start()
    cluster.wait_following(follower)
    led = " and ".join(f"{leader.name} ({leader.program.name})" for leader in leaders)
    return f"{node.name}: {old.name} -> {program.name}; led by {led}; {follower.name} killed and back"


def main() -> None:
    tree = Path(sys.argv[1]).resolve()
    other = Program(tree.name, tree, (str(tree / ".venv" / "bin" / "python"), "-m", "appliance"))
    old, new = (Program(), other) if "--reverse" in sys.argv else (other, Program())
    with tempfile.TemporaryDirectory(prefix="raftberry-nodes-") as folder, Cluster(Path(folder)) as cluster:
        for node in cluster:
            node.program = old
        cluster.start()
        for line in upgrade_under_load(cluster, new):
            print(line, flush=True)


if __name__ == "__main__":
    main()
