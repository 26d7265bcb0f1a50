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
from appliance.state.results import KeyRecord
from appliance.state.sweep import TIME_MAX, TIME_MIN, SeriesView, read_ascending, view_series
from appliance.state.tables import Tables
from appliance.storage.store import StoreReader


@dataclass(frozen=True, slots=True, eq=False)
class PreparedHash:
    """position: of the state that is hashed. series: (view, attributes)."""

    position: Position
    counters: tuple[int, ...]
    configuration: Configuration
    keys: list[KeyRecord]
    producers: list[tuple[str, bytes]]
    access: list[tuple[bytes, bytes]]
    policies: list[tuple[bytes, bytes]]
    series: list[tuple[SeriesView, bytes]]
    reader: StoreReader

    def run(self) -> bytes:
        """32 bytes. Closes the reader; once."""
        digest = sha256(repr(self.counters).encode())
        try:
            digest.update(_framed(encode_record(self.configuration)))
            for member in self.configuration.members:
                digest.update(_framed(b"%d" % member.member_id, encode_member(member)))
            for record in self.keys:
                digest.update(_framed(record.key.encode(), encode_key(record)))
            for producer_id, record_bytes in self.producers:
                digest.update(_framed(producer_id.encode(), record_bytes))
            for key, record_bytes in (*self.access, *self.policies):
                digest.update(_framed(key, record_bytes))
            for view, attributes in self.series:
                digest.update(_framed(attributes, _series_digest(view, self.reader)))
        finally:
            self.reader.close()
        return digest.digest()


def prepare_hash(tables: Tables, reader: StoreReader) -> PreparedHash:
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
        producers=[
            (producer_id, encode_producer(producer))
            for producer_id, producer in sorted(tables.producers.records.items())
        ],
        access=tables.access.records(),
        policies=tables.retention.policies.records(),
        series=[(view_series(series), encode_series(series)) for series in tables.series.match("", "")],
        reader=reader,
    )


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
