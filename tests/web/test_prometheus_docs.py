"""What docs/prometheus speaks of exists: every metric of its rules, its tests and its dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.web.fakes import FakeFacts, FakeNode, client

DOCS = Path(__file__).resolve().parents[2] / "docs" / "prometheus"
NAMED = ["raftberry.rules.yml", "raftberry.rules.test.yml", "grafana-dashboard.json"]


async def names_at_metrics() -> set[str]:
    async with client(FakeNode(), facts=FakeFacts(ends={"peer": 2e9})) as http:
        text = (await http.get("/metrics")).text
    return {
        line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if not line.startswith("#")
    }


@pytest.mark.parametrize("name", NAMED)
async def test_every_metric_that_is_named_is_told(name: str) -> None:
    found = set(re.findall(r"\b(?:raftberry|process)_[a-z_]+\b", (DOCS / name).read_text("utf-8")))
    assert found
    assert found <= await names_at_metrics()


async def test_the_table_of_metrics_is_complete() -> None:
    documented = set(re.findall(r"`(raftberry_[a-z_]+)", (DOCS / "README.md").read_text("utf-8")))
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in await names_at_metrics()}
    assert {name for name in told if name.startswith("raftberry_")} == documented


def test_the_dashboard_has_no_two_panels_of_one_number_and_none_without_a_question() -> None:
    panels = json.loads((DOCS / "grafana-dashboard.json").read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def test_every_alert_says_what_to_do() -> None:
    rules = (DOCS / "raftberry.rules.yml").read_text("utf-8")
    alerts = rules.split("- alert: ")[1:]
    assert len(alerts) >= 8
    for alert in alerts:
        assert "summary:" in alert, alert
        assert "action:" in alert, alert
