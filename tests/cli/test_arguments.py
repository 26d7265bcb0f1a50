"""What the command line takes for a value, what for an option, and what it says of either."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Raftberry
from tests.cli.fake_server import FakeNode


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
