"""Bytes of the state's records in the store. Durable: golden bytes are in the tests.

Big-endian, without padding; the first byte of each value is its format, 1 but where another is named.

    table      key                            value after the format
    meta       'state'                        >QQQQ revision, elapsed ns, next series id, producer uses
               'features'                     >H feature level; no record: 1
    members    >Q member id                   >QB number, 1 voter or 2 promotable or 0; text name, address
    producers  producer id                    >QQHB highest, used, details, has results; 129 bytes of bits;
                                              details indexes >Q, then fingerprints >I, then results >Q
    keys       key                            >QQQQQ create, mod, version, ttl s, deadline ns (2^64-1: none);
                                              the value
    series     >Q series id                   >BB kind (0 none, 1 float, 2 integer), has attributes;
                                              text sensor, metric, unit; >H labels; text name, value of each
    heads      >Q series id                   format 2: >QqqqQQQH readings, first time, last time, bits of the last
                                              value, size, next block, longest span, chunks; each chunk:
                                              >BIqqII codec, count, min time, max time, bytes of times and of
                                              values; both; then >qqQH written from, dropped before, marked index,
                                              widths; each >Qq width, rolled from (format 1: without)
    outcomes   >Q index                       >II skipped, changes; >I each; >IIQQQ ordinal, item, mod,
                                              create, version each
    blocks     >QQQ series id, min time with  format 2: >BH integer, chunks; each chunk as in heads, columns
               its sign bit flipped, block    behind all of them
    late       as blocks                      as blocks: those that reach over long times
    blocks of format 1 are read still: >BBIqI codec, integer, count, max time, bytes of times; times; values

text: >H bytes, UTF-8. Columns are little-endian inside, as in SeriesColumns.
Values are verified (checksummed) by the store; a record that still makes no sense is CorruptData.
Pure functions, called on any thread.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance import limits
from appliance.errors import CorruptData
from appliance.model import Member, MemberId
from appliance.state.cursor import FORMAT, Cursor, check_countable, decode, encode_text
from appliance.state.producers import DETAILS_MAX, Producer
from appliance.state.results import EntryOutcome, KeyChange, KeyRecord
from appliance.state.series import NOTHING_WRITTEN, Chunk, RollUpProgress, Series

STATE_KEY: Final = b"state"
FEATURES_KEY: Final = b"features"

_FORMAT: Final = bytes([FORMAT])
_META: Final = struct.Struct(">QQQQ")
_MEMBER: Final = struct.Struct(">QB")
_PRODUCER: Final = struct.Struct(">QQHB")
_KEY: Final = struct.Struct(">QQQQQ")
_SERIES: Final = struct.Struct(">BB")
_HEAD: Final = struct.Struct(">QqqqQQQH")
_CHUNK: Final = struct.Struct(">BIqqII")
_OUTCOME: Final = struct.Struct(">II")
_CHANGE: Final = struct.Struct(">IIQQQ")
BLOCK_FORMAT: Final = 2
_BLOCK_1: Final = struct.Struct(">BBIqI")
_BLOCK: Final = struct.Struct(">BH")
_BLOCK_KEY: Final = struct.Struct(">QQQ")
_ID: Final = struct.Struct(">Q")
_COUNT: Final = struct.Struct(">H")
_LEVEL: Final = struct.Struct(">H")
_ORDINAL: Final = struct.Struct(">I")

_BITS_BYTES: Final = limits.PRODUCER_WINDOW // 8 + 1
_NO_DEADLINE: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
_FLOAT: Final = struct.Struct(">d")
_INTEGER: Final = struct.Struct(">q")
_KINDS: Final = {0: None, 1: False, 2: True}


@dataclass(frozen=True, slots=True)
class Meta:
    revision: int
    elapsed_ns: int
    next_series_id: int
    producer_uses: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Readings in the store. The chunks' times ascend and are apart; within a chunk they may be as written."""

    series_id: int
    sequence: int
    integer: bool
    chunks: tuple[Chunk, ...]

    @property
    def min_time(self) -> int:
        return self.chunks[0].min_time

    @property
    def max_time(self) -> int:
        return self.chunks[-1].max_time


