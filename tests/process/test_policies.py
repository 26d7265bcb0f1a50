"""Policies with the real commands, on real nodes."""

from __future__ import annotations

from raftberry.v1 import policy_pb2, policy_pb2_grpc, reading_pb2, reading_pb2_grpc
from tests.process.nodes import Cluster
from tests.process.test_backup import raftberry


def test_a_policy_is_set_through_one_node_and_seen_through_another(cluster: Cluster) -> None:
    one, other = cluster.endpoints[0], cluster.endpoints[1]
    made = raftberry(
        *("policy", "set", "greenhouse/*", "--keep", "90d", "--rollup", "1m:2y", "-e", one, "-o", "jsonl")
    )
    assert (made["series"], made["keep"], made["roll_ups"]) == ("greenhouse/*", "90d", ["1m:2y"])
    listed = raftberry("policy", "list", "-e", other, "-o", "jsonl")
    assert (listed["series"], listed["roll_ups"]) == ("greenhouse/*", ["1m:2y"])
    refused = raftberry("policy", "set", "x", "--keep", "1s", "-e", one, status=2)
    assert "a minute to 292 years" in str(refused["error"])
    raftberry("policy", "delete", "greenhouse", "-e", other, "-o", "json")
    raftberry("policy", "delete", "greenhouse", "-e", other, status=4)
    readings = reading_pb2_grpc.ReadingServiceStub(cluster.nodes[0].channel)
    assert next(readings.ListSeries(reading_pb2.ListSeriesRequest(), timeout=30)).index > 0
    raftberry("policy", "set", "barn/east/*", "--keep", "1m", "-e", one, "-o", "json")
    sensors = raftberry("policy", "list", "-e", other, "-o", "jsonl")
    assert (sensors["sensor"], sensors["metric"]) == ("barn/east", "*")
    raftberry("policy", "delete", "barn/east/*", "-e", one, "-o", "json")
    policies = policy_pb2_grpc.PolicyServiceStub(cluster.nodes[0].channel)
    odd = policy_pb2.Policy(sensor="barn", metric="east/*", keep_nano=60 * 10**9)
    policies.SetPolicy(policy_pb2.SetPolicyRequest(policy=odd), timeout=30)
    raftberry("policy", "delete", "barn/east/*", "-e", one, "-o", "json")
    cluster.wait_equal_state()
