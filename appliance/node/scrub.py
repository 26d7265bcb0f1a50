"""Everything on disk is read and checked, slowly, once in scrub_interval_ns: damage is found before it is needed.

Every record of the journal and of the store has its checksum verified, every block is decoded to its readings' columns.
Damage ends in quarantine, like any other damage: the node says what and where, and is rebuilt from its peers.
Invariant: one slice is read at a time, in the pool, at scrub_bytes_per_second on average; nothing is written for it:
where it stands and when it last ended rides with checkpoints (record `scrub` of meta, of this member only), so that a
restart goes on at most a checkpoint earlier. Loop thread.

    meta 'scrub': format 1, >QqB member id, ended (wall ns), running; >H table; key from which to go on
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.clock import Clock
from appliance.consensus import EventLog, LogImage
from appliance.limits import CLOCK_EARLIEST_UNIX_NANO, KIB
from appliance.model import MemberId
from appliance.node.options import NodeOptions
from appliance.node.workers import Workers
from appliance.state.sweep import check_block
from appliance.storage.journal import Journal
from appliance.storage.store import TABLES, Record, Store, StoreReader

SLICE_BYTES: Final = 256 * KIB
SECOND_NS: Final = 1_000_000_000
SCRUB_KEY: Final = b"scrub"
_FORMAT: Final = b"\x01"
_RECORD: Final = struct.Struct(">QqBH")
_BLOCK_TABLES: Final = frozenset({"blocks", "late"})
_JOURNAL: Final = len(TABLES)
"""Behind the store's tables the journal is read."""


class Scrubbed(Protocol):
    """The node, as far as the scrub looks at it."""

    store: Store
    log: LogImage
    events: EventLog
    workers: Workers
    options: NodeOptions
    clock: Clock

    def request_wake(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """table: in TABLES, _JOURNAL for the journal, where key is the index before the next entry."""

    table: int = 0
    key: bytes = b""


class Scrub:
    def __init__(self, node: Scrubbed, member: MemberId, journal: Journal) -> None:
        self._node, self._member, self._journal = node, member, journal
        self._place: Place | None = None
        self._due_ns = node.clock.monotonic_ns()
        self._is_reading = False
        self._read_bytes = 0
        self.ended_wall_ns = 0
        """When everything was last found sound; 0: never yet."""

        with node.store.snapshot() as reader:
            self._restore(reader.get("meta", SCRUB_KEY))

    def percent(self, used_bytes: int) -> int:
        """How far the run under way is, about; 0: none is."""
        if self._place is None:
            return 0
        return min(99, 100 * self._read_bytes // max(used_bytes, 1))

    def record(self) -> Record:
        """For a checkpoint: where the scrub stands."""
        place = self._place or Place()
        figures = _RECORD.pack(self._member, self.ended_wall_ns, self._place is not None, place.table)
        return "meta", SCRUB_KEY, _FORMAT + figures + place.key

    def cycle(self) -> None:
        options, clock = self._node.options, self._node.clock
        if self._is_reading or not options.scrub_interval_ns or clock.monotonic_ns() < self._due_ns:
            return
        if self._place is None:
            if not self._is_due(clock.wall_ns()):
                return
            self._place, self._read_bytes = Place(), 0
        self._is_reading, place = True, self._place
        reader, journal, log = self._node.store.snapshot(), self._journal, self._node.log
        anchor, last = log.anchor.index, log.durable_index
        self._node.workers.read(lambda: read_slice(reader, journal, place, anchor, last), self._was_read)

    def _is_due(self, now_wall_ns: int) -> bool:
        ended_ns = self.ended_wall_ns
        if now_wall_ns < CLOCK_EARLIEST_UNIX_NANO <= ended_ns:
            # This machine has not learned the time yet: every start would begin another.
            return False
        # One that ended in the future ended under a wrong clock: when it was is not known.
        return not ended_ns or not 0 <= now_wall_ns - ended_ns < self._node.options.scrub_interval_ns

    def _was_read(self, result: tuple[Place | None, int]) -> None:
        self._place, size = result
        self._is_reading = False
        self._read_bytes += size
        self._due_ns = (
            self._node.clock.monotonic_ns() + size * SECOND_NS // self._node.options.scrub_bytes_per_second
        )
        if self._place is None:
            self.ended_wall_ns = self._node.clock.wall_ns()
            self._node.events.record(
                "scrubbed", self._node.log.term, self._node.log.last_index, read_bytes=self._read_bytes
            )

    def _restore(self, record: bytes | None) -> None:
        """A record of another member came with a snapshot or a backup: nothing was read here yet."""
        if record is None or record[:1] != _FORMAT or len(record) < 1 + _RECORD.size:
            return
        member, ended_wall_ns, is_running, table = _RECORD.unpack_from(record, 1)
        if member == self._member and table <= _JOURNAL:
            self.ended_wall_ns = ended_wall_ns
            self._place = Place(table, record[1 + _RECORD.size :]) if is_running else None


def read_slice(
    store: StoreReader, journal: Journal, place: Place, anchor: int, last: int
) -> tuple[Place | None, int]:
    """Check SLICE_BYTES from place on: (where to go on, bytes read), None at the end. Raises CorruptData.

    store: opened on the loop, where stores are replaced; closed here. anchor, last: of the journal, as noted there.
    Nothing read before last: it was trimmed since. The same again, behind its present anchor.
    """
    size = 0
    with store as reader:
        if place.table < _JOURNAL:
            for table, key, record in _records(reader, place):
                if table in _BLOCK_TABLES:
                    check_block(key, record)
                size += len(key) + len(record)
                if size >= SLICE_BYTES:
                    return Place(TABLES.index(table), key + b"\0"), size
            return Place(_JOURNAL, b""), size
    index = max(int.from_bytes(place.key, "big"), anchor)
    entries = journal.read(index + 1, count_max=1_024, bytes_max=SLICE_BYTES)
    if not entries:
        return (None if index >= last else place), size
    return Place(_JOURNAL, entries[-1][1].to_bytes(8, "big")), sum(len(entry[0]) for entry in entries)


def _records(reader: StoreReader, place: Place) -> Iterator[Record]:
    for number in range(place.table, len(TABLES)):
        start = place.key if number == place.table else b""
        for key, record in reader.scan(TABLES[number], start):
            yield TABLES[number], key, record
