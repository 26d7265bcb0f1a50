"""The page's parts and charts that are made from raw figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import charts, publish
from benchmarks.figures import Figures


def slice_of(figures: Figures) -> dict[str, object]:
    return {
        "command": "script/benchmark --only unary",
        "machine": "2 x Card",
        "load_average": 0.25,
        "moment": "2026-11-27T01:00:00+00:00",
        "versions": {"etcd": "3.4.23"},
        "figures": figures.as_json(),
    }


def small_figures() -> Figures:
    figures = Figures()
    for load, system, value in (
        ("unary-1", "raftberry", 400.0),
        ("unary-1", "etcd", 700.0),
        ("unary-64", "raftberry", 4000.0),
    ):
        figures.note(load, load, "rate", system, value)
        figures.note(load, load, "p50", system, 1000 / value)
    return figures


def test_only_marked_parts_of_the_page_change() -> None:
    page = "before\n<!-- begin goals -->\nold\n<!-- end goals -->\nafter\n"
    new = publish.fill(page, {"goals": "new"})
    assert new == "before\n<!-- begin goals -->\nnew\n<!-- end goals -->\nafter\n"
    assert publish.fill(new, {"goals": "new"}) == new


def test_a_mark_that_nobody_fills_is_an_error() -> None:
    with pytest.raises(KeyError, match="goles"):
        publish.fill("<!-- begin goles -->\n<!-- end goles -->", {"goals": "new"})


def test_every_mark_of_the_page_is_filled() -> None:
    page = publish.PAGE.read_text("utf-8")
    texts = publish.parts([slice_of(small_figures())], small_figures())
    assert set(re.findall(r"<!-- begin (\w+) -->", page)) == set(texts)
    publish.fill(page, texts)


def test_a_section_says_when_where_and_by_what_command() -> None:
    text = publish.section([slice_of(small_figures())], small_figures())
    assert text.startswith("\n## 2026-11-27 01:00 UTC, 1 slice\n")
    assert "    script/benchmark --only unary" in text
    assert "2 x Card. Peers: etcd 3.4.23. Load average when slices began: 0.2 to 0.2." in text
    assert "quick look" not in text


def test_a_quick_look_is_called_no_result() -> None:
    one = slice_of(small_figures())
    one["command"] = "script/benchmark --quick"
    assert "**A quick look, one short round each: no result.**" in publish.setting([one])


def test_charts_are_drawn_of_what_was_measured_and_are_the_same_each_time(tmp_path: Path) -> None:
    first = charts.draw(small_figures(), tmp_path / "one")
    second = charts.draw(small_figures(), tmp_path / "two")
    assert [path.name for path in first] == ["performance-unary.svg", "performance-latency.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"<svg" in first[0].read_bytes()


def test_every_picture_of_the_page_is_a_chart_and_every_chart_is_shown() -> None:
    shown = re.findall(r"pictures/performance-(\w+)\.svg", publish.PAGE.read_text("utf-8"))
    assert sorted(shown) == sorted(chart.name for chart in charts.CHARTS)
