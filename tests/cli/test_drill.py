"""What a drill makes of its records: gaps, elections, catching up, lost and double writes, the page."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.drill.faults import FAULTS, TRANSFER
from appliance.cli.drill.measuring import (
    Disturbance,
    catch_up_s,
    elections,
    leader_at,
    longest_gap_s,
    quantile_ms,
    tally,
    timeline,
)
from appliance.cli.drill.record import COLUMNS, Setting, Span, is_clean, make_record, rows, verdict
from appliance.cli.drill.report import render
from appliance.cli.main import EXIT_USAGE, run
from appliance.client.steady import Acknowledged, Look
from appliance.errors import RaftberryError


def acknowledged(*times_s: float, latency_s: float = 0.01) -> list[Acknowledged]:
    return [Acknowledged(at_s, latency_s, "client-0", number) for number, at_s in enumerate(times_s, start=1)]


def look(
    at_s: float, name: str, *, term: int = 1, applied: int = 0, commit: int = 0, leads: bool = False
) -> Look:
    return Look(at_s, name, leads, term, commit, applied, "node-1")


def test_the_gap_counts_from_the_last_acknowledgement_before_the_fault() -> None:
    assert longest_gap_s([9.0, 9.9, 11.5, 11.6, 12.0, 20.0], 10.0, 12.1) == pytest.approx(1.6)


def test_a_longer_pause_outside_the_window_is_not_the_faults() -> None:
    assert longest_gap_s([1.0, 9.9, 10.1, 10.2, 10.3, 30.0], 10.0, 10.3) == pytest.approx(0.2)


def test_a_pause_that_goes_on_behind_the_window_is_the_next_faults() -> None:
    assert longest_gap_s([9.9, 10.2, 10.4, 30.0], 10.0, 10.5) == pytest.approx(0.3)


def test_without_any_acknowledgement_the_gap_is_the_window() -> None:
    assert longest_gap_s([], 10.0, 14.0) == pytest.approx(4.0)


def test_elections_are_the_terms_that_began_in_the_window() -> None:
    looks = [
        look(1, "node-1", term=3),
        look(5, "node-2", term=4),
        look(6, "node-1", term=5),
        look(9, "node-1", term=7),
    ]
    assert elections(looks, 2, 8) == 2
    assert elections(looks, 7, 8) == 0


def test_a_node_has_caught_up_when_it_applied_what_was_committed_before() -> None:
    looks = [
        look(1.0, "node-1", commit=100, applied=100),
        look(2.0, "node-2", applied=40),
        look(2.1, "node-1", commit=120, applied=120),
        look(3.0, "node-2", applied=119),
        look(3.5, "node-2", applied=120),
    ]
    assert catch_up_s(looks, "node-2", 1.5) == pytest.approx(2.0)
    assert catch_up_s(looks[:4], "node-2", 1.5) is None


def test_the_leader_is_who_leads_in_the_highest_term() -> None:
    looks = [
        look(1, "node-1", term=2, leads=True),
        look(2, "node-2", term=3, leads=True),
        look(2, "node-3", term=3),
    ]
    assert leader_at(looks, ["node-1", "node-2", "node-3"], 0) == "node-2"
    assert leader_at(looks[:1], ["node-1"], 5) == ""


def test_quantiles_are_of_the_sorted_latencies() -> None:
    assert quantile_ms([0.004, 0.001, 0.003, 0.002], 0.5) == pytest.approx(2.0)
    assert quantile_ms([0.004, 0.001, 0.003, 0.002], 0.99) == pytest.approx(4.0)
    assert quantile_ms([], 0.5) is None


def test_the_time_axis_has_a_row_for_each_tenth_of_a_second_also_without_writes() -> None:
    columns = timeline(acknowledged(10.05, 10.06, 10.25), 10.0, 10.4)
    assert columns["at_s"] == [0.0, 0.1, 0.2, 0.3]
    assert columns["writes_per_second"] == [20.0, 0.0, 10.0, 0.0]
    assert columns["p50_ms"] == [10.0, None, 10.0, None]


def test_lost_and_double_writes_are_counted() -> None:
    writes = tally(acknowledged(1, 2, 3, 4), {"client-0": {5}}, {"client-0": [1, 2, 2, 2, 4, 5]})
    assert (writes.acknowledged, writes.lost, writes.duplicated, writes.unanswered) == (4, 1, 2, 1)


def test_a_double_write_of_a_writer_that_was_never_answered_is_counted_too() -> None:
    assert tally([], {"client-1": {1}}, {"client-1": [1, 1]}).duplicated == 1


def record_of(found: list[int]) -> dict[str, Any]:
    acks = acknowledged(1.0, 1.5, 2.0, 2.1, 3.9, 4.0, 5.0)
    fault = Disturbance(
        "leader-killed", "Leader <killed>", "node-1", 2.0, 4.0, 5.0, ("node-1",), [(2.0, "node-1 killed")]
    )
    looks = [
        look(1.0, "node-1", term=1, commit=5, applied=5, leads=True),
        look(3.0, "node-2", term=2, commit=6, applied=6, leads=True),
        look(4.5, "node-1", term=2, applied=6),
    ]
    setting = Setting("2026-01-01", "a machine", "1.0", "raftberry drill </script>", 3, 1, 0, 10.0, 2.0, 1.0)
    writes = tally(acks, {}, {"client-0": found})
    return make_record(setting, Span(1.0, 2.0, 5.0), [fault], acks, looks, writes)


def test_a_fault_costs_the_gap_the_elections_and_the_catching_up() -> None:
    (fault,) = record_of([1, 2, 3, 4, 5, 6, 7])["faults"]
    assert (fault["began_s"], fault["lifted_s"], fault["until_s"]) == (1.0, 3.0, 4.0)
    assert (fault["without_writes_ms"], fault["elections"], fault["catch_up_ms"]) == (1800, 1, 500)
    assert fault["writes_per_second"] == 1.5


def test_every_column_of_the_table_has_its_figure() -> None:
    assert all(tuple(row) == COLUMNS for row in rows(record_of([1, 2, 3, 4, 5, 6, 7])))


@pytest.mark.parametrize(
    ("found", "is_good"),
    [([1, 2, 3, 4, 5, 6, 7], True), ([1, 2, 3, 4, 5, 6], False), ([1, 2, 3, 4, 5, 6, 7, 7], False)],
)
def test_one_lost_or_double_write_spoils_the_drill(found: list[int], is_good: bool) -> None:
    assert is_clean(record_of(found)) is is_good


def test_the_verdict_names_what_was_lost_and_double() -> None:
    assert verdict(record_of([1, 2, 3, 4, 5, 5])) == "7 writes acknowledged, 2 lost, 1 double"


def test_the_page_carries_everything_and_allows_nothing_else() -> None:
    record = record_of([1, 2, 3, 4, 5, 6, 7])
    page = render(record)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for tag in ("script", "style"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    data = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.S)
    assert data is not None
    assert json.loads(data[1]) == record
    assert "Leader &lt;killed&gt;" in page
    assert not re.search(r'\s(on\w+|src|href)="', page)


def test_a_cluster_in_use_is_not_disturbed_without_a_yes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["drill", "-e", "127.0.0.1:1"]) == EXIT_USAGE
    assert "--yes-disturb-this-cluster" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {TRANSFER}))
def test_a_cluster_in_use_has_no_other_fault_than_a_transfer(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments = ["drill", "-e", "127.0.0.1:1", "--yes-disturb-this-cluster", "--fault", name]
    assert run(arguments) == EXIT_USAGE
    assert TRANSFER in capsys.readouterr().err


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A drill that measures in no time; how often it did."""
    done: list[str] = []

    def drill(*_: object) -> Any:
        done.append("drill")
        return record_of([1, 2, 3, 4, 5, 6, 7])

    monkeypatch.setattr("appliance.cli.drill.command._drill_own", drill)
    return done


