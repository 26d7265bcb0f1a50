"""Bytes of the journal's records: keys and payloads, the same on LMDB and in the simulator.

    key               payload (big-endian)
    'e' >Q index      >Q term, then the command
    'f' 'boot'        >Q boot count
    'f' 'peers'       per peer, ids ascending: >QQQ member id, boot count, high index
    'f' 'state'       >QQ anchor, >QQ last, >QQQQ term, vote (0: none), commit index, high index

'f' follows 'e', so that what changes with every commit lies on the leaf where entries are added.
Each payload is wrapped by records.py. Pure functions; golden bytes are in the tests.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from appliance.errors import CorruptData
from appliance.model import Entry, HardState, MemberId, PeerMemory, Position
from appliance.storage.batch import JournalState
from appliance.storage.records import HEADER, REBUILD_HINT, decode_record, encode_record

BOOT_KEY: Final = b"fboot"
PEERS_KEY: Final = b"fpeers"
STATE_KEY: Final = b"fstate"
NAMES_BEHIND_ENTRIES: Final = (BOOT_KEY, PEERS_KEY, STATE_KEY)
ENTRIES_START: Final = b"e"
ENTRIES_STOP: Final = b"f"

_ENTRY_KEY: Final = struct.Struct(">cQ")
_NUMBER: Final = struct.Struct(">Q")
_PEER: Final = struct.Struct(">QQQ")
_STATE: Final = struct.Struct(">8Q")

ENTRY_OVERHEAD: Final = HEADER.size + _NUMBER.size
"""Bytes of an entry's record beside its command."""


def entry_key(index: int) -> bytes:
    return _ENTRY_KEY.pack(b"e", index)


def entry_index(key: bytes | memoryview) -> int:
    """The index in a key that starts with 'e'."""
    if len(key) != _ENTRY_KEY.size:
        raise CorruptData("journal", f"key {bytes(key)!r} is none of ours; {REBUILD_HINT}")
    index: int = _ENTRY_KEY.unpack(key)[1]
    return index


def encode_entry(entry: Entry) -> tuple[bytes, bytes]:
    """(key, record)."""
    command, index, term = entry
    key = entry_key(index)
    return key, encode_record(key, _NUMBER.pack(term) + command)


def decode_entry(index: int, record: bytes | memoryview) -> Entry:
    """Raises CorruptData that names the index."""
    payload = decode_record(entry_key(index), record, where=f"journal entry {index}")
    if len(payload) < _NUMBER.size:
        raise CorruptData(f"journal entry {index}", f"no term in it; {REBUILD_HINT}")
    return bytes(payload[_NUMBER.size :]), index, _NUMBER.unpack_from(payload)[0]


def peek_term(record: bytes | memoryview) -> int:
    """The term of an entry's record, unverified: for assertions on what was verified before."""
    term: int = _NUMBER.unpack_from(record, HEADER.size)[0]
    return term


def encode_state(state: JournalState) -> bytes:
    hard = state.hard_state
    payload = _STATE.pack(
        state.anchor.index,
        state.anchor.term,
        state.last.index,
        state.last.term,
        hard.term,
        hard.vote or 0,
        hard.commit_index,
        hard.high_index,
    )
    return encode_record(STATE_KEY, payload)


def decode_state(record: bytes | memoryview | None) -> JournalState:
    """None, no record yet: the state of a journal that was never written."""
    if record is None:
        return JournalState()
    where = "journal state"
    payload = decode_record(STATE_KEY, record, where=where)
    if len(payload) != _STATE.size:
        raise CorruptData(where, f"{len(payload)} bytes, expected {_STATE.size}; {REBUILD_HINT}")
    fields = _STATE.unpack(payload)
    return JournalState(
        anchor=Position(fields[0], fields[1]),
        last=Position(fields[2], fields[3]),
        hard_state=HardState(
            term=fields[4],
            vote=MemberId(fields[5]) if fields[5] else None,
            commit_index=fields[6],
            high_index=fields[7],
        ),
    )


def encode_peers(peers: Mapping[MemberId, PeerMemory]) -> bytes:
    payload = b"".join(
        _PEER.pack(member_id, peers[member_id].boot_count, peers[member_id].high_index)
        for member_id in sorted(peers)
    )
    return encode_record(PEERS_KEY, payload)


def decode_peers(record: bytes | memoryview | None) -> dict[MemberId, PeerMemory]:
    if record is None:
        return {}
    where = "journal memory of peers"
    payload = decode_record(PEERS_KEY, record, where=where)
    if len(payload) % _PEER.size:
        raise CorruptData(where, f"{len(payload)} bytes are no whole peers; {REBUILD_HINT}")
    return {
        MemberId(member_id): PeerMemory(boot_count=boot_count, high_index=high_index)
        for member_id, boot_count, high_index in _PEER.iter_unpack(payload)
    }


def encode_boot_count(boot_count: int) -> bytes:
    return encode_record(BOOT_KEY, _NUMBER.pack(boot_count))


def decode_boot_count(record: bytes | memoryview | None) -> int:
    if record is None:
        return 0
    where = "journal boot count"
    payload = decode_record(BOOT_KEY, record, where=where)
    if len(payload) != _NUMBER.size:
        raise CorruptData(where, f"{len(payload)} bytes, expected {_NUMBER.size}; {REBUILD_HINT}")
    count: int = _NUMBER.unpack(payload)[0]
    return count


class EntryChain:
    """Checks entries of a journal one after the other, then that nothing is missing at the end."""

    def __init__(self, state: JournalState) -> None:
        self._state = state
        self._index = state.anchor.index
        self._term = state.anchor.term

    def check(self, index: int, record: bytes | memoryview) -> Entry:
        """The verified entry; CorruptData when it doesn't follow the one before."""
        where = f"journal entry {index}"
        if index != self._index + 1:
            raise CorruptData(where, f"follows {self._index}, entries between are missing; {REBUILD_HINT}")
        entry = decode_entry(index, record)
        if entry[2] < self._term:
            raise CorruptData(
                where, f"term {entry[2]} after term {self._term}, terms never fall; {REBUILD_HINT}"
            )
        self._index, self._term = index, entry[2]
        return entry

    def end(self) -> None:
        last = self._state.last
        if (self._index, self._term) != (last.index, last.term):
            raise CorruptData(
                "journal",
                f"ends at index {self._index} term {self._term}, its state record says index "
                f"{last.index} term {last.term}; {REBUILD_HINT}",
            )
