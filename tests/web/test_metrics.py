"""/metrics: what is told, by Prometheus' own parser."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from appliance.model import Role
from tests.web.fakes import LEADER, FakeFacts, FakeNode, FakeState, client

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(node: FakeNode, facts: FakeFacts | None = None) -> Samples:
    async with client(node, facts=facts) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_role_is_one_for_the_role_of_the_node_and_zero_for_every_other() -> None:
    samples = await scrape(FakeNode())
    found = {role: of(samples, "raftberry_role", role=role.value) for role in Role}
    assert found == {role: float(role is Role.LEADER) for role in Role}


async def test_lag_is_told_by_the_leader_of_every_other_member() -> None:
    samples = await scrape(FakeNode())
    assert of(samples, "raftberry_peer_lag_entries", peer="node-2") == 10
    assert of(samples, "raftberry_peer_connected", peer="node-3") == 0
    assert ("raftberry_peer_lag_entries", frozenset({("peer", "node-1")})) not in samples


async def test_a_follower_tells_no_lag_for_it_knows_none() -> None:
    samples = await scrape(FakeNode(now=replace(LEADER, role=Role.FOLLOWER, leader="node-2")))
    assert not [name for name, _ in samples if name == "raftberry_peer_lag_entries"]


async def test_commit_latency_is_a_cumulative_histogram_in_seconds() -> None:
    samples = await scrape(FakeNode())
    name = "raftberry_commit_duration_seconds"
    assert of(samples, f"{name}_bucket", le="0.001") == 1
    assert of(samples, f"{name}_bucket", le="0.004") == 2
    assert of(samples, f"{name}_bucket", le="10.0") == 2
    assert of(samples, f"{name}_bucket", le="+Inf") == 3
    assert of(samples, f"{name}_sum") == 20.004


async def test_calls_are_counted_by_method_and_code() -> None:
    samples = await scrape(FakeNode())
    assert of(samples, "raftberry_requests_total", method="ReadingService/Write", code="OK") == 5
    assert of(samples, "raftberry_requests_total", method="ReadingService/Write", code="UNAVAILABLE") == 1


async def test_elections_drops_and_bytes_written_are_counters() -> None:
    samples = await scrape(FakeNode())
    assert of(samples, "raftberry_elections_total", outcome="started") == 2
    assert of(samples, "raftberry_elections_total", outcome="won") == 1
    assert of(samples, "raftberry_guard_dropped_frames_total", reason="older_term") == 4
    assert of(samples, "raftberry_written_bytes_total") == 1 << 20


async def test_a_refusal_of_writes_shows_although_there_is_a_quorum() -> None:
    samples = await scrape(FakeNode(write_refusal="store is 87% full"))
    assert of(samples, "raftberry_has_quorum") == 1
    assert of(samples, "raftberry_writable") == 0


async def test_the_end_of_each_certificate_is_told() -> None:
    samples = await scrape(FakeNode(), FakeFacts(ends={"peer": 2e9}))
    assert of(samples, "raftberry_certificate_expiry_timestamp_seconds", certificate="peer") == 2e9


async def test_the_number_of_series_changes_no_number_of_metrics() -> None:
    few = await scrape(FakeNode(state=FakeState([("kitchen", "temperature")])))
    many = await scrape(FakeNode(state=FakeState((f"s{number}", "value") for number in range(5_000))))
    assert few.keys() == many.keys()


async def test_every_metric_of_ours_has_a_help_text_and_units_that_prometheus_names() -> None:
    async with client() as http:
        text = (await http.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert not family.name.endswith(("_ms", "_us", "_ns", "_mb", "_percent")), family.name


async def test_openmetrics_is_told_to_who_asks_for_it() -> None:
    async with client() as http:
        answer = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
