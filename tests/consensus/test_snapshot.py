"""Records through chunks and back, whole or damaged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.consensus.snapshot import RecordDecoder, encode_records
from appliance.errors import CorruptData
from appliance.limits import SNAPSHOT_CHUNK_BYTES
from appliance.storage.store import TABLES, Record

RECORDS = st.lists(
    st.tuples(st.sampled_from(TABLES), st.binary(max_size=60), st.binary(max_size=300)), max_size=40
)


@given(RECORDS, st.integers(1, 50))
def test_records_survive_chunks_cut_anywhere(records: list[Record], size: int) -> None:
    data = b"".join(encode_records(records))
    decoder = RecordDecoder()
    found: list[Record] = []
    for start in range(0, len(data), size):
        found += decoder.feed(data[start : start + size])
    assert found == records
    assert decoder.is_complete


def test_chunks_are_bounded_and_the_layout_is_fixed() -> None:
    assert list(encode_records([("keys", b"k", b"value")])) == [b"\x04\x00\x01\x00\x00\x00\x05keyskvalue"]
    chunks = list(encode_records(("blocks", bytes([number]), bytes(100_000)) for number in range(10)))
    assert max(len(chunk) for chunk in chunks) <= SNAPSHOT_CHUNK_BYTES
    assert len(chunks) == 4


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waits_for_more(data: bytes) -> None:
    try:
        RecordDecoder().feed(data)
    except CorruptData as error:
        assert "transfer ended" in str(error)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(CorruptData, match="not known to this version"):
        RecordDecoder().feed(b"\x03\x00\x01\x00\x00\x00\x01abcxy")
