"""What the page says of a chart that shows less than one would think; by node, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

REMARKS = Path(__file__).resolve().parents[2] / "appliance" / "web" / "static" / "remarks.js"
NODE = shutil.which("node")

POINTS = {
    "sensor": "kitchen",
    "metric": "t",
    "exists": True,
    "left_out_count": 0,
    "step_ms": 0,
    "times_ms": [1],
}


def remarks_on(*answers: dict[str, object]) -> list[str]:
    """What remarks.js says of these answers of /api/v1/chart."""
    if NODE is None:
        pytest.skip("no node here")
    script = f"{REMARKS.read_text('utf-8')}\nconsole.log(JSON.stringify(remarksOn({json.dumps(answers)})));"
    done = subprocess.run(
        [NODE, "--input-type=module"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"exists": False, "times_ms": []}, ["There is no series kitchen t."]),
        ({"times_ms": []}, ["kitchen t has no readings in this span."]),
        ({"times_ms": [], "step_ms": 10}, ["kitchen t has only NaN in this span."]),
        ({"left_out_count": 1}, ["kitchen t: 1 reading is NaN or infinite and left out."]),
        ({"left_out_count": 2}, ["kitchen t: 2 readings are NaN or infinite and left out."]),
        (
            {"left_out_count": 2, "step_ms": 10},
            ["kitchen t: 2 windows hold infinite readings and are left out."],
        ),
    ],
)
def test_what_is_not_drawn_is_said(changes: dict[str, object], said: list[str]) -> None:
    assert remarks_on({**POINTS, **changes}) == said


def test_each_series_has_its_own_remark() -> None:
    said = remarks_on(POINTS, {**POINTS, "sensor": "attic", "times_ms": []})
    assert said == ["attic t has no readings in this span."]
