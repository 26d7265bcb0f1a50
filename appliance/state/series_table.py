"""All series: writes checked as a whole before any of them changes anything.

Invariant: series ids count up in the order of creation and are never used again.
Loop thread only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from appliance import limits
from appliance.errors import ConditionFailed, InvalidArgument, Overloaded
from appliance.state.columns import CODEC_RAW, Columns, decode_columns
from appliance.state.moment import ITEMS_PER_TURN, Moment, Moments
from appliance.state.names import check_name, check_pattern, is_pattern, matcher
from appliance.state.results import StateOptions
from appliance.state.series import Series
from raftberry.internal.v1 import command_pb2

_ONE_TIME: Final = struct.Struct("<q")
_ONE_FLOAT: Final = struct.Struct("<d")
_FINGERPRINT: Final = struct.Struct("<IB")

HEAD_RECORD_BYTES: Final = 150
TAIL_READING_BYTES: Final = 5
"""Once it is packed; estimated."""

Key = tuple[str, str]
Taken = TypeVar("Taken")


class SeriesTable:
    """by_name is in order of ids, read-only outside. The rest is since the last capture of a checkpoint.

    dirty: anything changed (`mark_dirty`). renamed: those of them whose name, kind, unit or labels changed.
    dirty_bytes: what the heads of dirty take in a checkpoint, estimated, and summed up as they change: to go through a
    hundred thousand of them holds the loop for 40 ms. It may be some bytes below 0.
    dropped: ids that were deleted. moments: who looks at series over several turns, and is told before one changes.
    """

    def __init__(self, options: StateOptions) -> None:
        self._options = options
        self.by_name: dict[Key, Series] = {}
        self.next_id = 1
        self.reading_count = 0
        self.dirty: set[Series] = set()
        self.dirty_bytes = 0
        self.renamed: set[Series] = set()
        self.dropped: list[int] = []
        self.moments: Moments[Series] = Moments()
        self._gone: list[Series] = []

    def load(self, series: Series) -> None:
        """Take over a series of a checkpoint, in order of ids."""
        self.by_name[series.sensor, series.metric] = series
        self.reading_count += series.reading_count

    def match(self, sensor: str, metric: str) -> list[Series]:
        """Sorted by (sensor, metric)."""
        if not is_pattern(sensor) and not is_pattern(metric):
            found = self.by_name.get((sensor, metric))
            return [found] if found else []
        is_sensor, is_metric = matcher(sensor), matcher(metric)
        names = [name for name in self.by_name if is_sensor(name[0]) and is_metric(name[1])]
        return [self.by_name[name] for name in sorted(names)]

    def begin_matching(
        self,
        sensor: str,
        metric: str,
        take: Callable[[Series], Taken | None],
        is_visible: Callable[[str, str], bool] | None = None,
    ) -> Moment[Series, Taken]:
        """What `match` finds now, a slice a turn: take's results, sorted by (sensor, metric)."""
        is_sensor, is_metric = matcher(sensor), matcher(metric)

        def take_wanted(series: Series) -> Taken | None:
            name = series.sensor, series.metric
            if not (is_sensor(name[0]) and is_metric(name[1])):
                return None
            return take(series) if is_visible is None or is_visible(*name) else None

        if is_pattern(sensor) or is_pattern(metric):
            return self.begin_all(take_wanted, name_of)
        found = self.by_name.get((sensor, metric))
        return self.moments.begin([found] if found else [], take_wanted, name_of)

    def begin_all(
        self, take: Callable[[Series], Taken | None], key: Callable[[Series], Any]
    ) -> Moment[Series, Taken]:
        """Every series there is now, a slice a turn."""
        return self.moments.begin(self.by_name.values(), take, key, id_of)

    def write(self, columns: list[tuple[command_pb2.SeriesColumns, Columns]]) -> None:
        """Append what decode_write gave. Raises NotApplied, with nothing changed."""
        self._check_write(columns)
        for message, decoded in columns:
            series = self._writable(message)
            series.append(decoded, message.codec, message.times, message.values)
            self.mark_dirty(
                series, min(len(message.times) + len(message.values), TAIL_READING_BYTES * message.count)
            )
            self.reading_count += message.count

    def write_lone(self, written: Sequence[command_pb2.SeriesColumns]) -> bool:
        """The columns of an is_lone write to series that exist: as write, several times as fast.

        False: it is not that simple, nothing was done.
        """
        if len(written) == 1:
            return self._write_one(written[0])
        for message in written:
            series = self.by_name.get((message.sensor, message.metric))
            if series is None or series.integer is not message.integer:
                return False
        for message in written:
            self._write_one(message)
        return True

    def _write_one(self, message: command_pb2.SeriesColumns) -> bool:
        series = self.by_name.get((message.sensor, message.metric))
        if series is None or series.integer is not message.integer:
            return False
        value = (_ONE_TIME if message.integer else _ONE_FLOAT).unpack(message.values)[0]
        self.moments.before_change(series)
        series.append_one(_ONE_TIME.unpack(message.times)[0], value)
        self.mark_dirty(series, TAIL_READING_BYTES)
        self.reading_count += 1
        return True

    @property
    def room(self) -> int:
        """How many series more there may be."""
        return self._options.series_max - len(self.by_name)

    def mark_dirty(self, series: Series, added_bytes: int = 0) -> None:
        """series changed; its head grew by so much (shrank, below 0)."""
        if series in self.dirty:
            self.dirty_bytes += added_bytes
        else:
            self.dirty.add(series)
            self.dirty_bytes += cost_bytes(series)

    def set_attributes(self, sensor: str, metric: str, unit: str, labels: Mapping[str, str]) -> None:
        """Idempotent; creates the series. Raises NotApplied."""
        _check_attributes(unit, labels)
        labels = dict(sorted(labels.items()))
        series = self.by_name.get((sensor, metric))
        if series is None:
            check_name("sensor", sensor)
            check_name("metric", metric)
            self._check_room(1)
            series = self._create(sensor, metric)
        elif series.labels is not None:
            if (series.unit, series.labels) != (unit, labels):
                raise ConditionFailed(
                    f"unit and labels of series {series.name} are set already (unit {series.unit!r}) and "
                    "are set once: nothing was changed"
                )
            return
        self.moments.before_change(series)
        series.unit = unit
        series.labels = labels
        self.mark_dirty(series)
        self.renamed.add(series)

    def delete_matching(self, sensor: str, metric: str) -> int:
        """The number of series that went, with all their readings."""
        check_pattern("sensor", sensor)
        check_pattern("metric", metric)
        is_sensor, is_metric = matcher(sensor), matcher(metric)
        if not is_pattern(sensor) and not is_pattern(metric):
            names = [(sensor, metric)] if (sensor, metric) in self.by_name else []
        else:
            names = [name for name in self.by_name if is_sensor(name[0]) and is_metric(name[1])]
        self._delete([self.by_name[name] for name in names])
        return len(names)

    def delete(self, series: Series) -> None:
        """With all its readings, unit and labels."""
        self._delete([series])

    def _delete(self, gone: list[Series]) -> None:
        """Ten thousand in one turn: their memory is given up later (`forget_some`)."""
        for series in gone:
            self.moments.before_change(series)
            del self.by_name[series.sensor, series.metric]
        self.dirty_bytes -= sum([cost_bytes(series) for series in gone if series in self.dirty])
        self.dirty.difference_update(gone)
        self.renamed.difference_update(gone)
        self.dropped.extend([series.series_id for series in gone])
        self.reading_count -= sum([series.reading_count for series in gone])
        self._gone += gone

    def forget_some(self) -> bool:
        """Of those that were deleted; True: that was all."""
        del self._gone[-ITEMS_PER_TURN:]
        return not self._gone

    def _check_write(self, columns: list[tuple[command_pb2.SeriesColumns, Columns]]) -> None:
        new: dict[Key, bool] = {}
        for message, _ in columns:
            key = message.sensor, message.metric
            series = self.by_name.get(key)
            kind = series.integer if series else new.get(key)
            if kind is None:
                kind = new.setdefault(key, message.integer)
                if series is None:
                    check_name("sensor", message.sensor)
                    check_name("metric", message.metric)
            if kind is not message.integer:
                holds, got = ("integers", "floats") if kind else ("floats", "integers")
                raise ConditionFailed(
                    f"series {message.sensor}/{message.metric} holds {holds}, this write has {got}: "
                    f"nothing was written; write {holds}, or use another metric"
                )
        self._check_room(sum(key not in self.by_name for key in new))

    def _check_room(self, new_count: int) -> None:
        if new_count and len(self.by_name) + new_count > self._options.series_max:
            raise Overloaded(
                f"there are {len(self.by_name)} series (limit {self._options.series_max}) and this would add "
                f"{new_count}: nothing was written; delete series first"
            )

    def _writable(self, message: command_pb2.SeriesColumns) -> Series:
        series = self.by_name.get((message.sensor, message.metric))
        if series is None:
            series = self._create(message.sensor, message.metric)
        self.moments.before_change(series)
        if series.integer is None:
            series.set_kind(integer=message.integer)
            self.renamed.add(series)
        return series

    def _create(self, sensor: str, metric: str) -> Series:
        series = Series(self.next_id, sensor, metric)
        self.next_id += 1
        self.by_name[sensor, metric] = series
        return series


