"""The commands against a fake cluster: what they print, which status they exit with."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import re
from typing import Any

import click
import grpc
import pytest

from appliance.cli.main import COMMANDS, cli, run
from appliance.client import methods
from tests.cli.conftest import Raftberry
from tests.cli.fake_server import FakeNode, abort

TIME = "2026-01-31T12:00:00Z"


def refuse(code: grpc.StatusCode, message: str, **info: Any) -> Any:
    """A node that answers every request so."""
    return lambda method, request, context: abort(context, code, message, **info)


def test_a_written_reading_is_shown_as_latest(raftberry: Raftberry) -> None:
    assert raftberry("write", "kitchen", "temperature", "21.5", "--time", TIME).status == 0
    result = raftberry("latest", "-o", "json")
    assert json.loads(result.out) == [
        {
            "time": TIME, "sensor": "kitchen", "metric": "temperature", "value": 21.5,
            "time_unix_nano": 1_769_860_800_000_000_000,
        }
    ]  # fmt: skip


def test_formats_say_the_same(raftberry: Raftberry) -> None:
    raftberry("write", "kitchen", "temperature", "-21.5", "--time", TIME)
    assert raftberry("latest").out.split("\n")[1].split() == [TIME, "kitchen", "temperature", "-21.5"]
    assert list(csv.reader(io.StringIO(raftberry("latest", "-o", "csv").out))) == [
        ["time", "sensor", "metric", "value"],
        [TIME, "kitchen", "temperature", "-21.5"],
    ]
    assert json.loads(raftberry("latest", "-o", "jsonl").out)["value"] == -21.5


def test_values_json_has_no_number_for_are_strings(raftberry: Raftberry) -> None:
    for value in ("nan", "inf", "-inf"):
        raftberry("write", value, "m", value, "--time", TIME)
    rows = json.loads(raftberry("latest", "-o", "json").out)
    assert [row["value"] for row in rows] == ["-Infinity", "Infinity", "NaN"]


def test_no_match_exits_with_4(raftberry: Raftberry) -> None:
    assert raftberry("latest", "cellar").status == 4


def test_a_query_tells_no_such_series_from_no_readings_in_the_span(raftberry: Raftberry) -> None:
    raftberry("write", "kitchen", "temperature", "21.5", "--time", TIME)
    nothing = raftberry("query", "nosuch", "-o", "csv")
    assert (nothing.status, nothing.out) == (4, "time,sensor,metric,value\n")
    assert "no series matches 'nosuch' '*'" in nothing.err
    later = raftberry("query", "kitchen", "--start", "2026-09-10T12:00:00Z")
    assert (later.status, later.out.split()) == (0, ["TIME", "SENSOR", "METRIC", "VALUE"])
    assert "no readings in this span" in later.err
    assert raftberry("query", "kitchen").err == ""


def test_deleting_no_series_exits_with_4(raftberry: Raftberry) -> None:
    raftberry("write", "kitchen", "temperature", "21.5", "--time", TIME)
    nothing = raftberry("series", "delete", "nosuch", "x", "--yes", "-o", "json")
    assert (nothing.status, json.loads(nothing.out)["series_count"]) == (4, 0)
    assert "no series matches 'nosuch' 'x'" in nothing.err
    done = raftberry("series", "delete", "kitchen", "*", "--yes", "-o", "json")
    assert (done.status, json.loads(done.out)["series_count"], done.err) == (0, 1, "")


def test_an_export_of_no_series_names_it(raftberry: Raftberry) -> None:
    result = raftberry("export", "--sensor", "nosuch", "--metric", "x")
    assert (result.status, result.out) == (4, "")
    assert "nosuch x does not exist or has no readings" in result.err


def test_a_query_gives_every_row_of_several_messages(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    nodes[0].memory.series["kitchen", "load"] = {number: float(number) for number in range(2_000)}
    assert len(raftberry("query", "kitchen", "-o", "jsonl").out.splitlines()) == 2_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "--last", "1h", "--start", "now"),
        ("query", "--step", "1m"),
        ("query", "--start", "1700000000000"),
        ("write", "kitchen", "temperature", "warm"),
        ("write", "kitchen", "temperature", "1", "--sequence", "5"),
        ("latest", "-e", "nowhere"),
        ("latest", "--timeout", "5"),
        ("kv", "put", "key"),
        ("kv", "put", "key", "1", "--ttl", "1500ms"),
        ("kv", "put", "key", "1", "--ttl", "0s"),
        ("invite", "--ttl", "10ms"),
        ("token", "create", "reader", "--read", "*", "--expires", "0s"),
        ("query", "--quantile", "0.9", "--aggregate", "mean"),
        ("status", "--interval", "5s"),
        ("status", "--for", "1s"),
        ("status", "--live", "-o", "jsonl"),
        ("export", "--sensor", "a*", "--metric", "b"),
        ("unheard-of",),
    ],
)
def test_wrong_usage_exits_with_2(raftberry: Raftberry, arguments: tuple[str, ...]) -> None:
    result = raftberry(*arguments)
    assert (result.status, result.out) == (2, "")
    assert "Traceback" not in result.err


def test_keys_are_put_read_listed_and_deleted(raftberry: Raftberry) -> None:
    assert raftberry("kv", "put", "heating/target", "21", "--if-mod-revision", "0").status == 0
    assert raftberry("kv", "put", "heating/target", "22", "--if-mod-revision", "0").status == 5
    assert json.loads(raftberry("kv", "get", "heating/target", "-o", "json").out)["value"] == "21"
    assert "heating/target" in raftberry("kv", "list", "heating/").out
    assert raftberry("kv", "delete", "heating/target").status == 0
    assert raftberry("kv", "delete", "heating/target").status == 4
    assert raftberry("kv", "get", "heating/target").status == 4


def test_a_value_that_is_not_text_is_shown_as_base64(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    raftberry("kv", "put", "key", "x")
    nodes[0].memory.keys["key"].value = b"\xff\x00"
    row = json.loads(raftberry("kv", "get", "key", "-o", "json").out)
    assert (row["value"], row["encoding"]) == ("/wA=", "base64")


def test_status_has_a_row_for_each_node_asked_or_known_to_the_leader(raftberry: Raftberry) -> None:
    rows = json.loads(raftberry("status", "-o", "json").out)
    assert [(row["name"], row["role"], row["lag"]) for row in rows] == [
        ("node-1", "leader", 0),
        ("node-2", "follower", 0),
        ("node-9", "unreachable", 2),
    ]
    table = raftberry("status").out.splitlines()
    assert table[0].split()[:2] == ["NAME", "ROLE"]
    assert "3.0 MiB" in table[1]


def test_status_in_json_has_what_the_card_bears_as_the_documents_say(raftberry: Raftberry) -> None:
    asked, _, unasked = json.loads(raftberry("status", "-o", "json").out)
    assert asked["written_bytes"] == 5 << 30
    assert asked["written_bytes_per_day"] == 1 << 30
    assert asked["card_life_used_percent"] == 20
    assert asked["scrubbed_unix_nano"] == 1_790_000_000 * 10**9
    assert unasked["written_bytes"] is None


def test_status_exits_with_3_without_a_quorum(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    nodes[0].memory.leader = ""
    result = raftberry("status")
    assert result.status == 3
    assert "no quorum" in result.err


def test_members_of_a_node_that_knows_no_cluster_exits_with_3_and_says_why(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    nodes[0].memory.leader = ""
    for arguments in (("members",), ("members", "list", "-o", "json")):
        result = raftberry(*arguments)
        assert (result.status, result.out) == (3, "")
        assert "node-1 knows no members of a cluster: waiting for the other founders" in result.err


def test_the_live_view_prints_snapshots_where_there_is_no_terminal(raftberry: Raftberry) -> None:
    raftberry("write", "kitchen", "temperature", "21.5", "--time", TIME)
    result = raftberry("status", "--live", "--for", "10ms")
    assert result.status == 0
    assert "node-1 leads in term 3" in result.out
    assert "kitchen" in result.out


def test_members_series_and_transfer_print_their_result(raftberry: Raftberry) -> None:
    assert "00000000000000ff" in raftberry("members").out
    assert [one["name"] for one in json.loads(raftberry("members", "-o", "json").out)] == ["node-1", "node-2"]
    raftberry("write", "kitchen", "temperature", "1", "--time", TIME)
    assert "floor=1" in raftberry("series").out
    assert json.loads(raftberry("series", "list", "-o", "json").out)[0]["first_time"] == TIME
    assert json.loads(raftberry("transfer", "node-2", "-o", "json").out) == {"leader": "node-2", "term": 4}


@pytest.mark.parametrize(
    ("code", "info", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, {"reason": "INVALID_ARGUMENT", "outcome": "NOT_APPLIED"}, 2),
        (grpc.StatusCode.UNAVAILABLE, {"reason": "NO_LEADER", "outcome": "NOT_APPLIED"}, 3),
        (grpc.StatusCode.NOT_FOUND, {"reason": "NOT_FOUND", "outcome": "NOT_APPLIED"}, 4),
        (grpc.StatusCode.FAILED_PRECONDITION, {"reason": "CONDITION_FAILED", "outcome": "NOT_APPLIED"}, 5),
        (grpc.StatusCode.INVALID_ARGUMENT, {"reason": "SEQUENCE_REUSED", "outcome": "NOT_APPLIED"}, 2),
        (grpc.StatusCode.OUT_OF_RANGE, {"reason": "SEQUENCE_TOO_OLD", "outcome": "OUTCOME_UNKNOWN"}, 1),
        (grpc.StatusCode.UNAVAILABLE, {"reason": "NO_LEADER", "outcome": "OUTCOME_UNKNOWN"}, 1),
        (grpc.StatusCode.INTERNAL, {}, 1),
        (grpc.StatusCode.DEADLINE_EXCEEDED, {}, 1),
    ],
)
def test_the_exit_status_tells_what_became_of_a_write(
    raftberry: Raftberry, nodes: list[FakeNode], code: grpc.StatusCode, info: dict[str, str], status: int
) -> None:
    for node in nodes:
        node.misbehave = refuse(code, "what the node said", **info)
    result = raftberry("write", "kitchen", "temperature", "1", "--timeout", "4s")
    assert (result.status, result.out) == (status, "")
    assert "what the node said" in result.err
    assert ("outcome is unknown" in result.err) == (info.get("outcome") != "NOT_APPLIED")


@pytest.mark.parametrize(
    "command", [("query",), ("latest",), ("series",), ("members",), ("kv", "get", "key")]
)
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_read_that_breaks_has_no_outcome_to_be_unknown(
    raftberry: Raftberry, nodes: list[FakeNode], command: tuple[str, ...], code: grpc.StatusCode
) -> None:
    for node in nodes:
        node.misbehave = refuse(code, "what the node said")
    result = raftberry(*command, "--timeout", "1s")
    assert result.status == 1
    assert "what the node said; nothing was changed, try again" in result.err
    assert "outcome" not in result.err


def test_a_read_that_breaks_is_asked_elsewhere(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    raftberry("write", "kitchen", "temperature", "21.5", "--time", TIME)
    nodes[0].misbehave = refuse(grpc.StatusCode.UNAVAILABLE, "gone")
    assert "kitchen" in raftberry("latest").out


def test_every_method_is_a_read_or_may_change_something() -> None:
    every = [each for each in vars(methods).values() if isinstance(each, methods.Method)]
    assert {each.name.partition("/")[2] for each in every if not each.is_read} == {
        *("Write", "StreamWrite", "SetSeries", "DeleteSeries", "Put", "Delete", "TransferLeadership"),
        *("AddMember", "RemoveMember", "PromoteMember", "UpdateMember", "CreateToken", "RevokeToken"),
        *("CreateInvite", "Open", "StartJoin", "SetPolicy", "DeletePolicy"),
    }


def test_no_node_at_all_exits_with_3_and_says_where_it_looked(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    for node in nodes:
        node.stop()
    result = raftberry("latest")
    assert result.status == 3
    assert nodes[1].address in result.err


def test_a_bug_is_one_line_with_how_to_see_the_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.cli.version.installed_version", lambda: 1 / 0)
    assert run(["version"]) == 1
    err = capsys.readouterr().err
    assert "internal error: ZeroDivisionError" in err
    assert "Traceback" not in err


def test_names_are_resolved_as_the_machine_does_also_by_mdns(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's own resolver asks DNS servers only, which know nothing of `pi-1.local`."""
    monkeypatch.delenv("GRPC_DNS_RESOLVER", raising=False)
    assert run(["version"]) == 0
    assert os.environ["GRPC_DNS_RESOLVER"] == "native"


