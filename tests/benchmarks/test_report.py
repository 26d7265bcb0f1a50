"""Figures of several slices, their table, the goals and what is said of the load client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.figures import Figures, merge, read
from benchmarks.goals import GOALS, judge


def figures_of(**values: dict[str, list[float]]) -> Figures:
    """rate_unary64={"etcd": [1, 2]} and the like."""
    figures = Figures()
    for name, systems in values.items():
        quantity, _, load = name.partition("_")
        for system, rounds in systems.items():
            for value in rounds:
                figures.note(load.replace("_", "-"), f"load {load}", quantity, system, value)
    return figures


def test_figures_survive_json(tmp_path: Path) -> None:
    figures = figures_of(rate_bulk={"raftberry": [2.0, 4.0], "etcd": [1.0]})
    figures.fail("range", "a range", "nats", "does not offer it")
    path = tmp_path / "raw.json"
    path.write_text(json.dumps({"figures": figures.as_json()}))
    assert read(path) == figures


def test_a_later_slice_replaces_all_of_a_load_and_leaves_the_others() -> None:
    early = figures_of(
        rate_bulk={"raftberry": [1.0], "etcd": [9.0]}, cpu_bulk={"raftberry": [3.0]}, gap_kill={"etcd": [2.0]}
    )
    early.fail("bulk", "load bulk", "nats", "refused")
    merged = merge([early, figures_of(rate_bulk={"raftberry": [5.0]})])
    assert merged.values == {("kill", "gap"): {"etcd": [2.0]}, ("bulk", "rate"): {"raftberry": [5.0]}}
    assert merged.failures == {}


def test_a_row_has_medians_spreads_and_the_ratio_to_etcd() -> None:
    text = report.table(figures_of(rate_bulk={"raftberry": [10.0, 30.0, 20.0], "etcd": [4.0, 6.0]}))
    assert text.splitlines() == [
        "| figure | raftberry | etcd | ratio to etcd |",
        "|---|--:|--:|--:|",
        "| load bulk: readings, 1/s | 20 (10 to 30) | 5 (4 to 6) | 4.00 |",
    ]


def test_a_cell_without_a_figure_is_empty_and_has_no_ratio() -> None:
    text = report.table(figures_of(rate_bulk={"raftberry": [10.0]}, p50_bulk={"nats": [1.5]}))
    assert text.splitlines()[2:] == [
        "| load bulk: readings, 1/s | 10 |  |  |",
        "| load bulk: p50, ms |  | 1.5 |  |",
    ]


def test_the_floor_has_its_own_table() -> None:
    figures = figures_of(
        p50_flush={"disk": [0.25]}, rate_echo={"echo": [90_000.0]}, rate_bulk={"etcd": [1.0]}
    )
    assert report.floor_table(figures).splitlines()[2:] == [
        "| load flush: p50, ms | 0.25 |",
        "| load echo: readings, 1/s | 90,000 |",
    ]
    assert "echo" not in report.table(figures)


@pytest.mark.parametrize(
    ("share", "is_limit"), [(80.0, False), (80.1, True)], ids=["at the bound", "above the bound"]
)
def test_a_load_client_that_was_the_limit_says_so(share: float, is_limit: bool) -> None:
    note = report.client_note(figures_of(client_bulk={"etcd": [share]}))
    assert ("was itself the limit of: etcd, load bulk" in note) is is_limit
    assert ("never the limit" in note) is not is_limit


def test_a_goal_without_figures_is_not_reached_but_not_measured() -> None:
    assert {verdict.is_reached for verdict in judge(Figures())} == {None}


@pytest.mark.parametrize(("rate", "is_reached"), [(70.0, True), (69.9, False)])
def test_a_floor_follows_the_other_systems_rate(rate: float, is_reached: bool) -> None:
    figures = figures_of(rate_unary_64={"raftberry": [rate], "etcd": [100.0]})
    (verdict,) = (one for one in judge(figures) if one.is_reached is not None)
    assert (verdict.work, verdict.is_reached) == ("unary, 64 clients", is_reached)


def test_the_worst_gap_counts_beside_the_median() -> None:
    verdicts = judge(figures_of(gap_gap_kill={"raftberry": [0.1, 0.2, 1.6]}))
    assert [one.is_reached for one in verdicts if one.is_reached is not None] == [True, False]


def test_goals_name_quantities_that_are_measured() -> None:
    figures = Figures()
    for goal in GOALS:
        figures.note(goal.load, goal.load, goal.quantity, "raftberry", 1.0)


def test_failures_are_told_with_their_first_line() -> None:
    figures = Figures()
    figures.fail("range", "a range", "nats", "not offered\nand more")
    figures.fail(
        "bulk", "bulk", "etcd", "etcd: write --clients 1 failed:  benchmark-client: request timed out"
    )
    assert report.failures(figures).splitlines() == [
        "- nats, a range: not offered",
        "- etcd, bulk: request timed out",
    ]
