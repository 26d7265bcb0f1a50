"""What several rounds of a drill beside another system say together."""

from __future__ import annotations

from typing import Any

from benchmarks.drill_report import summary, table


def record(*, gap_ms: float, lost: int = 0, catch_up_ms: float | None = None) -> dict[str, Any]:
    """As the product's drill makes one, as far as it is read."""
    return {
        "setting": {"nodes": 3, "date": "2026-01-01"},
        "writes": {"acknowledged": 100, "lost": lost, "duplicated": 1, "unanswered": 0},
        "undisturbed": {"writes_per_second": 200.0, "p50_ms": 2.0, "p99_ms": 12.0},
        "faults": [
            {
                "name": "leader-killed",
                "title": "Leader killed",
                "without_writes_ms": gap_ms,
                "elections": 1,
                "catch_up_ms": catch_up_ms,
                "writes_per_second": 150.0,
                "p50_ms": 3.0,
                "p99_ms": 30.0,
            }
        ],
    }


ROUNDS = {
    "raftberry": [record(gap_ms=50), record(gap_ms=70, catch_up_ms=900), record(gap_ms=400)],
    "etcd": [record(gap_ms=1_300), record(gap_ms=1_400, lost=2), record(gap_ms=1_500)],
}


def test_the_table_has_medians_ranges_and_the_ratio_of_ours_to_theirs() -> None:
    lines = table(summary(ROUNDS, etcd="3.4.23")).splitlines()
    assert lines[0] == "| fault | raftberry | etcd | ratio to etcd |"
    assert lines[2] == "| leader-killed | 70 ms (50 to 400) | 1,400 ms (1,300 to 1,500) | 0.05 |"


def test_lost_writes_of_any_round_are_named() -> None:
    text = table(summary(ROUNDS, etcd="3.4.23"))
    assert "raftberry: 300 acknowledged, 0 lost, 3 applied twice, 0 never answered." in text
    assert "etcd: 300 acknowledged, 2 lost" in text


def test_every_round_of_every_figure_is_kept_the_unknown_too() -> None:
    result = summary(ROUNDS, etcd="3.4.23")
    (fault,) = result["faults"]
    assert fault["raftberry"]["catch_up_ms"] == [None, 900, None]
    assert result["setting"]["rounds"] == 3
    assert result["setting"]["etcd"] == "3.4.23"


def test_one_system_alone_has_no_ratio() -> None:
    lines = table(summary({"etcd": ROUNDS["etcd"][:1]}, etcd="3.4.23")).splitlines()
    assert lines[0] == "| fault | etcd |"
    assert lines[2] == "| leader-killed | 1,300 ms |"
