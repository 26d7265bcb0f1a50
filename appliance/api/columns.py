"""Readings on their way out: columns of any size become messages of bounded size, without a loop per reading.

Invariant: no message holds more than MESSAGE_BYTES_TARGET of columns; the order of readings is kept.
Pure functions. The columns are little-endian bytes, 8 a reading (wire.proto says why bytes).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from google.protobuf.message import Message

from appliance import limits
from raftberry.internal.v1 import wire_pb2

MESSAGE_BYTES_TARGET: Final = 1 * limits.MIB
"""A quarter of what a client accepts by default; large enough that the cost of a message vanishes."""

READINGS_PER_PIECE_MAX: Final = 32_768
"""Readings of one series in one Readings: 512 KiB of columns."""

_HEADER_BYTES: Final = 32
"""Tag and length of an element, generously."""

AnyMessage = TypeVar("AnyMessage", bound=Message)

assert READINGS_PER_PIECE_MAX * 16 * 2 <= MESSAGE_BYTES_TARGET


def pieces(
    sensor: str, metric: str, times: bytes, values: bytes, *, integer: bool
) -> Iterator[wire_pb2.ReadingsColumns]:
    """The Readings of one series, cut so that each fits into a message twice."""
    assert len(times) == len(values)
    sensor_bytes, metric_bytes = sensor.encode(), metric.encode()
    step = READINGS_PER_PIECE_MAX * 8
    for start in range(0, len(times), step):
        piece = wire_pb2.ReadingsColumns(sensor=sensor_bytes, metric=metric_bytes)
        piece.time_unix_nano.append(times[start : start + step])
        (piece.int_value if integer else piece.value).append(values[start : start + step])
        yield piece


def grouped(messages: Iterable[AnyMessage], count_max: int | None = None) -> Iterator[list[AnyMessage]]:
    """The same messages in lists that each fit into one message; no list is empty."""
    group: list[AnyMessage] = []
    size_bytes = 0
    for message in messages:
        message_bytes = message.ByteSize() + _HEADER_BYTES
        if group and (size_bytes + message_bytes > MESSAGE_BYTES_TARGET or len(group) == count_max):
            yield group
            group, size_bytes = [], 0
        group.append(message)
        size_bytes += message_bytes
    if group:
        yield group
