"""Times and units as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli.times import format_time, parse_time, parse_time_or_age
from appliance.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "time_unix_nano"),
    [
        ("1970-01-01", 0),
        ("1970-01-01 00:00:01", 10**9),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59.5", -(10**9) // 2),
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.25", 1_700_000_000 * 10**9 + 250_000_000),
        ("-1", -(10**9)),
        ("1700000000000000001", 1_700_000_000_000_000_001),
    ],
)
def test_a_time_is_read_exactly(text: str, time_unix_nano: int) -> None:
    assert parse_time(text) == time_unix_nano


@pytest.mark.parametrize(
    "text", ["", "today", "2020-13-01", "2020-01-01T25:00", "1700000000000", "9" * 30, "1e9"]
)
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is"):
        parse_time(text)


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_formatted_time_reads_back_as_the_same(time_unix_nano: int) -> None:
    assert parse_time(format_time(time_unix_nano)) == time_unix_nano
    assert parse_time(format_time(time_unix_nano, separator=" ", suffix="")) == time_unix_nano


def test_an_age_counts_back_from_now() -> None:
    assert parse_time_or_age("-1m", now_unix_nano=10**12) == 10**12 - 60 * 10**9
    assert parse_time_or_age("now", now_unix_nano=5) == 5


def test_sizes_and_durations() -> None:
    assert parse_size("64MiB") == 64 * 2**20
    assert parse_size("1.5 kB") == 1_500
    assert parse_size(7) == 7
    assert parse_duration("1.5s") == 1_500_000_000
    for bad in ("5", 5, "5 parsecs", "-5s", True, None):
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration(bad)
    for wrong in ("", "MiB", -1, True, 1.5):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(wrong)