def cost_bytes(series: Series) -> int:
    """What the series' head will take in a checkpoint, estimated."""
    return HEAD_RECORD_BYTES + series.head_bytes + TAIL_READING_BYTES * len(series.tail_times)


def name_of(series: Series) -> Key:
    return series.sensor, series.metric


def id_of(series: Series) -> int:
    return series.series_id


def decode_write(write: command_pb2.WriteReadings) -> list[tuple[command_pb2.SeriesColumns, Columns]]:
    """Every column decoded. Raises InvalidArgument."""
    return decode_columns_of(write.columns)


def decode_columns_of(
    written: Sequence[command_pb2.SeriesColumns],
) -> list[tuple[command_pb2.SeriesColumns, Columns]]:
    count = sum(columns.count for columns in written)
    if not 0 < count <= limits.READINGS_PER_REQUEST_MAX:
        raise InvalidArgument(
            "readings", f"{count} readings; 1 to {limits.READINGS_PER_REQUEST_MAX} are taken"
        )
    return [(columns, decode_columns(columns)) for columns in written]


def is_lone(write: command_pb2.WriteReadings) -> bool:
    """One raw reading a column, of the right size: what single sensors send, and gateways for many of them."""
    written = write.columns
    if len(written) == 1:
        return _is_one(written[0])
    return 0 < len(written) <= limits.READINGS_PER_REQUEST_MAX and all(map(_is_one, written))


