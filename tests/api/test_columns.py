"""Readings on their way out are ordinary messages of bounded size."""

from __future__ import annotations

import struct

import pytest

from appliance.api.columns import MESSAGE_BYTES_TARGET, READINGS_PER_PIECE_MAX, grouped, pieces
from raftberry.internal.v1 import wire_pb2
from raftberry.v1 import reading_pb2


@pytest.mark.parametrize("integer", [False, True])
def test_an_ordinary_client_decodes_the_columns(integer: bool) -> None:
    times = struct.pack("<3q", 1, 2, 3)
    values = struct.pack("<3q" if integer else "<3d", 4, 5, 6)
    response = wire_pb2.ReadingsResponseColumns(
        readings=pieces("s", "m", times, values, integer=integer), index=9, term=2, aggregation=3
    )
    raw = response.SerializeToString()
    decoded = reading_pb2.QueryResponse.FromString(raw)
    assert list(decoded.readings[0].time_unix_nano) == [1, 2, 3]
    assert list(decoded.readings[0].int_value if integer else decoded.readings[0].value) == [4, 5, 6]
    assert (decoded.readings[0].sensor, decoded.readings[0].metric) == ("s", "m")
    assert (decoded.index, decoded.term, decoded.aggregation) == (9, 2, reading_pb2.AGGREGATION_MEAN)
    assert decoded.SerializeToString() == raw


def test_long_columns_are_cut_and_keep_their_order() -> None:
    count = READINGS_PER_PIECE_MAX * 2 + 1
    times = b"".join(struct.pack("<q", n) for n in range(count))
    cut = list(pieces("s", "m", times, times, integer=True))
    assert [len(piece.time_unix_nano[0]) // 8 for piece in cut] == [READINGS_PER_PIECE_MAX] * 2 + [1]
    assert b"".join(piece.time_unix_nano[0] for piece in cut) == times
    assert b"".join(piece.int_value[0] for piece in cut) == times


def test_no_message_passes_its_bound() -> None:
    column = bytes(READINGS_PER_PIECE_MAX * 8)
    cut = [piece for _ in range(5) for piece in pieces("s" * 200, "m" * 200, column, column, integer=False)]
    groups = list(grouped(cut))
    assert sum(len(group) for group in groups) == len(cut)
    for group in groups:
        size_bytes = wire_pb2.ReadingsResponseColumns(readings=group).ByteSize()
        assert size_bytes <= MESSAGE_BYTES_TARGET


def test_many_small_series_share_a_message() -> None:
    cut = [piece for n in range(1_000) for piece in pieces(f"s{n}", "m", bytes(8), bytes(8), integer=False)]
    assert [len(group) for group in grouped(cut)] == [1_000]
    assert not list(grouped([]))
