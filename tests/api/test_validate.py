"""What a client may send: each bound at, below and above it, each message with its remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import limits
from appliance.api import validate
from appliance.errors import InvalidArgument
from raftberry.v1 import reading_pb2

TOO_LONG = "x" * 300

REFUSED: list[tuple[str, Callable[[], object], str, str]] = [
    ("empty name", lambda: validate.name("sensor", ""), "sensor", "give a name of 1 to 200 bytes"),
    ("300-byte name", lambda: validate.name("sensor", TOO_LONG), "sensor", "300 bytes long"),
    ("201 bytes of UTF-8", lambda: validate.name("sensor", "é" * 100 + "x"), "sensor", "201 bytes long"),
    ("C0", lambda: validate.name("metric", "a\nb"), "metric", "control character U+000A at 1"),
    ("DEL", lambda: validate.name("metric", "a\x7f"), "metric", "control character U+007F"),
    ("C1", lambda: validate.name("metric", "\x85"), "metric", "control character U+0085"),
    ("glob *", lambda: validate.name("key", "a*"), "key", "none of * ? ["),
    ("glob ?", lambda: validate.name("key", "a?"), "key", "none of * ? ["),
    ("glob [", lambda: validate.name("key", "[a]"), "key", "none of * ? ["),
    ("not UTF-8", lambda: validate.name_bytes("sensor", b"\xff"), "sensor", "not UTF-8"),
    ("surrogate", lambda: validate.name_bytes("sensor", b"\xed\xa0\x80"), "sensor", "not UTF-8"),
    ("long pattern", lambda: validate.pattern("sensor", "*" + TOO_LONG), "sensor", "at most 200"),
    ("control pattern", lambda: validate.pattern("sensor", "a\0*"), "sensor", "control character"),
    ("open bracket", lambda: validate.pattern("sensor", "a[bc"), "sensor", "never closed"),
    ("empty bracket", lambda: validate.pattern("sensor", "a[]"), "sensor", "never closed"),
    ("delete all", lambda: validate.required_pattern("sensor", ""), "sensor", "* for all"),
    ("sequence alone", lambda: validate.producer("", 5), "producer_id", "only together with a producer_id"),
    ("glob producer", lambda: validate.producer("p*", 5), "producer_id", "none of * ? ["),
    ("consistency", lambda: validate.consistency(9), "consistency", "CONSISTENCY_LOCAL (2)"),
    ("negative step", lambda: aggregate([1], step=-1), "step_nano", "negative"),
    ("step alone", lambda: aggregate([], step=1), "step_nano", "without an aggregation"),
    ("unspecified", lambda: aggregate([0]), "aggregations[0]", "raw readings"),
    ("unknown", lambda: aggregate([1, 99]), "aggregations[1]", "99 is not known"),
    ("twice", lambda: aggregate([1, 1]), "aggregations[1]", "AGGREGATION_MIN is named twice"),
    ("quantile", lambda: aggregate([9], quantile=1.5), "quantile", "between 0 and 1"),
    ("NaN quantile", lambda: aggregate([9], quantile=float("nan")), "quantile", "between 0 and 1"),
    ("range", lambda: validate.time_range(5, 4), "end_time_unix_nano", "start <= time < end"),
    ("value", lambda: validate.value("value", b"x" * (limits.VALUE_BYTES_MAX + 1)), "value", "at most"),
    ("ttl", lambda: validate.ttl_seconds(validate.TTL_SECONDS_MAX + 1), "ttl_seconds", "never expires"),
    ("unit", lambda: validate.attributes("x" * 41, {}), "unit", "at most 40"),
    ("labels", lambda: validate.attributes("", {str(n): "" for n in range(33)}), "labels", "at most 32"),
    ("label name", lambda: validate.attributes("", {"": "x"}), "labels", "empty name"),
    ("label value", lambda: validate.attributes("", {"room": "\n"}), "labels['room']", "control character"),
    ("label bytes", lambda: validate.attributes("", {"room": "x" * 201}), "labels['room']", "at most 200"),
]


def aggregate(values: list[int], *, quantile: float = 0.0, step: int = 0) -> tuple[int, ...]:
    return validate.aggregations(values, quantile=quantile, step_nano=step)


@pytest.mark.parametrize(
    ("call", "field", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_wrong_is_refused_by_field_and_remedy(
    call: Callable[[], object], field: str, words: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert caught.value.field == field
    assert words in caught.value.description


def test_what_lies_on_a_bound_is_taken() -> None:
    assert validate.name("sensor", "x" * 200) == "x" * 200
    assert validate.name("sensor", "Gewächshaus 1/Süd]") == "Gewächshaus 1/Süd]"
    assert validate.pattern("sensor", "") == "*"
    assert validate.pattern("sensor", "gr[a-e]en*") == "gr[a-e]en*"
    assert validate.pattern("sensor", "[]]") == "[]]"
    assert validate.prefix("prefix", "") == ""
    assert validate.producer("", 0) == ""
    assert validate.producer(b"p", 0) == "p"
    assert validate.consistency(0) == reading_pb2.CONSISTENCY_LINEARIZABLE
    assert validate.consistency(2) == reading_pb2.CONSISTENCY_LOCAL
    assert aggregate([9, 1], quantile=1.0, step=1) == (9, 1)
    assert aggregate([1], quantile=7.0) == (1,)
    validate.time_range(5, 5)
    validate.time_range(None, -(2**63))
    assert validate.value("value", b"x" * limits.VALUE_BYTES_MAX)
    assert validate.ttl_seconds(validate.TTL_SECONDS_MAX)
    validate.attributes("x" * 40, {str(n): "x" * 200 for n in range(32)})


@given(st.binary(max_size=250))
def test_any_bytes_are_a_name_or_refused(raw: bytes) -> None:
    try:
        text = validate.name_bytes("sensor", raw)
    except InvalidArgument:
        return
    assert text.encode() == raw
    assert 1 <= len(raw) <= limits.NAME_BYTES_MAX