def encode_id(number: int) -> bytes:
    return _ID.pack(number)


def decode_id(table: str, key: bytes) -> int:
    if len(key) != _ID.size:
        raise CorruptData(f"store {table}", f"key {key!r} is no number")
    number: int = _ID.unpack(key)[0]
    return number


def encode_meta(meta: Meta) -> bytes:
    return _FORMAT + _META.pack(meta.revision, meta.elapsed_ns, meta.next_series_id, meta.producer_uses)


def decode_meta(record: bytes) -> Meta:
    def read(cursor: Cursor) -> Meta:
        meta = Meta(*cursor.unpack(_META))
        check_countable(meta.revision, meta.next_series_id, meta.producer_uses)
        return meta

    return decode("meta", STATE_KEY, record, read)


def encode_features(level: int) -> bytes:
    return _FORMAT + _LEVEL.pack(level)


def decode_features(record: bytes) -> int:
    return decode("meta", FEATURES_KEY, record, lambda cursor: cursor.unpack(_LEVEL)[0])


def encode_member(member: Member) -> bytes:
    return (
        _FORMAT
        + _MEMBER.pack(member.number, member.is_voter | member.is_promotable << 1)
        + encode_text(member.name)
        + encode_text(member.peer_address)
    )


def decode_member(key: bytes, record: bytes) -> Member:
    def read(cursor: Cursor) -> Member:
        number, kind = cursor.unpack(_MEMBER)
        return Member(
            member_id=MemberId(decode_id("members", key)),
            name=cursor.text(),
            number=number,
            peer_address=cursor.text(),
            is_voter=bool(kind & 1),
            is_promotable=bool(kind & 2),
        )

    return decode("members", key, record, read)


def encode_producer(producer: Producer) -> bytes:
    columns = [array(column.typecode, column) for column in _rings(producer)]
    for column in columns:
        column.byteswap()
    return b"".join(
        (
            _FORMAT,
            _PRODUCER.pack(producer.highest, producer.used, producer.details_size, bool(producer.results)),
            producer.bits.to_bytes(_BITS_BYTES, "big"),
            *(column.tobytes() for column in columns),
        )
    )


def decode_producer(key: bytes, record: bytes) -> Producer:
    def read(cursor: Cursor) -> Producer:
        producer = Producer(key.decode())
        producer.highest, producer.used, size, has_results = cursor.unpack(_PRODUCER)
        if not 0 < size <= DETAILS_MAX:
            raise ValueError(f"{size} details")
        producer.bits = int.from_bytes(cursor.take(_BITS_BYTES), "big")
        producer.indexes = array("Q", cursor.take(8 * size))
        producer.fingerprints = array("I", cursor.take(4 * size))
        producer.results = array("Q", cursor.take(8 * size if has_results else 0))
        for column in _rings(producer):
            column.byteswap()
        return producer

    return decode("producers", key, record, read)


def encode_key(record: KeyRecord) -> bytes:
    deadline = _NO_DEADLINE if record.deadline_ns is None else record.deadline_ns
    figures = _KEY.pack(
        record.create_revision, record.mod_revision, record.version, record.ttl_seconds, deadline
    )
    return _FORMAT + figures + record.value


def decode_key(key: bytes, record: bytes) -> KeyRecord:
    def read(cursor: Cursor) -> KeyRecord:
        create, mod, version, ttl_seconds, deadline = cursor.unpack(_KEY)
        check_countable(mod, version)
        return KeyRecord(
            key=key.decode(),
            value=cursor.rest(),
            create_revision=create,
            mod_revision=mod,
            version=version,
            ttl_seconds=ttl_seconds,
            deadline_ns=None if deadline == _NO_DEADLINE else deadline,
        )

    return decode("keys", key, record, read)