def test_version_needs_no_grpc(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert re.match(r"raftberry \S+ \(Python", capsys.readouterr().out)


def test_every_command_has_a_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert run([name, "--help"]) == 0, name
        assert f"Example: raftberry {name}" in capsys.readouterr().out, name


def test_what_a_command_imports_is_not_searched_for_garbage() -> None:
    gc.unfreeze()
    try:
        assert cli.get_command(click.Context(cli), "version") is not None
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@pytest.mark.parametrize(("after", "indices"), [("0", [14, 15]), ("13", [14, 15]), ("14", [15])])
def test_a_watch_after_0_begins_with_the_earliest_that_is_kept(
    raftberry: Raftberry, nodes: list[FakeNode], after: str, indices: list[int]
) -> None:
    for value in range(5):
        raftberry("write", "kitchen", "temperature", str(value), "--time", TIME)
    nodes[0].memory.earliest = 13
    result = raftberry("watch", "--after", after, "--count", str(len(indices)), "-o", "jsonl")
    assert result.status == 0
    assert [json.loads(line)["index"] for line in result.out.splitlines()] == indices


def test_a_watch_behind_what_was_trimmed_says_so(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    nodes[0].memory.earliest = 13
    result = raftberry("watch", "--after", "1")
    assert result.status == 1
    assert "the log behind index 1 was trimmed" in result.err


def test_the_help_says_what_0_and_a_width_alone_mean(raftberry: Raftberry) -> None:
    for command in (("watch",), ("kv", "watch")):
        assert "0: all that is kept" in " ".join(raftberry(*command, "--help").out.split())
    assert "1m for ever" in " ".join(raftberry("policy", "set", "--help").out.split())
