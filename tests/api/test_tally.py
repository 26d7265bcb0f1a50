"""Calls are counted by method and code, whatever ends them."""

from __future__ import annotations

import asyncio

import pytest
from grpc import aio

from appliance.errors import NoLeader
from raftberry.v1 import cluster_pb2, key_value_pb2, reading_pb2
from tests.api.harness import Api


async def test_calls_are_counted_by_method_and_code(api: Api) -> None:
    await api.call(
        "raftberry.v1.ClusterService/GetStatus", cluster_pb2.GetStatusRequest(), cluster_pb2.GetStatusResponse
    )
    api.node.barrier_error = NoLeader("no leader")
    with pytest.raises(aio.AioRpcError):
        await api.call(
            "raftberry.v1.KeyValueService/Get", key_value_pb2.GetRequest(key="k"), key_value_pb2.GetResponse
        )
    api.node.barrier_error = None
    await api.collect(
        "raftberry.v1.ReadingService/GetLatest", reading_pb2.GetLatestRequest(), reading_pb2.GetLatestResponse
    )
    with pytest.raises(aio.AioRpcError):
        await api.call("raftberry.v1.ReadingService/Write", b"\xff", reading_pb2.WriteResponse)
    # A client has its answer a moment before the call ends.
    async with asyncio.timeout(60):
        while api.server.tally.total() < 4:
            await asyncio.sleep(0.001)
    assert dict(api.server.tally) == {
        ("ClusterService/GetStatus", "OK"): 1,
        ("KeyValueService/Get", "UNAVAILABLE"): 1,
        ("ReadingService/GetLatest", "OK"): 1,
        ("ReadingService/Write", "INVALID_ARGUMENT"): 1,
    }
