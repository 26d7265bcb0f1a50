"""What the tests of the API share: a client of the server under test, and how errors are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from appliance.api.server import ClientServer
from tests.api.fake_node import FakeNode


@dataclass(frozen=True, slots=True)
class Api:
    """A node, its server, and a channel to it."""

    node: FakeNode
    server: ClientServer
    channel: aio.Channel
    address: str

    async def call(self, method: str, request: Message | bytes, response: type[Any]) -> Any:
        return await self.channel.unary_unary(f"/{method}", to_bytes, response.FromString)(request)

    def stream(self, method: str, request: Message, response: type[Any]) -> aio.UnaryStreamCall[Any, Any]:
        return self.channel.unary_stream(f"/{method}", to_bytes, response.FromString)(request)

    async def collect(self, method: str, request: Message, response: type[Any]) -> list[Any]:
        return [message async for message in self.stream(method, request, response)]


def to_bytes(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def reason_of(error: grpc.RpcError) -> tuple[str, dict[str, str]]:
    """(reason, metadata) of the ErrorInfo of a failed call."""
    assert isinstance(error, aio.AioRpcError)
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, dict(info.metadata)