@pytest.mark.parametrize("option", ["--report", "--json"])
def test_a_file_that_can_not_be_written_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], measured: list[str], tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").touch()
    for wrong, complaint in {
        tmp_path / "nope" / "x": "nope does not exist",
        tmp_path / "file" / "x": "file is not a directory",
        tmp_path: "is a directory",
    }.items():
        assert run(["drill", option, str(wrong)]) == EXIT_USAGE
        assert complaint in capsys.readouterr().err
    assert measured == []


def test_what_was_measured_is_printed_also_when_a_file_fails(
    capsys: pytest.CaptureFixture[str], measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, figures = tmp_path / "drill.html", tmp_path / "drill.json"
    assert run(["drill", "--report", str(report), "--json", str(figures)]) == 0
    assert len(json.loads(figures.read_text())["faults"]) == 1
    assert "<html" in report.read_text()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(report))

    monkeypatch.setattr(Path, "write_text", full)
    capsys.readouterr()
    assert run(["drill", "--report", str(report)]) == 1
    printed = capsys.readouterr()
    assert "leader-killed" in printed.out
    assert "7 writes acknowledged" in printed.err
    assert f"{report}: No space left on device" in printed.err


def test_files_are_written_also_when_nobody_reads_the_table(
    measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise RaftberryError("nobody reads")

    monkeypatch.setattr("appliance.cli.drill.command.emit", gone)
    assert run(["drill", "--report", str(tmp_path / "drill.html")]) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["drill.html"]
