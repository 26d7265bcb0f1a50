"""How a policy's SENSOR/METRIC is understood."""

from __future__ import annotations

import pytest

from appliance.cli.policy import split_globs


@pytest.mark.parametrize(
    ("text", "globs"),
    [
        ("greenhouse", ("greenhouse", "*")),
        ("greenhouse/", ("greenhouse", "*")),
        ("greenhouse/*", ("greenhouse", "*")),
        ("barn/east/*", ("barn/east", "*")),
        ("barn/*/temperature", ("barn/*", "temperature")),
        ("*", ("*", "*")),
    ],
)
def test_the_last_slash_divides_sensor_from_metric(text: str, globs: tuple[str, str]) -> None:
    assert split_globs(text) == globs
