"""A node in doubt about its data is rebuilt from its peers, without a person, and stays out until then."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from appliance.storage.directory import QUARANTINE_FILE
from raftberry.v1 import cluster_pb2, key_value_pb2, reading_pb2, reading_pb2_grpc
from tests.process.client import RotatingClient, key_of, readings_of
from tests.process.nodes import Cluster, Node, wait_for
from tests.process.secured import SecuredCluster
from tests.process.test_damage import cut_journal_short, flip_bit_in_a_block, is_out


def put(cluster: Cluster, key: str) -> None:
    client = RotatingClient(cluster.endpoints)
    client.put(key_value_pb2.PutRequest(key=key, value=b"1"), end=time.monotonic() + 60)
    client.close()


def member_id(node: Node) -> str:
    status = node.status(timeout_s=2)
    return status.member_id if status else ""


def is_voter_again(node: Node, old_id: str) -> bool:
    status = node.status(timeout_s=2)
    if status is None or status.member_id in ("", old_id):
        return False
    voters = [peer.name for peer in status.peers if peer.voter]
    return len(voters) == 3 and status.role in (cluster_pb2.ROLE_FOLLOWER, cluster_pb2.ROLE_LEADER)


@pytest.mark.timeout(600)
def test_a_node_with_a_damaged_journal_comes_back_as_a_new_member_by_itself(cluster: Cluster) -> None:
    put(cluster, "before")
    node = cluster.followers()[0]
    cluster.wait_following(node)
    old_id = member_id(node)
    node.kill()
    cut_journal_short(node)
    node.rebuild_after = "1s"
    node.start()
    wait_for("the node to be a voter again", lambda: is_voter_again(node, old_id))
    assert "to be rebuilt from its peers" in node.log
    put(cluster, "after")
    cluster.wait_equal_state()
    for one in cluster:
        assert key_of(one.channel, "before").value == b"1"
        assert key_of(one.channel, "after").value == b"1"
    # Its old id never comes back, and the new one is not in doubt at the next start.
    node.kill()
    node.start()
    wait_for("the node to be back after a restart", lambda: is_voter_again(node, old_id))


@pytest.mark.timeout(600)
def test_the_scrub_finds_a_flipped_bit_of_a_running_node_which_is_rebuilt_and_equal(cluster: Cluster) -> None:
    rng = random.Random(1)
    values = [rng.random() for _ in range(5_000)]
    write = reading_pb2.WriteRequest(readings=[reading_pb2.Readings(sensor="s", metric="m", value=values)])
    write.readings[0].time_unix_nano.extend(range(1, len(values) + 1))
    node = cluster.followers()[0]
    reading_pb2_grpc.ReadingServiceStub(cluster.leader().channel).Write(write, timeout=60)
    cluster.wait_following(node)
    old_id = member_id(node)
    node.terminate()
    node.rebuild_after = "1s"
    node.settings = {"RAFTBERRY_STORAGE__SCRUB_INTERVAL": "1s"}
    node.start()
    cluster.wait_following(node)

    def is_scrubbed() -> bool:
        status = node.status(timeout_s=2)
        return status is not None and bool(status.scrubbed_unix_nano)

    wait_for("a sound store to be found sound", is_scrubbed)
    flip_bit_in_a_block(node)
    wait_for("the node to be a voter again", lambda: is_voter_again(node, old_id))
    assert "quarantined: store blocks" in node.log
    cluster.wait_equal_state()
    found = readings_of(node.channel, "s", "m")
    assert found == list(zip(range(1, len(values) + 1), values, strict=True))


@pytest.mark.timeout(600)
def test_a_quarantine_outlives_a_crash_of_all_nodes(cluster: Cluster) -> None:
    """Peers may forget in it what they noticed; the directory does not."""
    put(cluster, "before")
    node = cluster.nodes[2]
    cluster.kill_all()
    (node.data / QUARANTINE_FILE).write_text("its card is older than what it had acknowledged\n")
    for one in cluster.nodes:
        one.start()
    wait_for("the node to stay out", lambda: is_out(node))
    assert "older than what it had acknowledged" in node.log
    told = node.status(timeout_s=10)
    assert told is not None
    assert "it waits for you (cluster.rebuild_after is 0): on another member" in told.alarms[0]
    put(cluster, "after")


@pytest.mark.timeout(600)
def test_without_a_majority_it_waits_and_nothing_is_given_up(cluster: Cluster) -> None:
    put(cluster, "before")
    first, second = cluster.followers()
    leader = cluster.leader()
    for node in (first, second):
        node.kill()
    cut_journal_short(first)
    first.rebuild_after = "1s"
    first.start()
    wait_for("the node to ask its peers", lambda: "not rebuilt yet, asking on" in first.log)
    old_id = (first.data / "identity").read_bytes()
    assert (first.data / "journal").exists()
    second.start()
    wait_for("the node to be a voter again", lambda: is_voter_again(first, "-"))
    assert (first.data / "identity").read_bytes() != old_id
    assert key_of(leader.channel, "before").value == b"1"
    put(cluster, "after")
    cluster.wait_equal_state()


@pytest.mark.timeout(600)
def test_a_secured_node_is_taken_back_by_its_old_certificate(tmp_path: Path) -> None:
    cluster = SecuredCluster(tmp_path / "s", size=3)
    try:
        first, second, third = cluster.nodes
        for node in cluster.nodes:
            node.start()
        for node in cluster.nodes:
            node.wait_serving()
        for node in (second, third):
            joined = node.join(first, first.invite())
            assert joined.returncode == 0, joined.stderr
        wait_for("three voters", lambda: all(node.is_voter_of(3) for node in cluster.nodes))
        assert first.command("write", "kitchen", "temperature", "21.5").returncode == 0
        old_id = member_id(third)
        third.kill()
        cut_journal_short(third)
        third.rebuild_after = "1s"
        third.start()
        wait_for("the node to be a voter again", lambda: is_voter_again(third, old_id))
        status = third.status(timeout_s=10)
        assert status is not None
        assert status.secured
    finally:
        cluster.close()
