"""A client of the sample that Raftberry grew from works unchanged."""

from __future__ import annotations

from api.v1 import key_value_pb2, key_value_pb2_grpc, raft_pb2, raft_pb2_grpc
from tests.process.nodes import Cluster


def test_a_value_set_through_one_node_is_got_through_every_node(shared_cluster: Cluster) -> None:
    first = key_value_pb2_grpc.KeyValueServiceStub(shared_cluster.nodes[0].channel)
    for value in (42, 0, 4_294_967_295):
        assert first.Set(key_value_pb2.SetValueRequest(value=value), timeout=10).ok
        for node in shared_cluster:
            stub = key_value_pb2_grpc.KeyValueServiceStub(node.channel)
            assert stub.Get(key_value_pb2.GetValueRequest(), timeout=10).value == value


def test_adding_a_node_by_id_alone_answers_with_the_command_to_run(shared_cluster: Cluster) -> None:
    stub = raft_pb2_grpc.RaftServiceStub(shared_cluster.nodes[0].channel)
    for answer in (
        stub.Add(raft_pb2.NodeRequest(id=9), timeout=10),
        stub.Remove(raft_pb2.NodeRequest(id=9), timeout=10),
    ):
        assert not answer.ok
        assert "raftberry" in answer.message
