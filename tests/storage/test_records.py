"""Golden bytes of every durable record of this floor, and decoders under fuzz."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CorruptData, DataDirectoryRefused, Fatal
from appliance.model import ClusterId, HardState, Member, MemberId, PeerMemory, Position
from appliance.storage import layout
from appliance.storage.batch import JournalState
from appliance.storage.identity import Identity, decode_identity, encode_identity
from appliance.storage.lmdb_store import POSITION_KEY
from appliance.storage.records import decode_record, encode_record
from appliance.storage.store import TABLES, full_key, prefix_stop

STATE = JournalState(
    anchor=Position(3, 1),
    last=Position(9, 2),
    hard_state=HardState(term=4, vote=MemberId(5), commit_index=8, high_index=11),
)
IDENTITY = Identity(
    member_id=MemberId(0xAB),
    name="pi-1",
    machine="m1",
    cluster_id=ClusterId(0xCD),
    founders=("pi-1", "pi-2"),
    members=(Member(MemberId(0xAB), "pi-1", 1, "pi-1.local:7441"),),
)


def test_record_golden_bytes() -> None:
    assert encode_record(b"k", b"payload").hex() == "01a3b3096b7061796c6f6164"


def test_entry_golden_bytes() -> None:
    key, record = layout.encode_entry((b"\0abc", 258, 7))
    assert key.hex() == "650000000000000102"
    assert record.hex() == "01d41d2ad1000000000000000700616263"
    assert layout.decode_entry(258, record) == (b"\0abc", 258, 7)
    assert layout.entry_index(key) == 258
    assert layout.peek_term(record) == 7


def test_state_golden_bytes() -> None:
    record = layout.encode_state(STATE)
    assert record[5:].hex() == "".join(f"{field:016x}" for field in (3, 1, 9, 2, 4, 5, 8, 11))
    assert record[:5].hex() == "01558c3b45"
    assert layout.decode_state(record) == STATE


def test_peers_and_boot_golden_bytes() -> None:
    peers = {MemberId(9): PeerMemory(boot_count=2, high_index=3), MemberId(1): PeerMemory(4, 5)}
    record = layout.encode_peers(peers)
    assert record[5:].hex() == "".join(f"{field:016x}" for field in (1, 4, 5, 9, 2, 3))
    assert layout.decode_peers(record) == peers
    assert layout.encode_boot_count(6).hex() == "018127654a0000000000000006"
    assert layout.decode_boot_count(layout.encode_boot_count(6)) == 6


def test_identity_golden_bytes() -> None:
    assert encode_identity(IDENTITY)[5:].decode() == (
        '{"cluster_id":"00000000000000cd","format":1,"founders":["pi-1","pi-2"],"machine":"m1",'
        '"member_id":"00000000000000ab","members":[{"is_voter":true,"member_id":"00000000000000ab",'
        '"name":"pi-1","number":1,"peer_address":"pi-1.local:7441"}],"name":"pi-1"}\n'
    )
    assert decode_identity(encode_identity(IDENTITY)) == IDENTITY
    later = replace(IDENTITY, members_version=5)
    assert b'"members_version":5,"name"' in encode_identity(later)
    assert decode_identity(encode_identity(later)) == later
    recovered = replace(IDENTITY, superseded=(ClusterId(1), ClusterId(2)), outlived=(ClusterId(3),))
    assert b'"outlived":["0000000000000003"],"superseded":["0000000000000001","0000000000000002"]}' in (
        encode_identity(recovered)
    )
    assert decode_identity(encode_identity(recovered)) == recovered


def test_keys_of_the_store_are_durable() -> None:
    assert [full_key(table, b"k")[:1][0] for table in TABLES] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert TABLES == (
        "meta", "members", "producers", "keys", "series", "latest", "heads", "outcomes", "blocks", "access",
        "late", "policies",
    )  # fmt: skip
    assert POSITION_KEY == b"\0position"


def test_everything_changing_sorts_after_the_entries() -> None:
    keys = [layout.STATE_KEY, layout.PEERS_KEY, layout.BOOT_KEY]
    assert all(layout.entry_key((1 << 64) - 1) < layout.ENTRIES_STOP <= key for key in keys)


def test_record_of_a_newer_format_is_refused_not_called_corrupt() -> None:
    checksum = zlib.crc32(b"payload", zlib.crc32(b"k", zlib.crc32(b"\x02")))
    record = b"\x02" + checksum.to_bytes(4, "big") + b"payload"
    with pytest.raises(DataDirectoryRefused, match=r"format 2 is newer.*start the version that wrote it"):
        decode_record(b"k", record, where="here")


def test_record_under_another_key_is_corrupt() -> None:
    record = encode_record(layout.entry_key(5), bytes(12))
    with pytest.raises(CorruptData, match=r"journal entry 6: checksum .* must not vote"):
        layout.decode_entry(6, record)


def test_short_record_is_corrupt() -> None:
    for size_bytes in range(5):
        with pytest.raises(CorruptData, match=f"has {size_bytes} bytes, at least 5"):
            decode_record(b"k", bytes(size_bytes), where="here")


@pytest.mark.parametrize(
    ("decode", "key", "payload"),
    [
        (layout.decode_state, layout.STATE_KEY, bytes(63)),
        (layout.decode_peers, layout.PEERS_KEY, bytes(23)),
        (layout.decode_boot_count, layout.BOOT_KEY, bytes(7)),
        (lambda record: layout.decode_entry(2, record), layout.entry_key(2), bytes(7)),
        (decode_identity, b"identity", b"{}"),
        (decode_identity, b"identity", b"no json"),
        (decode_identity, b"identity", b'{"format":1}'),
    ],
)
def test_payload_of_a_wrong_shape_is_corrupt(decode, key: bytes, payload: bytes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CorruptData):
        decode(encode_record(key, payload))


@given(st.binary(max_size=200), st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_every_flipped_bit_is_found(payload: bytes, place: int, bit: int) -> None:
    record = bytearray(encode_record(b"key", payload))
    record[place % len(record)] ^= 1 << bit
    with pytest.raises(CorruptData):
        decode_record(b"key", bytes(record), where="here")


@given(st.binary(max_size=120))
def test_decoders_answer_garbage_with_our_errors_only(content: bytes) -> None:
    for decode in (
        layout.decode_state,
        layout.decode_peers,
        layout.decode_boot_count,
        decode_identity,
        lambda record: layout.decode_entry(9, record),
    ):
        with pytest.raises(Fatal):
            decode(content)


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_prefix_stop_is_the_first_key_behind_the_prefix(prefix: bytes, key: bytes) -> None:
    stop = prefix_stop(prefix)
    has_prefix = key.startswith(prefix)
    assert (prefix <= key and (stop is None or key < stop)) == has_prefix
