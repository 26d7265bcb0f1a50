"""What the command line takes for a value, what for an option, and what it says of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cli.conftest import Raftberry
from tests.cli.fake_server import FakeNode, invalid


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("write", "kitchen", "temperature", "5", "--tiem", "-1h"), "No such option '--tiem'"),
        (("write", "kitchen", "temperature", "-5", "--tiem", "-1h"), "No such option '--tiem'"),
        (("write", "neg", "v", "-1h"), "'-1h' is not a number"),
        (("write", "neg", "v", "-x"), "No such option '-x'"),
        (("write", "neg", "v", "-5", "-6"), "unexpected extra argument (-6)"),
        (("write", "neg", "v", "-5", "--time"), "Option '--time' requires an argument"),
        (("kv", "put", "neg", "--tll", "1h"), "No such option '--tll'"),
    ],
)
def test_a_mistyped_argument_is_named_and_nothing_is_written(
    raftberry: Raftberry, nodes: list[FakeNode], arguments: tuple[str, ...], complaint: str
) -> None:
    result = raftberry(*arguments)
    assert (result.status, result.out, nodes[0].calls) == (2, "", [])
    assert complaint in result.err


@pytest.mark.parametrize("text", ["-5", "-1e5", "-1.5E-3", "-.5", "-inf"])
def test_a_negative_number_is_a_value_wherever_the_options_stand(
    raftberry: Raftberry, nodes: list[FakeNode], text: str
) -> None:
    assert raftberry("write", "--time", "-1h", "neg", "v", text, "-o", "json").status == 0
    assert raftberry("write", "neg", "w", "--time", "-5", "--", text).status == 0
    assert [list(series.values()) for series in nodes[0].memory.series.values()] == 2 * [[float(text)]]
    assert raftberry("kv", "put", "neg", text, "--if-mod-revision", "0").status == 0
    assert nodes[0].memory.keys["neg"].value == text.encode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("write", "\udcff", "t", "1"),
        ("latest", "\udcff"),
        ("query", "\udcff"),
        ("watch", "\udcff"),
        ("kv", "get", "a\udcff"),
        ("kv", "put", "a\udcff", "1"),
        ("series", "list", "\udcff"),
        ("series", "set", "a", "b", "--label", "floor=\udcff"),
        ("members", "remove", "\udcff"),
        ("policy", "set", "\udcff", "--keep", "1d"),
        ("token", "create", "\udcff"),
        ("transfer", "\udcff"),
        ("import", "readings.csv", "--sensor", "\udcff", "--metric", "b"),
        ("-\udcff",),
        ("\udcff",),
    ],
)
def test_an_argument_that_is_not_utf8_is_wrong_usage(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("timestamp,value\n1,1\n")
    result = raftberry(*(str(file) if one == "readings.csv" else one for one in arguments))
    assert (result.status, result.out) == (2, "")
    assert "internal error" not in result.err
    if not arguments[0].startswith(("-", "\udcff")):
        assert "is not UTF-8" in result.err
        assert "\\xff" in result.err


def test_a_value_and_a_file_name_may_be_any_bytes(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path
) -> None:
    assert raftberry("kv", "put", "key", "\udcff").status == 0
    assert nodes[0].memory.keys["key"].value == b"\xff"
    file = tmp_path / "\udcff.csv"
    file.write_text("timestamp,value\n1,1\n")
    result = raftberry("import", str(file), "--sensor", "a", "--metric", "b")
    assert (result.status, "1 rows in a b" in result.out) == (0, True)
    assert raftberry("export", str(file), "--sensor", "a", "--metric", "b").status == 0


def test_a_closed_standard_output_is_no_bug(raftberry: Raftberry, monkeypatch: pytest.MonkeyPatch) -> None:
    raftberry("write", "a", "b", "1")
    raftberry("kv", "put", "key", "1")
    for arguments in (
        ("latest",),
        ("export", "--sensor", "a", "--metric", "b"),
        ("kv", "get", "key", "--raw"),
        ("--help",),
    ):
        with monkeypatch.context() as closed:
            closed.setattr("sys.stdout", None)
            assert raftberry(*arguments).status == 0, arguments
            assert raftberry(*arguments).err == ""


def test_series_set_needs_what_it_is_to_set(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    result = raftberry("series", "set", "fresh", "x")
    assert (result.status, nodes[0].calls) == (2, [])
    assert "Give --unit, --label or both: they can be set only once." in result.err
    raftberry("series", "set", "fresh", "x", "--unit", "Cel")
    raftberry("series", "set", "fresh", "x", "--label", "floor=1")
    assert nodes[0].calls == ["SetSeries", "SetSeries"]


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        (("write", "", "t", "1"), "readings[0].sensor", "'SENSOR': the complaint"),
        (("write", "a", "t", "1"), "readings[0].metric", "'METRIC': the complaint"),
        (("write", "a", "t", "1"), "readings[0].time_unix_nano[0]", "'--time': the complaint"),
        (("write", "a", "t", "1"), "readings[0].int_value", "'VALUE': the complaint"),
        (("write", "a", "t", "1"), "producer_id", "'--producer': the complaint"),
        (("sensor", "--name", "a*", "--count", "1"), "readings[0].sensor", "'--name': the complaint"),
        (("query", "a"), "step_nano", "'--step': the complaint"),
        (("export", "--sensor", "a", "--metric", "b"), "sensor", "'--sensor': the complaint"),
        (("kv", "put", "", "1"), "key", "'KEY': the complaint"),
        (("kv", "put", "a", "1"), "ttl_seconds", "'--ttl': the complaint"),
        (("series", "set", "a", "b", "--unit", "x"), "labels", "'--label': the complaint"),
        (("write", "a", "t", "1"), "future_field", "future_field: the complaint"),
    ],
)
def test_what_a_node_finds_wrong_is_said_of_the_argument(
    raftberry: Raftberry, nodes: list[FakeNode], arguments: tuple[str, ...], field: str, said: str
) -> None:
    def refuse(method: str, request: Any, context: grpc.ServicerContext) -> None:
        invalid(context, field, "the complaint")

    nodes[0].misbehave = refuse
    result = raftberry(*arguments)
    assert (result.status, result.out) == (2, "")
    assert said in result.err


def test_a_range_that_ends_before_it_begins_is_said_in_dates(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    result = raftberry("query", "kitchen", "--start", "2027-01-01", "--end", "2026-01-01")
    assert (result.status, nodes[0].calls) == (2, [])
    assert "--end 2026-01-01T00:00:00Z lies before the start, 2027-01-01T00:00:00Z" in result.err
    assert raftberry("query", "--last", "1h", "--end", "-2h").status == 2
    assert raftberry("query", "--start", "2026-01-01", "--end", "2026-01-01").status == 4, (
        "no series: it was asked"
    )


def test_a_policy_that_sets_nothing_is_said_in_options(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    result = raftberry("policy", "set", "greenhouse/*")
    assert (result.status, nodes[0].calls) == (2, [])
    assert "Give --keep, --rollup or both" in result.err


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1" * 400])
def test_a_number_too_large_to_keep_is_refused(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path, text: str
) -> None:
    result = raftberry("write", "a", "b", text)
    assert (result.status, nodes[0].calls) == (2, [])
    side, sign = ("below", "-") if text.startswith("-") else ("above", "")
    assert f"{text} is {side} {sign}1.8e308, the " in result.err
    assert f"number that is kept; write {sign}inf if you mean it" in result.err
    file = tmp_path / "readings.csv"
    file.write_text(f"timestamp,value\n1,inf\n2,{text}\n")
    result = raftberry("import", str(file), "--sensor", "a", "--metric", "b")
    assert (result.status, nodes[0].memory.log) == (1, [])
    assert f"line 3, column value: {text} is {side} {sign}1.8e308" in result.err


@pytest.mark.parametrize("text", ["inf", "-inf", "Infinity", "+INF", " inf", "1.7976931348623157e308"])
def test_infinity_by_name_and_the_largest_number_are_kept(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path, text: str
) -> None:
    assert raftberry("write", "a", "b", text).status == 0
    file = tmp_path / "readings.csv"
    file.write_text(f"timestamp,value\n1,{text}\n")
    assert raftberry("import", str(file), "--sensor", "c", "--metric", "d").status == 0
    assert [list(one.values()) for one in nodes[0].memory.series.values()] == 2 * [[float(text)]]


@pytest.mark.parametrize(
    ("text", "said"), [(str(1 << 63), "does not fit 64 bits"), ("1.5", "is not an integer")]
)
def test_an_integer_that_does_not_fit_is_refused(
    raftberry: Raftberry, nodes: list[FakeNode], text: str, said: str
) -> None:
    result = raftberry("write", "a", "b", text, "--integer")
    assert (result.status, nodes[0].calls) == (2, [])
    assert said in result.err


HUGE = "9" * 20


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        (("query", "a", "b", "--start", "-9999y"), "outside the years 1677 to 2262"),
        (("query", "a", "b", "--end", "-9999y"), "outside the years 1677 to 2262"),
        (("query", "a", "b", "--aggregate", "mean", "--step", "999y"), "above 292y"),
        (("query", "a", "b", "--limit", HUGE), "0<=x<=4294967295"),
        (("watch", "--after", HUGE), "0<=x<=18446744073709551615"),
        (("write", "a", "b", "1", "--time", "-400y"), "outside the years 1677 to 2262"),
        (("write", "a", "b", "1", "--producer", "p", "--sequence", HUGE), "1<=x<=18446744073709551615"),
        (("kv", "put", "a", "1", "--if-mod-revision", HUGE), "0<=x<=18446744073709551615"),
        (("kv", "put", "a", "1", "--producer", "p", "--sequence", HUGE), "1<=x<=18446744073709551615"),
        (("kv", "put", "a", "1", "--ttl", "999999999999y"), "above 292y"),
        (("kv", "delete", "a", "--if-mod-revision", HUGE), "0<=x<=18446744073709551615"),
        (("kv", "list", "--limit", HUGE), "0<=x<=4294967295"),
        (("kv", "watch", "--after", HUGE), "0<=x<=18446744073709551615"),
        (("policy", "set", "a", "--keep", "9999999y"), "above 292y"),
        (("policy", "set", "a", "--rollup", "9999999y:1d"), "above 292y"),
        (("policy", "set", "a", "--rollup", "1d:9999999y"), "above 292y"),
        (("token", "create", "a", "--expires", "9999y"), "above 292y"),
        (("token", "create", "a", "--expires", "292y"), "beyond the year 2262"),
        (("invite", "--ttl", "9999999y"), "above 292y"),
        (("top", "--interval", "9999999y"), "above 292y"),
        (("latest", "--timeout", "9999999y"), "above 292y"),
    ],
)
def test_a_number_that_no_request_can_carry_is_refused_with_the_bound(
    raftberry: Raftberry, nodes: list[FakeNode], arguments: tuple[str, ...], bound: str
) -> None:
    result = raftberry(*arguments)
    assert (result.status, result.out, nodes[0].calls) == (2, "", [])
    assert bound in result.err
    assert arguments[-2] in result.err


def test_the_largest_numbers_are_carried(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    asked: list[Any] = []
    nodes[0].misbehave = lambda _, request, __: asked.append(request)
    largest = str(2**64 - 1)
    raftberry("write", "a", "b", "1", "--producer", "p", "--sequence", largest)
    raftberry("kv", "put", "a", "1", "--ttl", "292y", "--if-mod-revision", largest)
    raftberry("query", "a", "b", "--aggregate", "mean", "--step", "292y")
    assert asked[0].sequence == asked[1].if_mod_revision == 2**64 - 1
    assert asked[1].ttl_seconds * 10**9 == asked[2].step_nano == 292 * 365 * 86_400 * 10**9


def test_a_last_longer_than_time_is_all_of_it(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    first = "1677-09-21T00:12:43.145224192Z"
    assert raftberry("write", "a", "b", "5", "--time", first).status == 0
    result = raftberry("query", "a", "b", "--last", "400y")
    assert (result.status, result.out.splitlines()[1].split()) == (0, [first, "a", "b", "5.0"])
    assert raftberry("query", "a", "b", "--last", "999999999999999999y", "--end", "now").status == 0
