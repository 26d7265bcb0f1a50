"""Real nodes of this version and of the next in one cluster, while writers remember what they were promised."""

from __future__ import annotations

import sys
from collections.abc import Callable

import grpc

from appliance import features
from raftberry.v1 import cluster_pb2, key_value_pb2, key_value_pb2_grpc
from tests.process.joining import wait_role
from tests.process.nodes import Cluster, Node, Program, wait_for
from tests.process.upgrading import change_program, upgrade_under_load

NEXT = Program("next version", command=(sys.executable, "-m", "tests.process.next_version"))


def delete_key(node: Node) -> str:
    """Empty, or why not: what the next version brought."""
    stub = key_value_pb2_grpc.KeyValueServiceStub(node.channel)
    try:
        stub.Delete(key_value_pb2.DeleteRequest(key="nothing"), timeout=10)
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error.details() or str(error.code())
    return ""


def upgrade(cluster: Cluster) -> list[str]:
    """To the next version; what it brought waits for the last node."""

    def check(node: Node) -> None:
        if any(one.program != NEXT for one in cluster.nodes):
            assert f"needs feature level {features.LEVEL + 1}" in delete_key(node)
        else:
            wait_for("the level to rise", lambda: not delete_key(node))

    return upgrade_under_load(cluster, NEXT, check)


def test_a_rolling_upgrade_under_load_loses_nothing_and_raises_the_level_with_the_last_node(
    cluster: Cluster,
) -> None:
    for line in upgrade(cluster):
        print(line)
    status = cluster.nodes[0].status(timeout_s=10)
    assert status is not None
    assert status.version == "99.0.0"


def test_a_node_that_is_set_back_behind_the_level_keeps_its_data_and_waits_for_the_newer_version(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster()
    for node in cluster:
        node.program = NEXT
    cluster.start()
    wait_for("the level to rise", lambda: not delete_key(cluster.nodes[0]))
    node = cluster.followers()[0]
    node.request_checkpoint()
    assert node.terminate() == 0
    before = (node.data / "identity").read_bytes()
    node.program, node.rebuild_after = Program(), "1s"
    node.start()
    told = wait_role(node, cluster_pb2.ROLE_QUARANTINED)
    assert "install the version of the other nodes" in told.alarms[0]
    # Nothing is wrong with its data, and as a new member it could read the others' as little.
    assert "to be rebuilt from its peers" not in node.log
    change_program(cluster, node, NEXT)
    assert (node.data / "identity").read_bytes() == before
    cluster.wait_equal_state()