def encode_series(series: Series) -> bytes:
    kind = 0 if series.integer is None else 1 + series.integer
    labels = series.labels or {}
    texts = [series.sensor, series.metric, series.unit]
    return b"".join(
        (
            _FORMAT,
            _SERIES.pack(kind, series.labels is not None),
            *map(encode_text, texts),
            _COUNT.pack(len(labels)),
            *(encode_text(name) + encode_text(value) for name, value in sorted(labels.items())),
        )
    )


def decode_series(key: bytes, record: bytes) -> Series:
    """Without its head: see decode_head."""

    def read(cursor: Cursor) -> Series:
        kind, has_attributes = cursor.unpack(_SERIES)
        series = Series(decode_id("series", key), cursor.text(), cursor.text())
        series.unit = cursor.text()
        labels = {cursor.text(): cursor.text() for _ in range(cursor.unpack(_COUNT)[0])}
        series.labels = labels if has_attributes else None
        if kind not in _KINDS:
            raise ValueError(f"kind {kind}")
        if kind:
            series.set_kind(integer=kind == 2)
        return series

    return decode("series", key, record, read)


HEAD_FORMAT: Final = 2
_ROLL_UP: Final = struct.Struct(">qqQH")
_ROLLED_FROM: Final = struct.Struct(">Qq")


class HeadFigures(NamedTuple):
    """A series' figures at one moment, in the order of Series' attributes."""

    reading_count: int
    first_time: int
    last_time: int
    last_value: float | int
    size_bytes: int
    next_sequence: int
    span_max: int
    integer: bool
    written_from: int
    dropped_before: int
    roll_up: RollUpProgress | None


def encode_head(figures: HeadFigures, chunks: Sequence[Chunk]) -> bytes:
    bits = _INTEGER.unpack((_INTEGER if figures.integer else _FLOAT).pack(figures.last_value))[0]
    parts = [
        bytes([HEAD_FORMAT]),
        _HEAD.pack(
            figures.reading_count,
            figures.first_time,
            figures.last_time,
            bits,
            figures.size_bytes,
            figures.next_sequence,
            figures.span_max,
            len(chunks),
        ),
    ]
    for chunk in chunks:
        parts.extend((_chunk_header(chunk), chunk.times, chunk.values))
    marked_index, rolled_from = figures.roll_up or (0, ())
    parts.append(_ROLL_UP.pack(figures.written_from, figures.dropped_before, marked_index, len(rolled_from)))
    parts.extend(_ROLLED_FROM.pack(*rolled) for rolled in rolled_from)
    return b"".join(parts)


def decode_head(series: Series, record: bytes) -> None:
    """Fills series, which decode_series gave."""

    def read(cursor: Cursor) -> None:
        head = cursor.unpack(_HEAD)
        series.reading_count, series.first_time, series.last_time, bits = head[:4]
        series.size_bytes, series.next_sequence, series.span_max, chunk_count = head[4:]
        check_countable(series.reading_count, series.size_bytes, series.next_sequence)
        series.last_value = (_INTEGER if series.integer else _FLOAT).unpack(_INTEGER.pack(bits))[0]
        for _ in range(chunk_count):
            codec, count, min_time, max_time, times_size, values_size = cursor.unpack(_CHUNK)
            times, values = cursor.take(times_size), cursor.take(values_size)
            if not 0 < count <= limits.READINGS_PER_REQUEST_MAX:
                raise ValueError(f"a chunk of {count} readings")
            series.load_chunk(Chunk(codec, count, times, values, min_time, max_time))
        if record[:1] == _FORMAT:
            series.written_from = series.first_time if series.reading_count else NOTHING_WRITTEN
            return
        series.written_from, series.dropped_before, marked_index, width_count = cursor.unpack(_ROLL_UP)
        rolled_from = tuple(
            (width, time) for width, time in (cursor.unpack(_ROLLED_FROM) for _ in range(width_count))
        )
        series.roll_up = RollUpProgress(marked_index, rolled_from) if marked_index else None

    wanted = FORMAT if record[:1] == _FORMAT else HEAD_FORMAT
    decode("heads", encode_id(series.series_id), record, read, wanted=wanted)


