"""The web port of real nodes: metrics, readiness, and one page that sees the whole cluster."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from raftberry.v1 import reading_pb2, reading_pb2_grpc
from tests.process.nodes import Cluster, Node, wait_for


def get(node: Node, path: str) -> httpx.Response:
    return httpx.get(f"http://{node.web_address}{path}", timeout=60)


def metric(node: Node, name: str) -> dict[frozenset[tuple[str, str]], float]:
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(get(node, "/metrics").text)
        for sample in family.samples
        if sample.name == name
    }


def test_every_node_tells_its_metrics_and_counts_the_calls(shared_cluster: Cluster) -> None:
    node = shared_cluster.nodes[0]
    before = metric(node, "raftberry_readings_applied_total")[frozenset()]
    write = reading_pb2.WriteRequest(
        readings=[reading_pb2.Readings(sensor="kitchen", metric="temperature", value=[21.5])]
    )
    reading_pb2_grpc.ReadingServiceStub(node.channel).Write(write, timeout=60)
    assert metric(node, "raftberry_readings_applied_total")[frozenset()] == before + 1
    calls = metric(node, "raftberry_requests_total")
    assert calls[frozenset({("method", "ReadingService/Write"), ("code", "OK")})] >= 1
    assert (
        sum(metric(each, "raftberry_role")[frozenset({("role", "leader")})] for each in shared_cluster) == 1
    )
    assert all(get(each, "/readyz").text == "ready\n" for each in shared_cluster)


def test_a_written_series_is_found_and_drawn(shared_cluster: Cluster) -> None:
    node = shared_cluster.nodes[1]
    times = [1_700_000_040_000_000_000 + second * 1_000_000_000 for second in range(6_000)]
    readings = reading_pb2.Readings(
        sensor="attic",
        metric="humidity",
        time_unix_nano=times,
        value=[float(second) for second in range(6_000)],
    )
    reading_pb2_grpc.ReadingServiceStub(node.channel).Write(
        reading_pb2.WriteRequest(readings=[readings]), timeout=60
    )

    def found() -> list[dict[str, object]]:
        rows: list[dict[str, object]] = get(node, "/api/v1/series?q=attic").json()["series"]
        return rows

    (row,) = wait_for("the series in the list", lambda: found() or None, timeout_s=60)
    assert (row["value"], row["reading_count"]) == (5_999.0, 6_000)
    span = "start=1700000040000&end=1700006040000&points=100"
    chart = get(node, f"/api/v1/chart?sensor=attic&metric=humidity&{span}").json()
    assert chart["step_ms"] == 60_000
    assert (chart["min"][0], chart["mean"][0], chart["max"][0]) == (0.0, 29.5, 59.0)
    assert len(chart["times_ms"]) == 100


def test_one_page_sees_every_node_through_one_port(shared_cluster: Cluster) -> None:
    seen: dict[str, object] = {}
    with httpx.stream(
        "GET", f"http://{shared_cluster.nodes[2].web_address}/api/v1/live", timeout=60
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data:"):
                found = json.loads(line.removeprefix("data:"))
                if found.get("status"):
                    seen[found["node"]] = found["status"]["role"]
            if len(seen) == 3:
                break
    assert sorted(seen) == ["n1", "n2", "n3"]
    assert list(seen.values()).count("leader") == 1


def test_a_node_that_lost_its_majority_is_alive_and_not_ready(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    cluster.start()
    left, *others = cluster.nodes
    for node in others:
        node.kill()
    wait_for("readiness to go", lambda: get(left, "/readyz").status_code == 503, timeout_s=60)
    assert "no majority" in get(left, "/readyz").text
    assert get(left, "/healthz").status_code == 200
    assert metric(left, "raftberry_has_quorum")[frozenset()] == 0


def test_a_node_that_waits_for_its_founders_says_so_on_the_web_port(
    make_cluster: Callable[..., Cluster],
) -> None:
    node = make_cluster().nodes[0]
    node.start()

    def reason() -> str | None:
        try:
            return get(node, "/readyz").text
        except httpx.TransportError:
            return None

    text = wait_for("the web port", reason, timeout_s=60)
    assert text.startswith("not ready: this node is founding: waiting for the other founders")
    assert metric(node, "raftberry_role")[frozenset({("role", "founding")})] == 1
