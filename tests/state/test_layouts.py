"""Golden bytes of every record, and bytes that are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CorruptData, DataDirectoryRefused, RaftberryError
from appliance.model import Member, MemberId
from appliance.state import EntryOutcome, KeyChange, KeyRecord, layouts
from appliance.state.producers import Producer
from appliance.state.series import Chunk, RollUpProgress, Series

NUMBER = layouts.encode_id(7)
BLOCK_KEY = layouts.block_key(7, -1, 2)
BLOCK = layouts.Block(7, 2, True, (Chunk(1, 3, b"TT", b"V", -1, 8), Chunk(0, 1, b"T" * 8, b"V" * 8, 9, 9)))


def series() -> Series:
    made = Series(7, "s", "m")
    made.set_kind(integer=False)
    made.unit, made.labels = "C", {"a": "b"}
    return made


def head() -> bytes:
    figures = layouts.HeadFigures(3, -1, 5, 1.5, 11, 2, 6, False, 4, -2, RollUpProgress(9, ((60, -1),)))
    return layouts.encode_head(figures, (Chunk(0, 1, b"T" * 8, b"V" * 8, 5, 5),))


def producer() -> Producer:
    made = Producer("p")
    made.mark(1, fingerprint=0xAB, index=9, result=0)
    made.used = 4
    return made


def decoded_head(record: bytes) -> Series:
    made = series()
    layouts.decode_head(made, record)
    return made


GOLDEN: dict[str, tuple[bytes, str, Callable[[bytes], object]]] = {
    "meta": (
        layouts.encode_meta(layouts.Meta(1, 2, 3, 4)),
        "01 0000000000000001 0000000000000002 0000000000000003 0000000000000004",
        layouts.decode_meta,
    ),
    "members": (
        layouts.encode_member(Member(MemberId(7), "n", 2, "h:1")),
        "01 0000000000000002 01 0001 6e 0003 683a31",
        lambda record: layouts.decode_member(NUMBER, record),
    ),
    "producers": (
        layouts.encode_producer(producer()),
        "01 0000000000000001 0000000000000004 0008 00" + "00" * 128 + "01"
        "0000000000000000 0000000000000009" + "0000000000000000" * 6 + "00000000 000000ab" + "00000000" * 6,
        lambda record: layouts.decode_producer(b"p", record),
    ),
    "keys": (
        layouts.encode_key(KeyRecord("k", b"v", 1, 2, 3)),
        "01 0000000000000001 0000000000000002 0000000000000003 0000000000000000 ffffffffffffffff 76",
        lambda record: layouts.decode_key(b"k", record),
    ),
    "series": (
        layouts.encode_series(series()),
        "01 01 01 0001 73 0001 6d 0001 43 0001 0001 61 0001 62",
        lambda record: layouts.decode_series(NUMBER, record),
    ),
    "heads": (
        head(),
        "02 0000000000000003 ffffffffffffffff 0000000000000005 3ff8000000000000 000000000000000b"
        "0000000000000002 0000000000000006 0001 00 00000001 0000000000000005 0000000000000005 00000008 00000008"
        + "54" * 8
        + "56" * 8
        + "0000000000000004 fffffffffffffffe 0000000000000009 0001 000000000000003c ffffffffffffffff",
        decoded_head,
    ),
    "outcomes": (
        layouts.encode_outcome(EntryOutcome(7, (2,), (KeyChange(1, 0, 5, 4, 3),))),
        "01 00000001 00000001 00000002 00000001 000000000000000000000005 0000000000000004 0000000000000003",
        lambda record: layouts.decode_outcome(NUMBER, record),
    ),
    "blocks": (
        layouts.encode_block(BLOCK)[1],
        "02 01 0002 01 00000003 ffffffffffffffff 0000000000000008 00000002 00000001"
        "00 00000001 0000000000000009 0000000000000009 00000008 00000008 5454 56" + "54" * 8 + "56" * 8,
        lambda record: layouts.decode_block(BLOCK_KEY, record),
    ),
}


@pytest.mark.parametrize("table", GOLDEN)
def test_records_have_their_bytes(table: str) -> None:
    record, golden, _ = GOLDEN[table]
    assert record.hex() == golden.replace(" ", "")


def test_block_keys_sort_by_time() -> None:
    assert BLOCK_KEY.hex() == "00000000000000077fffffffffffffff0000000000000002"
    keys = [layouts.block_key(7, time, 0) for time in (-(1 << 63), -1, 0, 1, (1 << 63) - 1)]
    assert keys == sorted(keys)


def test_records_come_back() -> None:
    assert layouts.decode_meta(GOLDEN["meta"][0]) == layouts.Meta(1, 2, 3, 4)
    assert layouts.decode_member(NUMBER, GOLDEN["members"][0]) == Member(MemberId(7), "n", 2, "h:1")
    assert layouts.decode_key(b"k", GOLDEN["keys"][0]) == KeyRecord("k", b"v", 1, 2, 3)
    assert layouts.decode_outcome(NUMBER, GOLDEN["outcomes"][0]).key_changes == (KeyChange(1, 0, 5, 4, 3),)
    assert (
        layouts.encode_producer(layouts.decode_producer(b"p", GOLDEN["producers"][0]))
        == GOLDEN["producers"][0]
    )
    assert layouts.encode_series(layouts.decode_series(NUMBER, GOLDEN["series"][0])) == GOLDEN["series"][0]
    restored = decoded_head(head())
    assert (restored.last_value, restored.size_bytes, restored.head_count) == (1.5, 11, 1)
    assert (restored.written_from, restored.dropped_before) == (4, -2)
    assert restored.roll_up == RollUpProgress(9, ((60, -1),))
    first_format = decoded_head(b"\x01" + head()[1:-42])
    assert (first_format.head_count, first_format.written_from, first_format.roll_up) == (1, -1, None)
    block = layouts.decode_block(BLOCK_KEY, GOLDEN["blocks"][0])
    assert (block.sequence, block.min_time, block.max_time, block.chunks[0].values) == (2, -1, 9, b"V")
    assert layouts.block_bytes(block.chunks) == len(GOLDEN["blocks"][0])


def test_blocks_of_the_first_format_are_read() -> None:
    record = bytes.fromhex("01 01 01 00000003 0000000000000008 00000002 5454 56".replace(" ", ""))
    (chunk,) = layouts.decode_block(BLOCK_KEY, record).chunks
    assert (chunk.count, chunk.times, chunk.values, chunk.max_time) == (3, b"TT", b"V", 8)


@pytest.mark.parametrize("table", GOLDEN)
def test_a_newer_format_is_refused_with_a_hint(table: str) -> None:
    record, _, decode = GOLDEN[table]
    with pytest.raises(DataDirectoryRefused, match="start the version that wrote it"):
        decode(b"\x03" + record[1:])


@pytest.mark.parametrize("table", [table for table in GOLDEN if table not in ("keys", "blocks")])
def test_bytes_too_many_or_too_few_are_corrupt(table: str) -> None:
    record, _, decode = GOLDEN[table]
    for broken in (record + b"x", record[:-1], b""):
        with pytest.raises(CorruptData, match=f"store {table}"):
            decode(broken)


@given(st.sampled_from(sorted(GOLDEN)), st.binary(max_size=80), st.integers(0, 60))
def test_any_bytes_are_decoded_or_refused(table: str, noise: bytes, place: int) -> None:
    record, _, decode = GOLDEN[table]
    try:
        decode(record[:place] + noise + record[place + len(noise) :])
    except RaftberryError:
        return
