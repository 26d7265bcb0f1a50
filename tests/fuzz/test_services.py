"""Every method of every service on the client port, found by reflection: valid requests, damaged ones, nonsense.

A call ends in time, with OK or with a status that says whose fault it was; ours carry their ErrorInfo. INTERNAL and
UNKNOWN are bugs. A service that is added is covered by itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from appliance import limits
from appliance.api.server import ClientServer
from raftberry.v1 import reading_pb2
from tests.api.fake_node import FakeNode
from tests.fuzz.mutation import damaged, examples, messages

PATIENCE_S: Final = 60.0
OURS: Final = ("raftberry.", "api.v1.")
NEVER: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
MESSAGES_READ_MAX: Final = 1
"""Of a stream, before the client leaves: a watch has no end."""


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """To a client port in front of a fake node, served by a thread."""
    address = f"unix:{tmp_path_factory.mktemp('fuzz')}/client.sock"
    started, stopping = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(address, started, stopping)))
    thread.start()
    assert started.wait(PATIENCE_S)
    with grpc.insecure_channel(address) as opened:
        yield opened
    stopping.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


async def _serve(address: str, started: threading.Event, stopping: threading.Event) -> None:
    node = FakeNode()
    node.watch_ends.set()
    server = ClientServer(node, address)
    await server.start()
    started.set()
    while not stopping.is_set():
        await asyncio.sleep(0.05)
    await server.stop(0)


def methods(channel: grpc.Channel) -> list[MethodDescriptor]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE_S)
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(each.name) for each in answer.list_services_response.service]
    return [method for service in services for method in service.methods]


def call(channel: grpc.Channel, method: MethodDescriptor, requests: list[bytes]) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    sent: Any = iter(requests) if method.client_streaming else requests[0]
    try:
        if method.server_streaming:
            kind = channel.stream_stream if method.client_streaming else channel.unary_stream
            responses = kind(path)(sent, timeout=PATIENCE_S)
            for _, _ in zip(range(MESSAGES_READ_MAX), responses, strict=False):
                pass
            responses.cancel()
        else:
            channel.unary_unary(path)(sent, timeout=PATIENCE_S)
    except grpc.RpcError as error:
        _check(method, error)


def _check(method: MethodDescriptor, error: Any) -> None:
    name = method.full_name
    if error.code() is grpc.StatusCode.CANCELLED:
        return
    is_ours = name.startswith(OURS)
    assert not is_ours or error.code() not in NEVER, f"{name}: {error.code()} {error.details()}"
    assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, f"{name} hangs"
    if is_ours:
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        info = error_details_pb2.ErrorInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(info)
        assert info.reason, f"{name}: no reason"


def test_every_service_of_the_port_is_known(channel: grpc.Channel) -> None:
    found = {method.containing_service.full_name for method in methods(channel)}
    assert {"raftberry.v1.ReadingService", "raftberry.v1.KeyValueService", "grpc.health.v1.Health"} <= found
    assert len(methods(channel)) > 20


def test_a_call_ends_with_a_status_that_says_whose_fault_it_was(channel: grpc.Channel) -> None:
    for method in methods(channel):
        _fuzz(channel, method)


def _fuzz(channel: grpc.Channel, method: MethodDescriptor) -> None:
    valid = messages(method.input_type).map(lambda message: message.SerializeToString())
    requests = st.one_of(valid, damaged(valid), st.binary(max_size=60))

    @given(st.lists(requests, min_size=1, max_size=3))
    @examples(40)
    def run(sent: list[bytes]) -> None:
        call(channel, method, sent)

    run()


@pytest.mark.parametrize("size_bytes", [limits.MESSAGE_BYTES_MAX + 1, 64 << 20])
def test_a_request_that_unpacks_to_more_than_a_message_is_refused(
    channel: grpc.Channel, size_bytes: int
) -> None:
    """gzip makes a thousandth of zeros: the bound is on what comes out."""
    request = reading_pb2.WriteRequest(producer_id="\0" * size_bytes)
    write = channel.unary_unary("/raftberry.v1.ReadingService/Write")
    with pytest.raises(grpc.RpcError) as caught:
        write(request.SerializeToString(), timeout=PATIENCE_S, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
