"""Tokens at the client port: every method behind the gate, and what a token's scopes leave of an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from api.v1 import key_value_pb2 as sample_pb2
from api.v1 import raft_pb2
from appliance.api.access import WITH_ANY_TOKEN, WITHOUT_TOKEN
from appliance.api.server import ClientServer
from appliance.model import Position
from appliance.node.access import Access
from appliance.node.tokens import hash_token
from appliance.state import EntryEffects, KeyRecord, SeriesInfo, SeriesLatest
from appliance.state.access import TokenRecord, token_message
from raftberry.internal.v1 import command_pb2
from raftberry.v1 import access_pb2, cluster_pb2, key_value_pb2, reading_pb2
from tests.api.fake_node import Effects, FakeNode
from tests.api.harness import to_bytes

READING = "raftberry.v1.ReadingService"
KEYS = "raftberry.v1.KeyValueService"

TOKENS = {
    "writer": TokenRecord("writer", b"", write=("greenhouse/*",), key_write=("heating/*",)),
    "reader": TokenRecord("reader", b"", read=("greenhouse/*",), key_read=("heating/*",)),
    "operator": TokenRecord("operator", b"", is_operator=True),
    "slow": TokenRecord("slow", b"", write=("*",), requests_per_second=1),
}


class StoppedClock:
    """A second never passes."""

    def monotonic_ns(self) -> int:
        return 1

    def wall_ns(self) -> int:
        return 1


class Client:
    """Calls with one token or another."""

    def __init__(self, node: FakeNode, channel: aio.Channel) -> None:
        self.node, self.channel = node, channel

    async def call(self, token: str, method: str, request: Message, response: type[Any] | None = None) -> Any:
        decode = response.FromString if response else None
        return await self.channel.unary_unary(f"/{method}", to_bytes, decode)(
            request, metadata=_metadata(token)
        )

    def stream(self, token: str, method: str, request: Message, response: type[Any]) -> Any:
        call: Any = self.channel.unary_stream(f"/{method}", to_bytes, response.FromString)
        return call(request, metadata=_metadata(token))

    async def collect(self, token: str, method: str, request: Message, response: type[Any]) -> list[Any]:
        return [message async for message in self.stream(token, method, request, response)]

    async def code(self, token: str, method: str, request: Message) -> grpc.StatusCode:
        """How the call ends; it reads whatever comes before."""
        stream: Any = self.channel.unary_stream(f"/{method}", to_bytes)(request, metadata=_metadata(token))
        try:
            async for _ in stream:
                break
        except aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    node = FakeNode()
    for text, record in TOKENS.items():
        message = token_message(record)
        message.hash = hash_token(text)
        node.state.access.apply(command_pb2.Operation(create_token=message), elapsed_ns=0)
    address = f"unix:{tmp_path}/client.sock"
    access = Access(lambda: node.state.access, StoppedClock(), is_token_required=True)
    server = ClientServer(node, address, access=access)
    await server.start()
    async with aio.insecure_channel(address) as channel:
        yield Client(node, channel)
    await server.stop(0)


def write(sensor: str) -> reading_pb2.WriteRequest:
    readings = reading_pb2.Readings(sensor=sensor, metric="m", time_unix_nano=[1], value=[1.0])
    return reading_pb2.WriteRequest(readings=[readings])


def methods() -> list[str]:
    return [
        f"/{service.full_name}/{method.name}"
        for file in (access_pb2, cluster_pb2, key_value_pb2, reading_pb2, sample_pb2, raft_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


@pytest.mark.parametrize("method", methods())
async def test_no_method_answers_without_a_token(client: Client, method: str) -> None:
    if method not in WITHOUT_TOKEN:
        for token in ("", "guessed"):
            code = await client.code(token, method.removeprefix("/"), reading_pb2.WriteRequest())
            assert code is grpc.StatusCode.UNAUTHENTICATED
    assert client.node.operations == []


@pytest.mark.parametrize("method", [method for method in methods() if method not in WITH_ANY_TOKEN])
async def test_what_is_not_named_needs_the_operators_right(client: Client, method: str) -> None:
    if method not in WITHOUT_TOKEN:
        for token in ("writer", "reader"):
            code = await client.code(token, method.removeprefix("/"), reading_pb2.WriteRequest())
            assert code is grpc.StatusCode.PERMISSION_DENIED
    assert client.node.operations == []


async def test_a_refusal_says_what_is_missing_in_a_rich_status(client: Client) -> None:
    with pytest.raises(aio.AioRpcError) as refusal:
        await client.call("writer", f"{READING}/Write", write("kitchen"))
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "kitchen/m" in str(refusal.value.details())
    raw = dict(refusal.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(raw).details[0].Unpack(info)
    assert (info.reason, info.metadata["outcome"]) == ("PERMISSION_DENIED", "NOT_APPLIED")
    assert client.node.operations == []


async def test_a_token_writes_what_its_globs_name(client: Client) -> None:
    await client.call("writer", f"{READING}/Write", write("greenhouse"))
    await client.call("writer", f"{KEYS}/Put", key_value_pb2.PutRequest(key="heating/on", value=b"1"))
    assert len(client.node.operations) == 2
    for method, request in (
        (f"{KEYS}/Put", key_value_pb2.PutRequest(key="door", value=b"1")),
        (f"{KEYS}/Delete", key_value_pb2.DeleteRequest(key="door")),
        (f"{READING}/SetSeries", reading_pb2.SetSeriesRequest(sensor="kitchen", metric="m")),
        ("api.v1.KeyValueService/Set", sample_pb2.SetValueRequest(value=1)),
        ("api.v1.KeyValueService/Get", sample_pb2.GetValueRequest()),
        (f"{READING}/GetLatest", reading_pb2.GetLatestRequest()),
        (f"{READING}/Query", reading_pb2.QueryRequest()),
        (f"{READING}/Watch", reading_pb2.WatchRequest()),
        (f"{READING}/ListSeries", reading_pb2.ListSeriesRequest()),
        (f"{KEYS}/List", key_value_pb2.ListRequest()),
        (f"{KEYS}/Watch", key_value_pb2.KeyValueServiceWatchRequest(is_prefix=True)),
    ):
        assert await client.code("writer", method, request) is grpc.StatusCode.PERMISSION_DENIED
    assert len(client.node.operations) == 2


async def test_a_write_with_one_series_outside_is_refused_whole(client: Client) -> None:
    request = write("greenhouse")
    request.readings.extend(write("kitchen").readings)
    assert await client.code("writer", f"{READING}/Write", request) is grpc.StatusCode.PERMISSION_DENIED
    assert client.node.operations == []


async def test_on_a_stream_each_request_is_judged_and_revoking_counts(client: Client) -> None:
    stream: Any = client.channel.stream_stream(
        f"/{READING}/StreamWrite", to_bytes, reading_pb2.StreamWriteResponse.FromString
    )(metadata=_metadata("writer"))
    codes = []
    for sensor in ("greenhouse", "kitchen", "greenhouse"):
        await stream.write(reading_pb2.StreamWriteRequest(readings=write(sensor).readings))
        codes.append((await stream.read()).status.code)
    assert codes == [0, grpc.StatusCode.PERMISSION_DENIED.value[0], 0]
    revoke = command_pb2.Operation(revoke_token=command_pb2.RevokeToken(name="writer"))
    client.node.state.access.apply(revoke, elapsed_ns=0)
    await stream.write(reading_pb2.StreamWriteRequest(readings=write("greenhouse").readings))
    assert (await stream.read()).status.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert len(client.node.operations) == 2
    stream.cancel()


async def test_a_pattern_shows_only_what_the_token_may_read(client: Client) -> None:
    state = client.node.state
    for sensor in ("greenhouse", "kitchen"):
        state.latest_list.append(SeriesLatest(sensor, "m", False, 1, 1.0))
        state.series_list.append(SeriesInfo(sensor, "m", False, "", {}, 1, 1, 1, 0))
    latest = await client.collect(
        "reader", f"{READING}/GetLatest", reading_pb2.GetLatestRequest(), reading_pb2.GetLatestResponse
    )
    series = await client.collect(
        "reader", f"{READING}/ListSeries", reading_pb2.ListSeriesRequest(), reading_pb2.ListSeriesResponse
    )
    assert [one.sensor for message in latest for one in message.readings] == ["greenhouse"]
    assert [one.sensor for message in series for one in message.series] == ["greenhouse"]
    await client.collect("reader", f"{READING}/Query", reading_pb2.QueryRequest(), reading_pb2.QueryResponse)
    is_visible = client.node.specs[-1].is_visible
    assert is_visible is not None
    assert is_visible("greenhouse", "m")
    assert not is_visible("kitchen", "m")
    one = reading_pb2.QueryRequest(sensor="kitchen", metric="m")
    assert await client.code("reader", f"{READING}/Query", one) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_watch_shows_only_what_the_token_may_read_and_ends_with_it(client: Client) -> None:
    columns = [
        command_pb2.SeriesColumns(sensor=sensor, metric="m", count=1, times=bytes(8), values=bytes(8))
        for sensor in ("greenhouse", "kitchen")
    ]
    client.node.entries = [Effects(8, EntryEffects(readings=tuple(columns)))]
    watch = client.stream(
        "reader", f"{READING}/Watch", reading_pb2.WatchRequest(after_index=7), reading_pb2.WatchResponse
    )
    message = await watch.read()
    assert [one.sensor for one in message.readings] == ["greenhouse"]
    watch.cancel()
    revoke = command_pb2.Operation(revoke_token=command_pb2.RevokeToken(name="reader"))

    class Revoking(list[Effects]):
        """The token is revoked after the watch began, before its first entry."""

        def __iter__(self) -> Any:
            client.node.state.access.apply(revoke, elapsed_ns=0)
            return super().__iter__()

    client.node.entries = Revoking(client.node.entries)
    ended = client.stream(
        "reader", f"{READING}/Watch", reading_pb2.WatchRequest(after_index=7), reading_pb2.WatchResponse
    )
    with pytest.raises(aio.AioRpcError) as end:
        await ended.read()
    assert end.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_keys_outside_the_scope_are_not_listed(client: Client) -> None:
    for key in ("door", "heating/a", "heating/b"):
        client.node.state.records[key] = KeyRecord(key, b"", 1, 1, 1)
    for limit, wanted in ((0, ["heating/a", "heating/b"]), (1, ["heating/a"])):
        answers = await client.collect(
            "reader", f"{KEYS}/List", key_value_pb2.ListRequest(limit=limit), key_value_pb2.ListResponse
        )
        assert [one.key for answer in answers for one in answer.key_values] == wanted
    get = key_value_pb2.GetRequest(key="door")
    assert await client.code("reader", f"{KEYS}/Get", get) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_rate_is_answered_with_when_to_come_back(client: Client) -> None:
    await client.call("slow", f"{READING}/Write", write("s"))
    with pytest.raises(aio.AioRpcError) as refusal:
        await client.call("slow", f"{READING}/Write", write("s"))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    raw = dict(refusal.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status_pb2.Status.FromString(raw).details)
    assert 0 < retry.retry_delay.ToMilliseconds() <= 1_001


async def test_an_operator_makes_lists_and_revokes_tokens(client: Client) -> None:
    service = "raftberry.v1.AccessService"
    rights = access_pb2.TokenRights(write=["a/*"], read=["*"], requests_per_second=5)
    made = await client.call(
        "operator",
        f"{service}/CreateToken",
        access_pb2.CreateTokenRequest(name="new", rights=rights),
        access_pb2.CreateTokenResponse,
    )
    stored = client.node.operations[-1].create_token
    assert stored.hash == hash_token(made.token)
    assert made.token not in str(stored)
    assert (list(stored.write), list(stored.read), stored.requests_per_second) == (["a/*"], ["*"], 5)
    listed = await client.call(
        "operator", f"{service}/ListTokens", access_pb2.ListTokensRequest(), access_pb2.ListTokensResponse
    )
    assert [token.name for token in listed.tokens] == sorted(TOKENS)
    await client.call("operator", f"{service}/RevokeToken", access_pb2.RevokeTokenRequest(name="new"))
    assert client.node.operations[-1].revoke_token.name == "new"
    assert listed.index == Position(7, 2).index


@pytest.mark.parametrize(
    "request_",
    [
        access_pb2.CreateTokenRequest(name="x"),
        access_pb2.CreateTokenRequest(name="", rights=access_pb2.TokenRights(operator=True)),
        access_pb2.CreateTokenRequest(name="x", rights=access_pb2.TokenRights(write=[""])),
        access_pb2.CreateTokenRequest(name="x", rights=access_pb2.TokenRights(write=["[a"])),
        access_pb2.CreateTokenRequest(name="x", rights=access_pb2.TokenRights(write=["a"] * 33)),
        access_pb2.CreateTokenRequest(name="x", rights=access_pb2.TokenRights(write=["a" * 402])),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(
    client: Client, request_: access_pb2.CreateTokenRequest
) -> None:
    code = await client.code("operator", "raftberry.v1.AccessService/CreateToken", request_)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
