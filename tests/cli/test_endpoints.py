"""Which endpoint is tried, and when a write is sent a second time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from appliance import limits
from appliance.client import connection
from appliance.client.methods import PUT
from appliance.errors import InvalidArgument
from raftberry.v1 import key_value_pb2
from tests.cli.conftest import Raftberry
from tests.cli.fake_server import FakeNode, abort

WRITE = ("write", "kitchen", "temperature", "1")


def first_write_fails(code: grpc.StatusCode, **info: str) -> Any:
    """A node that refuses writes so, and serves all else."""

    def misbehave(method: str, request: Any, context: grpc.ServicerContext) -> None:
        if method == "Write":
            abort(context, code, "not now", **info)

    return misbehave


def test_the_next_endpoint_is_tried_when_one_is_down(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    nodes[0].stop()
    assert raftberry(*WRITE).status == 0
    assert nodes[1].calls == ["Write"]


def test_the_only_endpoint_has_all_the_time_there_is(
    raftberry: Raftberry, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_s: list[float] = []

    def answers(_channel: grpc.Channel, timeout_s: float) -> None:
        waits_s.append(timeout_s)

    monkeypatch.setattr(connection, "_silence", answers)
    assert raftberry(*WRITE, "--timeout", "30s", "-e", nodes[0].address).status == 0
    assert raftberry(*WRITE, "--timeout", "30s").status == 0
    assert waits_s == [30.0, connection.CONNECT_TIMEOUT_S]


def test_a_write_that_was_not_applied_is_sent_elsewhere(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    unavailable = grpc.StatusCode.UNAVAILABLE
    nodes[0].misbehave = first_write_fails(unavailable, reason="NO_LEADER", outcome="NOT_APPLIED")
    assert raftberry(*WRITE).status == 0
    assert (nodes[0].calls, nodes[1].calls) == (["Write"], ["Write"])


def test_a_write_of_unknown_outcome_is_not_sent_elsewhere(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    nodes[0].misbehave = first_write_fails(grpc.StatusCode.UNAVAILABLE)
    assert raftberry(*WRITE).status == 1
    assert nodes[1].calls == []


def test_a_numbered_write_of_unknown_outcome_is_sent_elsewhere(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    nodes[0].misbehave = first_write_fails(grpc.StatusCode.UNAVAILABLE)
    result = raftberry(*WRITE, "--producer", "me", "--sequence", "7", "-o", "json")
    assert result.status == 0
    assert nodes[0].memory.producers == {"me": {7}}
    again = raftberry(*WRITE, "--producer", "me", "--sequence", "7", "-o", "json", "-e", nodes[1].address)
    assert json.loads(again.out)["duplicate"] is True


def test_a_write_waits_for_an_election_within_its_timeout(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    def elect_on_third_call(method: str, request: Any, context: grpc.ServicerContext) -> None:
        if len(nodes[0].calls) + len(nodes[1].calls) < 3:
            code = grpc.StatusCode.UNAVAILABLE
            abort(context, code, "no leader", reason="NO_LEADER", outcome="NOT_APPLIED")

    for node in nodes:
        node.misbehave = elect_on_third_call
    assert raftberry(*WRITE).status == 0


def test_a_watch_resumes_behind_the_last_whole_entry_when_its_node_is_lost(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    memory = nodes[0].memory
    for number in range(3):
        raftberry("write", "kitchen", "temperature", str(number), "--time", str(number))
    middle = memory.log[1]
    memory.log[1] = (middle[0], [*middle[1], *middle[1]])

    def break_inside_the_second_entry(method: str, request: Any, context: grpc.ServicerContext) -> None:
        if method == "WatchPart" and nodes[0].calls.count("WatchPart") == 2:
            abort(context, grpc.StatusCode.UNAVAILABLE, "gone")

    nodes[0].misbehave = break_inside_the_second_entry
    result = raftberry("watch", "--after", "0", "--count", "4", "-o", "jsonl")
    assert [json.loads(line)["value"] for line in result.out.splitlines()] == [0.0, 1.0, 1.0, 2.0]
    assert "resuming behind index 11" in result.err


@pytest.mark.parametrize("field", ["earliest_index"])
def test_a_watch_whose_history_is_gone_ends_with_an_error(
    raftberry: Raftberry, nodes: list[FakeNode], field: str
) -> None:
    nodes[0].misbehave = lambda method, request, context: abort(
        context, grpc.StatusCode.OUT_OF_RANGE, "earliest is 500", reason="HISTORY_GONE", **{field: 500}
    )
    result = raftberry("watch", "--after", "3")
    assert result.status == 1
    assert "earliest is 500" in result.err


def test_a_request_larger_than_a_message_is_refused_before_it_is_sent(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path
) -> None:
    file = tmp_path / "value"
    for size, sent in ((limits.VALUE_BYTES_MAX, ["Put"]), (limits.VALUE_BYTES_MAX + 1, []), (5_000_000, [])):
        file.write_bytes(bytes(size))
        nodes[0].calls.clear()
        result = raftberry("kv", "put", "key", "--file", str(file))
        assert (result.status, nodes[0].calls) == (0 if sent else 2, sent)
        assert (
            sent or f"{size} bytes; a value has at most 262144: keys hold settings, not files" in result.err
        )


def test_no_call_sends_more_than_a_message_may_have(nodes: list[FakeNode]) -> None:
    with connection.Connection([nodes[0].address]) as client:
        request = key_value_pb2.PutRequest(key="key")
        request.value = bytes(limits.MESSAGE_BYTES_MAX - len(request.SerializeToString()) - 5)
        assert request.ByteSize() == limits.MESSAGE_BYTES_MAX
        client.call(PUT, request)
        request.value += b"1"
        with pytest.raises(InvalidArgument, match=r"request: 4194305 bytes; a message has at most 4194304"):
            client.call(PUT, request)
    assert nodes[0].calls == ["Put"]


def test_what_grpc_itself_finds_too_large_is_not_sent_again(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    def too_large(method: str, request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max")

    nodes[0].misbehave = too_large
    result = raftberry(*WRITE)
    assert (result.status, nodes[0].calls, nodes[1].calls) == (1, ["Write"], [])
    assert f"{nodes[0].address} refused the request: SERVER: Received message larger" in result.err
    assert "outcome is unknown" not in result.err


@pytest.mark.parametrize("reason", ["OVERLOADED", "RATE_LIMITED"])
def test_a_node_that_has_no_room_now_is_asked_again(
    raftberry: Raftberry, nodes: list[FakeNode], reason: str
) -> None:
    nodes[0].misbehave = first_write_fails(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reason=reason, outcome="NOT_APPLIED"
    )
    assert raftberry(*WRITE).status == 0
    assert nodes[1].calls == ["Write"]
