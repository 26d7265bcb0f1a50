"""Checkpoints: what changed since the last one, captured on the loop a slice a turn, encoded on the committer.

Invariant: a batch holds the state exactly as of its position, whatever was applied while it was
captured or encoded; what is marked dirty and not in the batch stays marked.
`begin_capture`, `capture_some`, `release_some`: loop thread. `CheckpointWork.batch`: the committer. `restore_tables`:
any, the tables are new.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from appliance import features, limits
from appliance.errors import CorruptData
from appliance.model import Configuration, Position
from appliance.state.blocks import KEPT_CHUNKS_MAX, BlockBuilder, Built, block_target
from appliance.state.columns import CODEC_RAW, pack, value_dtype
from appliance.state.configuration import CONFIGURATION_KEY, decode_record, encode_record
from appliance.state.layouts import (
    FEATURES_KEY,
    STATE_KEY,
    HeadFigures,
    Meta,
    decode_features,
    decode_head,
    decode_id,
    decode_key,
    decode_member,
    decode_meta,
    decode_outcome,
    decode_producer,
    decode_series,
    encode_block,
    encode_features,
    encode_head,
    encode_id,
    encode_key,
    encode_member,
    encode_meta,
    encode_outcome,
    encode_producer,
    encode_series,
)
from appliance.state.moment import ITEMS_PER_TURN, Moment
from appliance.state.producers import Producer
from appliance.state.purge import Purged, purge
from appliance.state.results import EntryOutcome, KeyRecord
from appliance.state.series import Chunk, HeadView, Series
from appliance.state.series_table import cost_bytes, id_of
from appliance.state.superseded import supersede
from appliance.state.sweep import chunk_from
from appliance.state.tables import Tables
from appliance.storage.store import Record, StoreBatch, StoreReader


class _SeriesCapture(NamedTuple):
    """is_full: the head may fill a block; its tail is a chunk then. purge_before: older readings of blocks go.
    attributes: record of name, kind, unit and labels, if any of them changed.
    """

    series: Series
    figures: HeadFigures
    head: HeadView
    is_full: bool
    purge_before: int | None
    attributes: bytes | None


class _Written(NamedTuple):
    """What a checkpoint made of a head that was full, or of blocks that were purged. kept None: the head stays."""

    series: Series
    kept: list[Chunk] | None
    figures: HeadFigures


class CheckpointWork:
    """One checkpoint on its way; see `begin_capture` for the fields."""

    def __init__(
        self,
        *,
        meta: Meta,
        position: Position,
        series: Moment[Series, _SeriesCapture],
        producers: Moment[Producer, Record],
        keys: dict[str, KeyRecord | None],
        configuration: Configuration | None,
        outcomes: list[EntryOutcome],
        puts: list[Record],
        deletes: list[tuple[str, bytes]],
        dropped: list[int],
        page_bytes: int,
    ) -> None:
        self.position = position
        self._meta = meta
        self._series, self._producers = series, producers
        self._keys = keys
        self._configuration = configuration
        self._outcomes = outcomes
        self._puts = puts
        self._deletes = deletes
        self._dropped = dropped
        self._page_bytes = page_bytes
        self._written: list[_Written] = []
        self.purged_bytes = 0
        """Of blocks, taken out because their readings were dropped; known when the batch was made."""

    def capture_some(self) -> bool:
        """True: everything is captured, the batch may be made."""
        return self._series.capture_some() and self._producers.capture_some()

    def batch(self, read: Callable[[], StoreReader]) -> StoreBatch:
        """Merges, encodes and packs: some 0.4 ms a block. Once. read: the store as it is, where blocks are purged."""
        assert self._series.is_over, "captured in part"
        assert self._producers.is_over, "captured in part"
        puts = [*self._puts, ("meta", STATE_KEY, encode_meta(self._meta)), *self._producers.results()]
        deletes = list(self._deletes)
        for series_id in self._dropped:
            deletes.extend((table, encode_id(series_id)) for table in ("series", "heads"))
        if self._configuration is not None:
            puts.append(("meta", CONFIGURATION_KEY, encode_record(self._configuration)))
            puts.extend(
                ("members", encode_id(member.member_id), encode_member(member))
                for member in self._configuration.members
            )
        for key, record in sorted(self._keys.items()):
            if record is None:
                deletes.append(("keys", key.encode()))
            else:
                puts.append(("keys", key.encode(), encode_key(record)))
        puts.extend(
            ("outcomes", encode_id(outcome.index), encode_outcome(outcome)) for outcome in self._outcomes
        )
        for captured in self._series.results():
            purged = Purged()
            if captured.attributes is not None:
                puts.append(("series", encode_id(captured.series.series_id), captured.attributes))
            if captured.purge_before is not None and captured.figures.next_sequence:
                with read() as reader:
                    purged = purge(reader, captured.series, captured.purge_before)
            self.purged_bytes += purged.removed_bytes
            deletes.extend(purged.deletes)
            puts.extend(purged.puts)
            puts.extend(self._series_records(captured, read, deletes, removed_bytes=purged.removed_bytes))
        prefixes = [(table, encode_id(one)) for one in self._dropped for table in ("blocks", "late")]
        if self._configuration is not None:
            prefixes.append(("members", b""))
        return StoreBatch(position=self.position, puts=puts, deletes=deletes, delete_prefixes=prefixes)

    def release_some(self, tables: Tables) -> bool:
        """The batch is durable: drop the blocks it holds from memory; True: that was all."""
        part, self._written = self._written[:ITEMS_PER_TURN], self._written[ITEMS_PER_TURN:]
        for written in part:
            series, figures = written.series, written.figures
            tables.series.moments.before_change(series)
            if written.kept is not None:
                bytes_before = cost_bytes(series)
                series.replace_captured(written.kept, partial(_without, series))
                if series in tables.series.dirty:
                    tables.series.mark_dirty(series, cost_bytes(series) - bytes_before)
            series.purging = None
            series.size_bytes, series.next_sequence = figures.size_bytes, figures.next_sequence
            series.span_max = figures.span_max
        if self._written:
            return False
        for outcome in self._outcomes:
            if tables.outcomes.fresh.pop(outcome.index, None) is not None:
                tables.outcomes.stored.append(outcome.index)
            else:
                # Forgotten meanwhile: the record goes with the next checkpoint.
                tables.outcomes.forgotten.append(outcome.index)
        return True

    def _series_records(
        self,
        captured: _SeriesCapture,
        read: Callable[[], StoreReader],
        deletes: list[tuple[str, bytes]],
        *,
        removed_bytes: int,
    ) -> list[Record]:
        """The new blocks of a series, then its head. deletes: gets the blocks whose place they take."""
        figures, series_id = captured.figures, captured.series.series_id
        figures = figures._replace(size_bytes=max(figures.size_bytes - removed_bytes, 0))
        if not captured.is_full:
            if captured.purge_before is not None:
                self._written.append(_Written(captured.series, None, figures))
            chunks = [_packed(chunk, integer=figures.integer) for chunk in captured.head.chunks()]
            return [("heads", encode_id(series_id), encode_head(figures, chunks))]
        builder = BlockBuilder(series_id, figures, page_bytes=self._page_bytes)
        built = builder.build(captured.head.packed)
        records = _block_records(built)
        size_bytes = figures.size_bytes + sum(len(record) for _, _, record in records)
        if built.blocks and figures.next_sequence:
            with read() as reader:
                superseded = supersede(reader, built.blocks, purged_before=captured.purge_before)
            deletes.extend(superseded.deletes)
            records += superseded.puts
            size_bytes -= superseded.removed_bytes
        figures = figures._replace(
            size_bytes=max(size_bytes, 0),
            next_sequence=builder.next_sequence,
            span_max=max(figures.span_max, built.span_max()),
        )
        self._written.append(_Written(captured.series, built.kept, figures))
        return [*records, ("heads", encode_id(series_id), encode_head(figures, built.kept))]


def _block_records(built: Built) -> list[Record]:
    return [
        (table, *encode_block(block))
        for table, blocks in (("blocks", built.blocks), ("late", built.late))
        for block in blocks
    ]


def begin_capture(tables: Tables, *, page_bytes: int) -> CheckpointWork:
    """Everything dirty as it is now, by reference or as a small copy; nothing is dirty afterwards."""
    target = block_target(page_bytes)
    series, producers, keys, outcomes = tables.series, tables.producers, tables.keys, tables.outcomes
    puts: list[Record] = []
    renamed = series.renamed
    deletes: list[tuple[str, bytes]] = [("outcomes", encode_id(index)) for index in outcomes.forgotten]
    changed, forgotten = producers.changed()
    deletes.extend(("producers", producer_id.encode()) for producer_id in forgotten)
    access_puts, access_deletes = tables.access.take_changes()
    puts.extend(("access", key, record) for key, record in access_puts)
    deletes.extend(("access", key) for key in access_deletes)
    if tables.feature_level > features.FIRST:
        puts.append(("meta", FEATURES_KEY, encode_features(tables.feature_level)))
    policy_puts, policy_deletes = tables.retention.policies.take_changes()
    puts.extend(("policies", key, record) for key, record in policy_puts)
    deletes.extend(("policies", key) for key in policy_deletes)
    work = CheckpointWork(
        meta=Meta(keys.revision, tables.elapsed_ns, series.next_id, producers.uses),
        position=tables.position,
        series=series.moments.begin(
            series.dirty, lambda one: _capture_series(one, target, is_renamed=one in renamed), id_of
        ),
        producers=producers.moments.begin(changed, _producer_record, lambda one: one.producer_id),
        keys={key: keys.records.get(key) for key in keys.dirty},
        configuration=tables.configuration if tables.configuration_changed else None,
        outcomes=list(outcomes.fresh.values()),
        puts=puts,
        deletes=deletes,
        dropped=series.dropped,
        page_bytes=page_bytes,
    )
    series.dirty, series.dirty_bytes, series.renamed, series.dropped = set(), 0, set(), []
    keys.dirty, producers.dirty, outcomes.forgotten = set(), set(), []
    tables.configuration_changed = False
    return work


def capture_cost(tables: Tables) -> int:
    """Bytes, estimated. Takes 0.1 us for each changed key."""
    records = tables.keys.records
    keys = sum(60 + len(key) + len(records[key].value) for key in tables.keys.dirty if key in records)
    heads = max(tables.series.dirty_bytes, 0)
    return heads + keys + 500 * len(tables.producers.dirty) + 50 * len(tables.outcomes.fresh)


def restore_tables(tables: Tables, reader: StoreReader) -> None:
    """Fill empty tables from a checkpoint."""
    tables.position = reader.position
    record = reader.get("meta", STATE_KEY)
    if record is None:
        if reader.position != Position(index=1, term=0):
            raise CorruptData(
                "store meta",
                f"there is none at index {reader.position.index}; rebuild this node from its peers",
            )
        return
    meta = decode_meta(record)
    tables.elapsed_ns = meta.elapsed_ns
    tables.keys.revision = meta.revision
    tables.series.next_id = meta.next_series_id
    tables.producers.uses = meta.producer_uses
    if (record := reader.get("meta", FEATURES_KEY)) is not None:
        tables.feature_level = decode_features(record)
    members = tuple(decode_member(key, value) for key, value in reader.scan("members"))
    tables.configuration = decode_record(reader.get("meta", CONFIGURATION_KEY), members)
    for key, value in reader.scan("keys"):
        tables.keys.load(decode_key(key, value))
    for key, value in reader.scan("access"):
        tables.access.load(key, value)
    for key, value in reader.scan("policies"):
        tables.retention.policies.load(key, value)
    tables.producers.load([decode_producer(key, value) for key, value in reader.scan("producers")])
    tables.outcomes.load(decode_id("outcomes", key) for key, _ in reader.scan("outcomes"))
    heads = dict(reader.scan("heads"))
    for key, value in reader.scan("series"):
        series = decode_series(key, value)
        head = heads.get(key)
        if head is None:
            raise CorruptData(
                f"store heads {key!r}",
                f"series {series.name} has no head; rebuild this node from its peers",
            )
        decode_head(series, head)
        tables.series.load(series)


def read_outcome(reader: StoreReader, index: int) -> EntryOutcome:
    record = reader.get("outcomes", encode_id(index))
    return EntryOutcome(index) if record is None else decode_outcome(encode_id(index), record)


def _producer_record(producer: Producer) -> Record:
    return "producers", producer.producer_id.encode(), encode_producer(producer)


def _capture_series(series: Series, target: int, *, is_renamed: bool) -> _SeriesCapture:
    is_full = (
        series.head_bytes + 4 * len(series.tail_times) >= target
        or series.head_count >= limits.BLOCK_READINGS_MAX
        or len(series.chunks) > KEPT_CHUNKS_MAX
    )
    if is_full:
        series.freeze_tail()
        series.captured_count = len(series.chunks)
    series.purging, series.purge_before = series.purge_before, None
    attributes = encode_series(series) if is_renamed else None
    return _SeriesCapture(series, _figures(series), series.view(), is_full, series.purging, attributes)


def _without(series: Series, chunk: Chunk, before: int) -> Chunk | None:
    return chunk_from(chunk, before, series)


def _figures(series: Series) -> HeadFigures:
    return HeadFigures(
        series.reading_count,
        series.first_time,
        series.last_time,
        series.last_value,
        series.size_bytes,
        series.next_sequence,
        series.span_max,
        bool(series.integer),
        series.written_from,
        series.dropped_before,
        series.roll_up,
    )


def _packed(chunk: Chunk, *, integer: bool) -> Chunk:
    """A tail was captured raw: pack it if it is worth it."""
    if chunk.codec != CODEC_RAW or chunk.count < limits.ENCODE_READINGS_MIN:
        return chunk
    times = np.frombuffer(chunk.times, np.int64)
    codec, packed_times, packed_values = pack(
        times, np.frombuffer(chunk.values, value_dtype(integer=integer))
    )
    return Chunk(codec, chunk.count, packed_times, packed_values, chunk.min_time, chunk.max_time)
