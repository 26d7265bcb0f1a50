"""Everything on disk is read once in a while, slowly, and damage is found where nobody asked for it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import CorruptData
from appliance.model import Entry, MemberId
from appliance.node import scrub
from appliance.node.options import NodeOptions
from appliance.node.scrub import Place, Scrub, read_slice
from appliance.storage.batch import Append, TrimTo
from appliance.storage.lmdb_journal import LmdbJournal
from appliance.storage.lmdb_store import LmdbStore
from appliance.storage.memory import MemoryDisk, MemoryJournal, MemoryStore
from appliance.storage.store import TABLES, StoreBatch
from tests.node.harness import Cluster, Machine, cluster, put
from tests.state.fakes import Cluster as State
from tests.state.fakes import write

FAST = NodeOptions(scrub_bytes_per_second=10_000)


def fill(made: Cluster, machine: Machine, count: int) -> None:
    rng = random.Random(1)
    for number in range(count):
        machine.core.submit(put(f"k{number}", rng.randbytes(900)), made.clock.now_ns + 10**10, lambda _: None)
        made.run_for(20)


def test_a_scrub_keeps_to_its_rate_and_is_due_again_after_its_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrub, "SLICE_BYTES", 1_000)
    with cluster(size=1, options=FAST) as made:
        leader = made.elect()
        fill(made, leader, 50)
        found = leader.core.housekeeping.scrub
        scrubs = leader.core.events.counts["scrubbed"]
        found.ended_wall_ns, began = 0, made.clock.now_ns
        while not found.ended_wall_ns and made.clock.now_ns < began + 100 * 10**9:
            made.run_for(200)
        assert made.clock.now_ns - began > 3 * 10**9, "50 kB of log at 10 kB/s"
        assert leader.core.events.counts["scrubbed"] == scrubs + 1
        made.run_for(20_000)
        assert leader.core.events.counts["scrubbed"] == scrubs + 1


def test_a_scrub_that_ended_under_a_clock_ahead_of_this_one_does_not_count() -> None:
    hour_ns = 3_600 * 10**9
    with cluster(size=1, options=NodeOptions(scrub_interval_ns=hour_ns)) as made:
        core = made.elect().core
        made.run_for(60_000)
        found, scrubs = core.housekeeping.scrub, core.events.counts["scrubbed"]
        assert scrubs
        found.ended_wall_ns = core.clock.wall_ns() + 10 * 365 * 24 * hour_ns
        made.run_for(60_000)
        assert core.events.counts["scrubbed"] == scrubs + 1
        assert found.ended_wall_ns <= core.clock.wall_ns()


def test_a_scrub_waits_for_a_clock_that_is_not_set_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pi knows no time until it has asked for it: every start would begin another scrub."""
    with cluster(size=1) as made:
        core = made.elect().core
        made.run_for(60_000)
        scrubs = core.events.counts["scrubbed"]
        monkeypatch.setattr(core.clock, "wall_ns", lambda: made.clock.now_ns)
        made.run_for(60_000)
        assert core.events.counts["scrubbed"] == scrubs
        core.housekeeping.scrub.ended_wall_ns = 0
        made.run_for(60_000)
        assert core.events.counts["scrubbed"] == scrubs + 1


def test_where_a_scrub_stands_rides_with_checkpoints_and_is_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrub, "SLICE_BYTES", 1_000)
    with cluster(size=1, options=FAST) as made:
        leader = made.elect()
        fill(made, leader, 50)
        core = leader.core
        core.checkpoint(lambda _: None)
        made.settle()
        core.housekeeping.scrub.ended_wall_ns = 0
        made.run_for(1_500)
        assert core.housekeeping.scrub.percent(60_000) > 0
        fill(made, leader, 1)
        core.checkpoint(lambda _: None)
        made.settle()
        again = Scrub(core, core.me.member_id, MemoryJournal(MemoryDisk()))
        stranger = Scrub(core, MemberId(99), MemoryJournal(MemoryDisk()))
        assert again.record()[2] != Scrub.record(stranger)[2]
        with core.store.snapshot() as reader:
            stored = reader.get("meta", scrub.SCRUB_KEY)
        assert again.record()[2] == stored
        assert (stranger.ended_wall_ns, stranger.percent(1)) == (0, 0)


def test_the_record_has_its_bytes() -> None:
    with cluster(size=1) as made:
        found = made.machines[MemberId(1)].core.housekeeping.scrub
        found._place, found.ended_wall_ns = Place(8, b"key"), 5
        golden = "01 0000000000000001 0000000000000005 01 0008 6b6579"
        assert found.record() == ("meta", b"scrub", bytes.fromhex(golden.replace(" ", "")))


def test_a_trim_between_the_look_at_the_anchor_and_the_read_is_not_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrub, "SLICE_BYTES", 1_000)
    disk = MemoryDisk()
    journal, store = MemoryJournal(disk), MemoryStore(disk)
    journal.commit([Append(tuple((b"\0" + bytes(899), index, 1) for index in range(2, 10)))])
    journal.commit([TrimTo(3, 1)])
    begin = Place(len(TABLES))
    place, total = read_slice(store.snapshot(), journal, begin, 1, 9)
    assert (place, total) == (begin, 0)
    while place is not None:
        place, size = read_slice(store.snapshot(), journal, place, 3, 9)
        total += size
    assert total == 6 * 900


def test_a_scrub_that_found_the_journal_trimmed_reads_it_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with cluster(size=1, options=FAST) as made:
        core = made.elect().core
        made.run_for(60_000)
        found, scrubs, asked = core.housekeeping.scrub, core.events.counts["scrubbed"], []
        read = found._journal.read

        def trimmed_once(first_index: int, *, count_max: int, bytes_max: int) -> list[Entry]:
            asked.append(core.events.counts["scrubbed"])
            return read(first_index, count_max=count_max, bytes_max=bytes_max) if len(asked) > 1 else []

        monkeypatch.setattr(found._journal, "read", trimmed_once)
        found.ended_wall_ns = 0
        made.run_for(60_000)
        assert asked[:2] == [scrubs, scrubs]
        assert core.events.counts["scrubbed"] == scrubs + 1


def scrub_all(store: LmdbStore, journal: LmdbJournal) -> int:
    place: Place | None = Place()
    total = 0
    while place is not None:
        place, size = read_slice(store.snapshot(), journal, place, 1, 1)
        total += size
    return total


def test_a_flipped_byte_in_a_real_store_is_found(tmp_path: Path) -> None:
    state, rng = State(), np.random.default_rng(5)
    for begin in range(0, 40_000, 1_000):
        times = list(range(begin, begin + 1_000))
        state.apply(write(times, rng.normal(size=1_000).tolist()))
    work = state.state.capture_checkpoint()
    store = LmdbStore.create(tmp_path, map_bytes=1 << 26)
    batch = work.batch(store.snapshot)
    store.commit(batch)
    store.commit(StoreBatch(position=batch.position))
    journal = LmdbJournal.create(tmp_path / "journal", map_bytes=1 << 26)
    assert scrub_all(store, journal) > 50_000
    store.close()
    (file,) = tmp_path.glob("store.*/data.mdb")
    content = bytearray(file.read_bytes())
    block = content.index(b"pco!")
    content[block + 1_500] ^= 0x10
    file.write_bytes(content)
    damaged = LmdbStore.open(tmp_path, map_bytes=1 << 26)
    with pytest.raises(CorruptData, match="checksum"):
        scrub_all(damaged, journal)
    damaged.close()
    journal.close()
