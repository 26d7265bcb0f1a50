"""Columns: exact round trips, and bytes that are not what they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import limits
from appliance.errors import InvalidArgument
from appliance.state.columns import (
    CODEC_PCODEC,
    CODEC_RAW,
    Columns,
    decode_columns,
    encode_columns,
    sort_keep_last,
)
from raftberry.internal.v1 import command_pb2


@pytest.mark.parametrize("count", [1, limits.ENCODE_READINGS_MIN - 1, limits.ENCODE_READINGS_MIN, 1000])
@pytest.mark.parametrize("integer", [False, True])
def test_columns_come_back_bit_for_bit(count: int, *, integer: bool) -> None:
    times = np.arange(count, dtype=np.int64) * 10**9
    values = times if integer else np.resize([np.nan, np.inf, -np.inf, -0.0, 0.1], count)
    message = encode_columns("s", "m", times, values, integer=integer)
    assert message.codec == (CODEC_PCODEC if count >= limits.ENCODE_READINGS_MIN else CODEC_RAW)
    decoded = decode_columns(message)
    assert decoded.times.tobytes() == times.tobytes()
    assert decoded.values.tobytes() == values.tobytes()
    assert encode_columns("s", "m", times.tobytes(), values.tobytes(), integer=integer) == message


def test_raw_columns_are_little_endian() -> None:
    message = encode_columns("s", "m", np.array([1], np.int64), np.array([1.0]), integer=False)
    assert message.times == bytes.fromhex("0100000000000000")
    assert message.values == bytes.fromhex("000000000000f03f")


def packed(count: int = 100) -> command_pb2.SeriesColumns:
    return encode_columns("s", "m", np.arange(count), np.arange(count) * 0.5, integer=False)


@pytest.mark.parametrize("count", [0, 99, 101, limits.READINGS_PER_REQUEST_MAX + 1, (1 << 32) - 1])
def test_a_count_that_is_not_true_is_refused(count: int) -> None:
    message = packed()
    message.count = count
    with pytest.raises(InvalidArgument, match="readings"):
        decode_columns(message)


def test_other_kinds_codecs_and_cut_bytes_are_refused() -> None:
    for change in ({"integer": True}, {"codec": 7}, {"codec": CODEC_RAW}, {"times": b""}):
        message = packed()
        message.MergeFrom(command_pb2.SeriesColumns(**change))
        if "times" in change:
            message.times = message.times[:-3]
        if change == {"codec": CODEC_RAW}:
            message.codec = CODEC_RAW
        with pytest.raises(InvalidArgument, match="s/m"):
            decode_columns(message)


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 70), st.integers(0, 2))
def test_any_bytes_are_decoded_or_refused(times: bytes, values: bytes, count: int, codec: int) -> None:
    message = command_pb2.SeriesColumns(codec=codec, count=count, times=times, values=values)
    try:
        decoded = decode_columns(message)
    except InvalidArgument:
        return
    assert len(decoded.times) == len(decoded.values) == count


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers()), min_size=1, max_size=20))
def test_of_equal_times_the_last_stays(written: list[tuple[int, int]]) -> None:
    times = np.array([time for time, _ in written], np.int64)
    kept = sort_keep_last(Columns(times, np.arange(len(written))))
    expected = {time: place for place, (time, _) in enumerate(written)}
    assert list(zip(kept.times.tolist(), kept.values.tolist(), strict=True)) == sorted(expected.items())
