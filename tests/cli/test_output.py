"""Tables: whatever a cell holds, a row is one line, columns stay aligned, and nothing reaches the terminal raw."""

from __future__ import annotations

import json

import pytest
from rich.cells import cell_len

from appliance.cli.output import VALUE_WIDTH_MAX, emit_one, render_table
from tests.cli.conftest import Raftberry
from tests.cli.fake_server import FakeNode


def test_what_would_steer_the_terminal_is_escaped() -> None:
    table = render_table([{"key": "a\x1b[31m\nb\r\x9b\u202e\x00", "value": "ü €\t"}], ["key", "value"])
    assert table.splitlines()[1:] == [r"a\x1b[31m\nb\r\x9b\u202e\x00  ü €\t"]


def test_a_single_result_is_escaped_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    emit_one({"key": "a", "value": "\x1b]0;title\x07" + 1_000 * "x"}, "table")
    assert capsys.readouterr().out == "key: a\nvalue: \\x1b]0;title\\x07" + 1_000 * "x" + "\n"


@pytest.mark.parametrize("text", ["x", "温", "温x"])
def test_a_value_is_shortened_at_the_width_and_not_below(text: str) -> None:
    whole = text * (VALUE_WIDTH_MAX // cell_len(text))
    rows = [{"value": whole, "more": 1}, {"value": whole + text, "more": 2}]
    first, second = render_table(rows, ["value", "more"]).splitlines()[1:]
    assert first.split() == [whole, "1"]
    shortened = second.split()[0]
    assert shortened.endswith("…")
    assert whole.startswith(shortened[:-1])
    assert VALUE_WIDTH_MAX - 2 <= cell_len(shortened) <= VALUE_WIDTH_MAX


def test_a_key_is_never_shortened() -> None:
    key = "k" * 200
    assert key in render_table([{"key": key, "value": ""}], ["key", "value"])


def test_wide_characters_count_for_two_columns() -> None:
    rows = [{"name": "温室", "n": 1}, {"name": "green", "n": 1}, {"name": "e\u0301", "n": 1}]
    lines = render_table(rows, ["name", "n"]).splitlines()
    assert {cell_len(line) for line in lines} == {8}


def test_keys_are_listed_one_a_line_and_whole_as_json(raftberry: Raftberry, nodes: list[FakeNode]) -> None:
    raftberry("kv", "put", "lines", "1\n2\x1b[2J")
    raftberry("kv", "put", "long", "x")
    nodes[0].memory.keys["long"].value = bytes(range(256)) + bytes(44)
    table = raftberry("kv", "list").out.splitlines()
    assert len(table) == 3
    assert max(map(len, table)) < 120
    assert r"1\n2\x1b[2J" in table[1]
    rows = json.loads(raftberry("kv", "list", "-o", "json").out)
    assert [len(row["value"]) for row in rows] == [7, 400]
