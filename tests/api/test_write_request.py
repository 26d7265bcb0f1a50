"""Columns pass from the wire to the operation as bytes, however a client encodes them."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import limits
from appliance.api import write_request
from appliance.api.write_request import sequence_of, write_operation
from appliance.errors import InvalidArgument, NotApplied
from appliance.state.columns import CODEC_PCODEC, CODEC_RAW, decode_columns
from raftberry.internal.v1 import command_pb2
from raftberry.v1 import reading_pb2

NOW = 1_800_000_000_000_000_000
TIMES = [-5, 0, 2**63 - 1, -(2**63)]


def now() -> int:
    return NOW


def operation(*readings: reading_pb2.Readings, **fields: str | int) -> command_pb2.Operation:
    return write_operation(reading_pb2.WriteRequest(readings=readings, **fields).SerializeToString(), now)  # type: ignore[arg-type]


def one(**fields: object) -> reading_pb2.Readings:
    return reading_pb2.Readings(**({"sensor": "s", "metric": "m"} | fields))  # type: ignore[arg-type]


def delimited(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes(((number << 3) | 2, len(content))) + content


def columns_of(operation: command_pb2.Operation) -> tuple[list[int], list[float]]:
    decoded = decode_columns(operation.write.columns[0])
    return decoded.times.tolist(), decoded.values.tolist()


def test_packed_columns_arrive_as_they_were_sent() -> None:
    got = operation(one(time_unix_nano=TIMES, value=[1.5, -0.0, math.inf, 2.5]), producer_id="p", sequence=3)
    assert columns_of(got) == (TIMES, [1.5, -0.0, math.inf, 2.5])
    assert (got.producer_id, got.sequence) == ("p", 3)
    assert got.write.columns[0].codec == CODEC_RAW
    assert not got.write.columns[0].integer


def test_integers_stay_integers() -> None:
    got = operation(one(time_unix_nano=[1, 2], int_value=[2**63 - 1, -(2**63)]))
    assert got.write.columns[0].integer
    assert columns_of(got) == ([1, 2], [2**63 - 1, -(2**63)])


def test_nan_is_kept_bit_for_bit() -> None:
    pattern = struct.pack("<Q", 0x7FF8000000000123)
    raw = delimited(1, b"\n\x01s\x12\x01m" + delimited(4, bytes(8)) + delimited(5, pattern))
    assert write_operation(raw, now).write.columns[0].values == pattern


def test_columns_in_several_pieces_are_joined() -> None:
    body = b"\n\x01s\x12\x01m"
    body += delimited(4, struct.pack("<q", 1)) + delimited(5, struct.pack("<dd", 0.5, 1.5))
    body += delimited(4, struct.pack("<q", 2))
    assert columns_of(write_operation(delimited(1, body), now)) == ([1, 2], [0.5, 1.5])


def test_unpacked_columns_are_understood() -> None:
    body = b"\n\x01s\x12\x01m"
    body += b"\x21" + struct.pack("<q", 1) + b"\x29" + struct.pack("<d", 0.5)
    body += delimited(4, struct.pack("<q", 2)) + b"\x29" + struct.pack("<d", 1.5)
    assert columns_of(write_operation(delimited(1, body), now)) == ([1, 2], [0.5, 1.5])


def test_fields_of_a_later_version_are_passed_over() -> None:
    body = b"\n\x01s\x12\x01m" + delimited(4, bytes(8)) + delimited(5, bytes(8)) + delimited(9, b"later")
    assert columns_of(write_operation(delimited(1, body), now)) == ([0], [0.0])


def test_long_columns_are_encoded_where_they_enter() -> None:
    count = limits.ENCODE_READINGS_MIN
    times, values = list(range(count)), [20.0 + n / 4 for n in range(count)]
    got = operation(one(time_unix_nano=times, value=values))
    assert got.write.columns[0].codec == CODEC_PCODEC
    assert columns_of(got) == (times, values)
    shorter = operation(one(time_unix_nano=times[1:], value=values[1:]))
    assert shorter.write.columns[0].codec == CODEC_RAW


def test_a_single_value_without_time_gets_the_nodes() -> None:
    assert columns_of(operation(one(value=[1.0]))) == ([NOW], [1.0])


def test_a_clock_that_is_not_set_refuses_the_stamp() -> None:
    def unset() -> int:
        raise NotApplied("the clock is not set")

    raw = reading_pb2.WriteRequest(readings=[one(value=[1.0])]).SerializeToString()
    with pytest.raises(NotApplied, match="clock"):
        write_operation(raw, unset)


@pytest.mark.parametrize(
    ("readings", "field", "words"),
    [
        ([], "readings", "at least one reading"),
        ([one()], "readings[0].value", "neither value nor int_value"),
        ([one(time_unix_nano=[1])], "readings[0].value", "neither value nor int_value"),
        ([one(time_unix_nano=[1], value=[1], int_value=[1])], "readings[0].int_value", "both set"),
        ([one(time_unix_nano=[1, 2, 3], value=[1, 2])], "readings[0].time_unix_nano", "3 times for 2 values"),
        ([one(value=[1, 2])], "readings[0].time_unix_nano", "empty for 2 values"),
        ([one(value=[1]), one(value=[1], sensor="")], "readings[1].sensor", "empty"),
        ([one(value=[1], metric="m*")], "readings[0].metric", "none of * ? ["),
        ([one(value=[1])] * 10_001, "readings", "at most 10000"),
        ([one(int_value=[0] * 200_001, time_unix_nano=[0] * 200_001)], "readings", "split it"),
    ],
)
def test_what_is_wrong_is_refused_by_field(
    readings: list[reading_pb2.Readings], field: str, words: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        operation(*readings)
    assert caught.value.field == field
    assert words in caught.value.description


def test_the_largest_request_is_taken() -> None:
    count = limits.READINGS_PER_REQUEST_MAX
    got = operation(one(time_unix_nano=range(count), int_value=[1] * count))
    assert got.write.columns[0].count == count


def test_a_request_of_too_many_series_is_refused_before_any_of_them_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two bytes each on the wire, hundreds in memory: 4 MiB of them would take half a gigabyte."""
    monkeypatch.setattr(write_request, "UnknownFieldSet", None)
    count = limits.SERIES_PER_REQUEST_MAX + 1
    with pytest.raises(InvalidArgument, match=f"{count} elements.*split it"):
        write_operation(delimited(1, b"") * count, now)


