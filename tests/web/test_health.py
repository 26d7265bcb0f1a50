"""Health for machines: the process, and whether the cluster takes writes through it."""

from __future__ import annotations

from dataclasses import replace

from appliance.model import Role
from tests.web.fakes import LEADER, FakeNode, TokenAccess, client


async def test_a_node_without_quorum_is_alive_and_not_ready() -> None:
    async with client(FakeNode(serving=False)) as http:
        assert (await http.get("/healthz")).status_code == 200
        answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.text == "not ready: no majority has confirmed a leader within two election timeouts\n"


async def test_a_full_store_is_not_ready_and_says_so() -> None:
    async with client(FakeNode(write_refusal="store is 87% full")) as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: store is 87% full\n")


async def test_a_quarantined_node_says_why_it_is_not_ready() -> None:
    now = replace(LEADER, role=Role.QUARANTINED, alarms=("quarantined: checksum of entry 7",))
    async with client(FakeNode(now=now, serving=False)) as http:
        answer = await http.get("/readyz")
    assert answer.text == "not ready: this node is quarantined: quarantined: checksum of entry 7\n"


async def test_a_serving_node_is_ready() -> None:
    async with client() as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")


async def test_health_needs_no_token_and_no_particular_host() -> None:
    async with client(access=TokenAccess(), base_url="http://balancer.example.org") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
