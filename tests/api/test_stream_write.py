"""StreamWrite's bounds: what is in flight, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from appliance import limits
from appliance.api.stream_write import STREAM_IN_FLIGHT_BYTES_MAX, StreamWriter
from appliance.errors import Fatal, OutcomeUnknown
from raftberry.v1 import reading_pb2
from tests.api.fake_node import FakeNode, Outcome


class Client:
    """Stands for the call: sends the same request for ever, keeps the responses."""

    def __init__(self, reading_count: int = 1) -> None:
        readings = reading_pb2.Readings(
            sensor="s",
            metric="m",
            time_unix_nano=range(reading_count),
            int_value=[7 * n * n % 1_000_003 << 40 for n in range(reading_count)],
        )
        self.raw = reading_pb2.StreamWriteRequest(readings=[readings]).SerializeToString()
        self.read_count = 0
        self.responses: list[reading_pb2.StreamWriteResponse] = []
        self.on_abandon: Callable[[], None] | None = None
        self.is_finished = False
        self.errors: list[Exception] = []

    def start(self, node: FakeNode) -> None:
        StreamWriter(node, self, self.errors.append).start()  # type: ignore[arg-type]

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        def give() -> None:
            self.read_count += 1
            then(self.raw)

        asyncio.get_running_loop().call_soon(give)

    def send(self, message: bytes, then: Callable[[bool], None]) -> None:
        self.responses.append(reading_pb2.StreamWriteResponse.FromString(message))
        asyncio.get_running_loop().call_soon(then, True)

    def finish(self) -> None:
        self.is_finished = True


async def settle(client: Client) -> None:
    """Lets the stream run until it reads no more."""
    before = -1
    while client.read_count != before:
        before = client.read_count
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def node() -> FakeNode:
    node = FakeNode()
    node.holds_back = True
    return node


async def test_nothing_is_read_beyond_the_requests_in_flight(node: FakeNode) -> None:
    client = Client()
    client.start(node)
    await settle(client)
    assert client.read_count == len(node.pending) == limits.STREAM_IN_FLIGHT_MAX
    for future in node.pending[:10]:
        future.set_result(Outcome())
    await settle(client)
    assert client.read_count == limits.STREAM_IN_FLIGHT_MAX + 10
    assert len(client.responses) == 10


async def test_nothing_is_read_beyond_the_bytes_in_flight(node: FakeNode) -> None:
    client = Client(reading_count=100_000)
    client.start(node)
    await settle(client)
    assert client.read_count == -(-STREAM_IN_FLIGHT_BYTES_MAX // len(client.raw))


async def test_responses_keep_the_order_of_requests(node: FakeNode) -> None:
    client = Client()
    client.start(node)
    await settle(client)
    node.pending[1].set_result(Outcome(index=11))
    await settle(client)
    assert not client.responses
    node.pending[0].set_result(Outcome(index=10))
    await settle(client)
    assert [response.index for response in client.responses] == [10, 11]


async def test_a_client_that_leaves_takes_nothing_from_the_node(
    node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    client.start(node)
    await settle(client)
    assert client.on_abandon is not None
    client.on_abandon()
    assert client.is_finished
    await asyncio.sleep(0)
    assert not any(future.cancelled() for future in node.pending)
    for future in node.pending:
        future.set_exception(OutcomeUnknown("late"))
    node.pending.clear()
    await asyncio.sleep(0)
    assert "never retrieved" not in caplog.text


async def test_what_is_no_answer_to_a_request_ends_the_call(node: FakeNode) -> None:
    client = Client()
    client.start(node)
    await settle(client)
    node.pending[0].set_exception(Fatal("the disk failed"))
    await settle(client)
    assert [str(error) for error in client.errors] == ["the disk failed"]
    assert not client.responses