def _is_one(columns: command_pb2.SeriesColumns) -> bool:
    return (
        columns.count == 1
        and columns.codec == CODEC_RAW
        and len(columns.times) == 8
        and len(columns.values) == 8
    )


def fingerprint_write(columns: list[tuple[command_pb2.SeriesColumns, Columns]]) -> int:
    """CRC-32 over names, kinds, values and times - but not the time of a lone reading.

    A lone reading may have got its time from the node that received it: its retry through another
    node is the same content with another time. Over decoded columns: codecs may differ as well.
    """
    checksum = 0
    for message, decoded in columns:
        checksum = _fingerprint_header(message, checksum)
        if message.count > 1:
            checksum = zlib.crc32(decoded.times.data, checksum)
        checksum = zlib.crc32(decoded.values.data, checksum)
    return checksum


def fingerprint_lone(write: command_pb2.WriteReadings) -> int:
    """fingerprint_write of an is_lone write, without decoding."""
    checksum = 0
    for message in write.columns:
        checksum = zlib.crc32(message.values, _fingerprint_header(message, checksum))
    return checksum


def _fingerprint_header(message: command_pb2.SeriesColumns, checksum: int) -> int:
    names = f"{message.sensor}\0{message.metric}\0".encode()
    return zlib.crc32(_FINGERPRINT.pack(message.count, message.integer), zlib.crc32(names, checksum))


def _check_attributes(unit: str, labels: Mapping[str, str]) -> None:
    if len(unit.encode()) > limits.UNIT_BYTES_MAX:
        raise InvalidArgument("unit", f"at most {limits.UNIT_BYTES_MAX} bytes")
    if len(labels) > limits.LABELS_MAX:
        raise InvalidArgument("labels", f"{len(labels)} labels; at most {limits.LABELS_MAX}")
    for name, value in labels.items():
        if not name or max(len(name.encode()), len(value.encode())) > limits.LABEL_BYTES_MAX:
            raise InvalidArgument("labels", f"names and values have at most {limits.LABEL_BYTES_MAX} bytes")
