"""A lost majority that comes back after one of its nodes was made a new cluster: it stands by, and joins."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftberry.v1 import cluster_pb2
from tests.process.joining import wait_role
from tests.process.nodes import wait_for
from tests.process.secured import HOST, SecuredCluster, SecuredNode, raftberry


@pytest.mark.timeout(600)
def test_old_members_stand_by_and_are_taken_in_by_one_command(tmp_path: Path) -> None:
    with SecuredCluster(tmp_path / "s", size=3) as cluster:
        cluster.form()
        first, second, third = cluster.nodes
        assert first.command("kv", "put", "kept", "1").returncode == 0
        for node in cluster.nodes:
            node.kill()
        superseded = recover(first)
        first.start()
        first.wait_serving()
        # The two that were lost have a majority of the old cluster between them.
        second.start()
        third.start()
        for node in (second, third):
            told = wait_role(node, cluster_pb2.ROLE_REMOVED)
            assert f"its cluster {superseded} was superseded by" in told.alarms[0]
            assert "`sudo raftberry invite` on a member" in told.alarms[0]
            assert "--discard-data" in told.alarms[0]
            assert (node.data / "identity").exists()
            # It has no links any more, and disturbs nobody.
            wait_for("its links to end", lambda node=node: "listening anew" in node.log)
        # It is durable: the node stands by also where nobody tells it.
        first.kill()
        second.kill()
        second.start()
        told = wait_role(second, cluster_pb2.ROLE_REMOVED)
        assert "was superseded by" in told.alarms[0]
        first.start()
        first.wait_serving()
        for node in (second, third):
            joined = node.join(first, first.invite(), "--discard-data")
            assert joined.returncode == 0, f"{joined.stderr}\n{node.log[-3000:]}"
        wait_for("one cluster of three", lambda: all(node.is_voter_of(3) for node in cluster.nodes))
        assert "1" in third.command("kv", "get", "kept").stdout


def recover(node: SecuredNode) -> str:
    """Make a new cluster of it; the id of the old one."""
    status = raftberry(
        *("recover", "--force-new-cluster", "--yes", "--data", str(node.data), "--name", node.name),
        *("--peer-address", f"{HOST}:{node.peer_address.rpartition(':')[2]}", "-o", "json"),
    )
    assert status.returncode == 0, status.stderr
    words = [line for line in node.log.splitlines() if "founded cluster=" in line]
    return words[0].partition("founded cluster=")[2].split()[0]