def test_a_column_that_is_not_a_multiple_of_eight_bytes_is_refused() -> None:
    body = b"\n\x01s\x12\x01m" + delimited(4, bytes(12)) + delimited(5, bytes(12))
    with pytest.raises(InvalidArgument, match="not a packed column"):
        write_operation(delimited(1, body), now)


def test_a_name_that_is_not_utf8_is_named() -> None:
    body = b"\n\x01\xff\x12\x01m" + delimited(4, bytes(8)) + delimited(5, bytes(8))
    with pytest.raises(InvalidArgument, match=r"readings\[0\].sensor: not UTF-8"):
        write_operation(delimited(1, body), now)


def test_a_sequence_needs_a_producer() -> None:
    with pytest.raises(InvalidArgument, match="producer_id"):
        operation(one(value=[1.0]), sequence=4)
    assert operation(one(value=[1.0]), producer_id="p").sequence == 0


@given(st.binary(max_size=200))
def test_any_bytes_give_an_operation_or_a_refusal(raw: bytes) -> None:
    try:
        got = write_operation(raw, now)
    except InvalidArgument:
        sequence_of(raw)
        return
    for columns in got.write.columns:
        decode_columns(columns)


def test_bytes_that_do_not_parse_say_what_was_expected() -> None:
    with pytest.raises(InvalidArgument, match=r"2 bytes that are not a raftberry.v1.WriteRequest"):
        write_operation(b"\xff\xff", now)
