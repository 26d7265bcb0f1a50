"""The hash over logical content: equal on all nodes at one position, whatever their block layout.

Invariant: only what entries decide goes in, in canonical form: readings as a reader sees them (each time
once, NaN as one NaN), never encoded bytes, sizes or what is dirty.
Prepared on the loop thread, run on any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from appliance.model import Configuration, Position
from appliance.state.configuration import encode_record
from appliance.state.layouts import encode_key, encode_member, encode_producer, encode_series
from appliance.state.moment import Moment
from appliance.state.producers import Producer
from appliance.state.results import KeyRecord
from appliance.state.series import Series
from appliance.state.sweep import TIME_MAX, TIME_MIN, SeriesView, read_ascending, view_series
from appliance.state.tables import Tables
from appliance.storage.store import StoreReader


@dataclass(frozen=True, slots=True, eq=False)
class PreparedHash:
    """Capture all of it, a slice a turn; then run it. position: of the state that is hashed.

    series: (view, attributes).
    """

    position: Position
    counters: tuple[int, ...]
    configuration: Configuration
    keys: list[KeyRecord]
    producers: Moment[Producer, tuple[str, bytes]]
    access: list[tuple[bytes, bytes]]
    policies: list[tuple[bytes, bytes]]
    series: Moment[Series, tuple[SeriesView, bytes]]
    reader: StoreReader

    def capture_some(self) -> bool:
        """True: it can be run."""
        return self.series.capture_some() and self.producers.capture_some()

    def close(self) -> None:
        self.series.close()
        self.producers.close()
        self.reader.close()

    def run(self) -> bytes:
        """32 bytes. Closes the reader; once."""
        digest = sha256(repr(self.counters).encode())
        try:
            digest.update(_framed(encode_record(self.configuration)))
            for member in self.configuration.members:
                digest.update(_framed(b"%d" % member.member_id, encode_member(member)))
            for record in self.keys:
                digest.update(_framed(record.key.encode(), encode_key(record)))
            assert self.producers.is_over, "captured in part"
            for producer_id, record_bytes in self.producers.results():
                digest.update(_framed(producer_id.encode(), record_bytes))
            for key, record_bytes in (*self.access, *self.policies):
                digest.update(_framed(key, record_bytes))
            assert self.series.is_over, "captured in part"
            for view, attributes in self.series.results():
                digest.update(_framed(attributes, _series_digest(view, self.reader)))
        finally:
            self.reader.close()
        return digest.digest()


def begin_hash(tables: Tables, reader: StoreReader) -> PreparedHash:
    return PreparedHash(
        position=tables.position,
        counters=(
            tables.keys.revision,
            tables.elapsed_ns,
            tables.series.next_id,
            tables.producers.uses,
            len(tables.configuration.members),
            len(tables.keys.records),
            len(tables.producers.records),
            len(tables.series.by_name),
            len(tables.access.tokens),
            len(tables.access.invites),
            tables.feature_level,
            len(tables.retention.policies.policies),
        ),
        configuration=tables.configuration,
        keys=tables.keys.list_prefix("", limit=0),
        producers=tables.producers.moments.begin(
            tables.producers.records.values(), _id_and_record, lambda producer: producer.producer_id
        ),
        access=tables.access.records(),
        policies=tables.retention.policies.records(),
        series=tables.series.begin_matching("", "", _view_and_attributes),
        reader=reader,
    )


def _id_and_record(producer: Producer) -> tuple[str, bytes]:
    return producer.producer_id, encode_producer(producer)


def _view_and_attributes(series: Series) -> tuple[SeriesView, bytes]:
    return view_series(series), encode_series(series)


def _series_digest(view: SeriesView, reader: StoreReader) -> bytes:
    times, values = sha256(), sha256()
    for piece in read_ascending(view, reader, first=TIME_MIN, last=TIME_MAX):
        column = piece.values
        if not view.integer:
            column = np.where(np.isnan(column), np.nan, column)
        times.update(np.ascontiguousarray(piece.times).data)
        values.update(np.ascontiguousarray(column).data)
    counters = (
        f"{view.series_id} {view.reading_count} {view.first_time} {view.last_time} "
        f"{view.written_from} {view.dropped_before} {view.roll_up} "
    )
    return counters.encode() + times.digest() + values.digest()


def _framed(*parts: bytes) -> bytes:
    """No two different lists of parts give the same bytes."""
    return b"".join(b"%d:" % len(part) + part for part in parts)
