"""Wrong requests and wrong options, end to end: each has its clear error, and the node lives on."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from raftberry.v1 import reading_pb2, reading_pb2_grpc
from tests.process.client import readings_of, write_request
from tests.process.nodes import Cluster, Node
from tests.process.test_real_sensors import run_command

Request = reading_pb2.WriteRequest
Readings = reading_pb2.Readings
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def of(*readings: Readings, **fields: object) -> Request:
    return Request(readings=readings, **fields)  # type: ignore[arg-type]


def named(sensor: str) -> Request:
    return of(Readings(sensor=sensor, metric="m", time_unix_nano=[1], value=[1.0]))


def refusal_of(cluster: Cluster, request: Request) -> grpc.RpcError:
    stub = reading_pb2_grpc.ReadingServiceStub(cluster.nodes[0].channel)
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Write(request, timeout=10)
    return refusal.value


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (of(), ["readings"]),
        (of(Readings(sensor="s", metric="m", time_unix_nano=[1, 2], value=[1.0])), ["time_unix_nano"]),
        (
            of(Readings(sensor="s", metric="m", time_unix_nano=[1], value=[1.0], int_value=[1])),
            ["value", "int_value"],
        ),
        (of(Readings(sensor="s", metric="m", time_unix_nano=[1])), ["value"]),
        (of(Readings(sensor="s", metric="m", value=[1.0, 2.0])), ["time_unix_nano"]),
        (named(""), ["sensor"]),
        (named("x" * 300), ["sensor", "200"]),
        (named("a\nb"), ["sensor", "control"]),
        (named("a*"), ["sensor", "*"]),
        (named("a?"), ["sensor", "?"]),
        (named("a["), ["sensor", "["]),
        (of(Readings(sensor="s", metric="", time_unix_nano=[1], value=[1.0])), ["metric"]),
        (of(Readings(sensor="s", metric="m", value=[1.0]), sequence=1), ["producer_id"]),
    ],
)
def test_a_wrong_write_is_refused_with_the_field_named(
    shared_cluster: Cluster, request_: Request, words: list[str]
) -> None:
    error = refusal_of(shared_cluster, request_)
    assert error.code() == INVALID
    assert all(word in str(error.details()) for word in words), error.details()


def test_a_message_above_4_mib_is_refused_and_the_node_lives_on(shared_cluster: Cluster) -> None:
    count = 350_000
    error = refusal_of(shared_cluster, write_request("big", "m", range(count), [1.0] * count))
    assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, INVALID)
    assert shared_cluster.nodes[0].health()


def test_bytes_that_are_no_message_are_an_invalid_argument(shared_cluster: Cluster) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = shared_cluster.nodes[0].channel.unary_unary(
        "/raftberry.v1.ReadingService/Write"
    )
    with pytest.raises(grpc.RpcError) as refusal:
        call(b"\xff\xff\xff\xff", timeout=10)
    assert refusal.value.code() == INVALID


def test_nan_and_infinities_are_accepted_and_kept(shared_cluster: Cluster) -> None:
    stub = reading_pb2_grpc.ReadingServiceStub(shared_cluster.nodes[0].channel)
    stub.Write(write_request("odd", "m", [1, 2, 3], [math.nan, math.inf, -math.inf]), timeout=10)
    values = [value for _, value in readings_of(shared_cluster.nodes[1].channel, "odd", "m")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


def test_the_whole_range_of_int64_is_a_time(shared_cluster: Cluster) -> None:
    times = [-(2**63), 0, 2**63 - 1]
    stub = reading_pb2_grpc.ReadingServiceStub(shared_cluster.nodes[0].channel)
    stub.Write(write_request("range", "m", times, [1.0, 2.0, 3.0]), timeout=10)
    assert [time for time, _ in readings_of(shared_cluster.nodes[1].channel, "range", "m")] == times


def test_an_unknown_consistency_is_refused(shared_cluster: Cluster) -> None:
    stub = reading_pb2_grpc.ReadingServiceStub(shared_cluster.nodes[0].channel)
    request = reading_pb2.GetLatestRequest(consistency=99)  # type: ignore[arg-type]
    with pytest.raises(grpc.RpcError) as refusal:
        list(stub.GetLatest(request, timeout=10))
    assert refusal.value.code() == INVALID
    assert "consistency" in str(refusal.value.details())


def test_a_sequence_has_one_content_and_a_window(shared_cluster: Cluster) -> None:
    stub = reading_pb2_grpc.ReadingServiceStub(shared_cluster.nodes[0].channel)
    first = stub.Write(write_request("seq", "m", [1], [1.0], producer_id="p", sequence=5_000), timeout=10)
    again = stub.Write(write_request("seq", "m", [1], [1.0], producer_id="p", sequence=5_000), timeout=10)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.index == first.index
    other = refusal_of(shared_cluster, write_request("seq", "m", [2], [2.0], producer_id="p", sequence=5_000))
    assert other.code() in (INVALID, grpc.StatusCode.FAILED_PRECONDITION)
    assert "sequence" in str(other.details())
    old = refusal_of(shared_cluster, write_request("seq", "m", [3], [3.0], producer_id="p", sequence=1))
    assert old.code() == grpc.StatusCode.OUT_OF_RANGE


def test_a_time_outside_int64_is_refused_by_the_command(shared_cluster: Cluster) -> None:
    done = run_command(
        *("write", "s", "m", "1.0", "--time", str(2**63), "--endpoint", shared_cluster.endpoints[0])
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


@pytest.fixture
def lone_node(tmp_path: Path) -> Iterator[Node]:
    node = Node("alone", tmp_path / "alone")
    yield node
    node.kill()


def end_of(node: Node, *arguments: str) -> str:
    """Starts a node that must refuse to run; what it said."""
    node.start(arguments=arguments)
    assert node.wait_exit(timeout_s=60) in (1, 2)
    assert "traceback" not in node.log.lower()
    return node.log


def test_a_data_directory_that_is_a_file_is_refused(lone_node: Node) -> None:
    lone_node.data.write_text("")
    assert str(lone_node.data) in end_of(lone_node)


def test_a_port_in_use_is_named(lone_node: Node) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        lone_node.client_address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert lone_node.client_address in end_of(lone_node)


def test_a_config_that_is_not_there_is_named(lone_node: Node, tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert str(missing) in end_of(lone_node, "--config", str(missing))


def test_an_unknown_key_is_answered_with_the_nearest(lone_node: Node, tmp_path: Path) -> None:
    config = tmp_path / "raftberry.toml"
    config.write_text("[storage]\nsize_maxx = '8GiB'\n")
    said = end_of(lone_node, "--config", str(config))
    assert "size_maxx" in said
    assert "size_max'" in said


def test_a_second_process_on_one_directory_is_refused(lone_node: Node, tmp_path: Path) -> None:
    lone_node.start()
    lone_node.wait_serving()
    second = Node("alone", lone_node.data)
    second.start()
    assert second.wait_exit(timeout_s=60) in (1, 2)
    assert str(lone_node.pid) in second.log
    assert lone_node.health()
