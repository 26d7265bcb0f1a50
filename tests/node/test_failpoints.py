"""Where the committer may be told to wait."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from appliance.errors import ConfigurationError
from appliance.node.failpoints import STALL_S_MAX, Failpoints


def passes(file: Path, *points: str) -> list[float]:
    slept: list[float] = []
    failpoints = Failpoints(f"journal.before_commit:stall:{file}", random.Random(1), sleep=slept.append)
    for point in points:
        failpoints.pass_by(point)
    return slept


def test_a_commit_waits_the_seconds_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "stall"
    file.write_text("0.25\n")
    assert passes(file, "journal.before_commit", "journal.before_commit") == [0.25, 0.25]


def test_no_other_point_waits(tmp_path: Path) -> None:
    file = tmp_path / "stall"
    file.write_text("0.25")
    assert passes(file, "journal.after_commit", "store.before_commit") == []


@pytest.mark.parametrize("text", [None, "", "soon", "-1", "nan"])
def test_nothing_waits_without_a_number_of_seconds(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "stall"
    if text is not None:
        file.write_text(text)
    assert passes(file, "journal.before_commit") == []


def test_a_wait_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "stall"
    file.write_text("1e9")
    assert passes(file, "journal.before_commit") == [STALL_S_MAX]


@pytest.mark.parametrize(
    "text", ["journal.before_commit:stall", "journal.before_commit:nap:1", "here:stall:/f"]
)
def test_what_is_no_failpoint_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(ConfigurationError, match="POINT:stall:FILE"):
        Failpoints(text, random.Random(1))