def encode_outcome(outcome: EntryOutcome) -> bytes:
    changes = (
        _CHANGE.pack(change.ordinal, change.item, change.mod_revision, change.create_revision, change.version)
        for change in outcome.key_changes
    )
    counts = _OUTCOME.pack(len(outcome.skipped), len(outcome.key_changes))
    return b"".join((_FORMAT, counts, *map(_ORDINAL.pack, outcome.skipped), *changes))


def decode_outcome(key: bytes, record: bytes) -> EntryOutcome:
    def read(cursor: Cursor) -> EntryOutcome:
        skipped_count, change_count = cursor.unpack(_OUTCOME)
        return EntryOutcome(
            decode_id("outcomes", key),
            tuple(cursor.unpack(_ORDINAL)[0] for _ in range(skipped_count)),
            tuple(KeyChange(*cursor.unpack(_CHANGE)) for _ in range(change_count)),
        )

    return decode("outcomes", key, record, read)


def block_key(series_id: int, min_time: int, sequence: int) -> bytes:
    """Blocks of a series sort by min_time, as signed numbers do."""
    return _BLOCK_KEY.pack(series_id, min_time + _SIGN, sequence)


def block_bytes(chunks: Sequence[Chunk]) -> int:
    """Size of the value of a block of these chunks."""
    columns = sum(len(chunk.times) + len(chunk.values) for chunk in chunks)
    return 1 + _BLOCK.size + len(chunks) * _CHUNK.size + columns


def encode_block(block: Block) -> tuple[bytes, bytes]:
    """(key, value)."""
    key = block_key(block.series_id, block.min_time, block.sequence)
    columns = [column for chunk in block.chunks for column in (chunk.times, chunk.values)]
    header = _BLOCK.pack(block.integer, len(block.chunks))
    return key, b"".join((bytes([BLOCK_FORMAT]), header, *map(_chunk_header, block.chunks), *columns))


def decode_block(key: bytes, record: bytes) -> Block:
    def read(cursor: Cursor) -> Block:
        series_id, _, sequence = _BLOCK_KEY.unpack(key)
        integer, chunk_count = cursor.unpack(_BLOCK)
        headers = [cursor.unpack(_CHUNK) for _ in range(chunk_count)]
        if not headers or not all(0 < header[1] <= limits.BLOCK_READINGS_MAX for header in headers):
            raise ValueError(f"{[header[1] for header in headers]} readings")
        chunks = tuple(
            Chunk(codec, count, cursor.take(times_size), cursor.take(values_size), min_time, max_time)
            for codec, count, min_time, max_time, times_size, values_size in headers
        )
        return Block(series_id, sequence, bool(integer), chunks)

    if record[:1] == _FORMAT:
        return _decode_block_1(key, record)
    return decode("blocks", key, record, read, wanted=BLOCK_FORMAT)


def _decode_block_1(key: bytes, record: bytes) -> Block:
    def read(cursor: Cursor) -> Block:
        series_id, min_time, sequence = _BLOCK_KEY.unpack(key)
        codec, integer, count, max_time, times_size = cursor.unpack(_BLOCK_1)
        if not 0 < count <= limits.BLOCK_READINGS_MAX:
            raise ValueError(f"{count} readings")
        chunk = Chunk(codec, count, cursor.take(times_size), cursor.rest(), min_time - _SIGN, max_time)
        return Block(series_id, sequence, bool(integer), (chunk,))

    return decode("blocks", key, record, read)


def _chunk_header(chunk: Chunk) -> bytes:
    return _CHUNK.pack(
        chunk.codec, chunk.count, chunk.min_time, chunk.max_time, len(chunk.times), len(chunk.values)
    )


def _rings(producer: Producer) -> tuple[array[int], array[int], array[int]]:
    return producer.indexes, producer.fingerprints, producer.results
