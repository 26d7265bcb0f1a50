"""From the bytes of a WriteRequest to the Operation that goes into the log, column by column.

Invariant: no Python object for a reading; packed columns stay bytes from the socket to encode_columns.
The bytes are parsed with an alias message (wire.proto) whose packed columns are declared as bytes. A client that
sends a column unpacked shows up as unknown fields there and is parsed again with the public message.
Pure functions on the loop thread; the only clock is the wall_ns handed in.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from appliance import limits
from appliance.api import validate
from appliance.errors import InvalidArgument
from appliance.state.columns import CODEC_RAW, encode_columns
from raftberry.internal.v1 import command_pb2, wire_pb2
from raftberry.v1 import reading_pb2

_COLUMN_FIELDS: Final = frozenset((4, 5, 6))

_ENCODE_BYTES_MIN: Final = limits.ENCODE_READINGS_MIN * 8
"""Smaller columns go as they came, without numpy: encode_columns would leave them raw too."""


def write_operation(raw: bytes, wall_ns: Callable[[], int]) -> command_pb2.Operation:
    """The Operation of the bytes of a WriteRequest or StreamWriteRequest. wall_ns stamps readings without a time."""
    request, written = _parse(raw)
    sequence = request.sequence
    operation = command_pb2.Operation(
        producer_id=validate.producer(request.producer_id, sequence), sequence=sequence
    )
    columns = operation.write.columns
    reading_count = 0
    for position, readings in enumerate(written):
        sensor, metric, times, values, integer = _columns(readings, position, wall_ns)
        count = len(values) // 8
        reading_count += count
        _check_reading_count(reading_count)
        if len(values) < _ENCODE_BYTES_MIN:
            columns.add(
                sensor=sensor,
                metric=metric,
                codec=CODEC_RAW,
                count=count,
                integer=integer,
                times=times,
                values=values,
            )
        else:
            columns.append(encode_columns(sensor, metric, times, values, integer=integer))
    return operation


def sequence_of(raw: bytes) -> int:
    """The sequence of a request that was refused, for its response; 0 if the bytes don't parse."""
    try:
        return wire_pb2.WriteRequestColumns.FromString(raw).sequence
    except DecodeError:
        return 0


def _parse(raw: bytes) -> tuple[wire_pb2.WriteRequestColumns, Sequence[wire_pb2.ReadingsColumns]]:
    """The request, and its readings as a list: to go through the field itself takes twice as long."""
    try:
        request = wire_pb2.WriteRequestColumns.FromString(raw)
        _check_series_count(len(request.readings))
        written = request.readings[:]
        for readings in written:
            unknown = UnknownFieldSet(readings)
            if len(unknown) and any(
                unknown[place].field_number in _COLUMN_FIELDS for place in range(len(unknown))
            ):
                request = _repacked(raw)
                return request, request.readings
    except DecodeError as error:
        raise InvalidArgument(
            "request",
            f"{len(raw)} bytes that are not a raftberry.v1.WriteRequest; see proto/raftberry/v1/reading.proto",
        ) from error
    return request, written


def _repacked(raw: bytes) -> wire_pb2.WriteRequestColumns:
    """For a client that sends columns value by value: correct, not fast."""
    request = reading_pb2.WriteRequest.FromString(raw)
    columns = wire_pb2.WriteRequestColumns(
        producer_id=request.producer_id.encode(), sequence=request.sequence
    )
    for readings in request.readings:
        columns.readings.add(
            sensor=readings.sensor.encode(),
            metric=readings.metric.encode(),
            time_unix_nano=[array("q", readings.time_unix_nano).tobytes()],
            value=[array("d", readings.value).tobytes()],
            int_value=[array("q", readings.int_value).tobytes()],
        )
    return columns


def _columns(
    readings: wire_pb2.ReadingsColumns, position: int, wall_ns: Callable[[], int]
) -> tuple[str, str, bytes, bytes, bool]:
    """(sensor, metric, times, values, integer), checked; the columns are little-endian, 8 bytes a reading."""
    try:
        sensor = validate.name_bytes("sensor", readings.sensor)
        metric = validate.name_bytes("metric", readings.metric)
        times = _joined("time_unix_nano", readings.time_unix_nano)
        floats = _joined("value", readings.value)
        integers = _joined("int_value", readings.int_value)
        if floats and integers:
            raise InvalidArgument(
                "int_value", "value and int_value are both set; a Readings holds one of them"
            )
        values = floats or integers
        if not values:
            raise InvalidArgument("value", "neither value nor int_value holds anything; set one of them")
        if not times:
            times = _stamp(len(values) // 8, wall_ns)
        if len(times) != len(values):
            raise InvalidArgument(
                "time_unix_nano",
                f"{len(times) // 8} times for {len(values) // 8} values; the columns must be equally long",
            )
    except InvalidArgument as error:
        raise InvalidArgument(f"readings[{position}].{error.field}", error.description) from None
    return sensor, metric, times, values, bool(integers)


def _joined(field: str, pieces: Sequence[bytes]) -> bytes:
    """A packed column; encoders may send one in several pieces."""
    if not pieces:
        return b""
    if len(pieces) == 1:
        column = pieces[0]
        is_whole = not len(column) & 7
    else:
        column = b"".join(pieces)
        is_whole = not any(len(piece) & 7 for piece in pieces)
    if not is_whole:
        raise InvalidArgument(field, f"{len(column)} bytes are not a packed column of 8 bytes a reading")
    return column


def _stamp(value_count: int, wall_ns: Callable[[], int]) -> bytes:
    if value_count != 1:
        raise InvalidArgument(
            "time_unix_nano",
            f"empty for {value_count} values; only a single value may come without its time",
        )
    return wall_ns().to_bytes(8, "little", signed=True)


def _check_series_count(series_count: int) -> None:
    if not series_count:
        raise InvalidArgument("readings", "empty; a write holds at least one reading")
    if series_count > limits.SERIES_PER_REQUEST_MAX:
        raise InvalidArgument(
            "readings",
            f"{series_count} elements; at most {limits.SERIES_PER_REQUEST_MAX} in a request: split it",
        )


def _check_reading_count(reading_count: int) -> None:
    if reading_count > limits.READINGS_PER_REQUEST_MAX:
        raise InvalidArgument(
            "readings", f"more than {limits.READINGS_PER_REQUEST_MAX} readings in a request: split it"
        )
