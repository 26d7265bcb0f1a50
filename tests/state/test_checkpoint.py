"""Checkpoints: exact while apply goes on, small when little changed; blocks and their bytes."""

from __future__ import annotations

import numpy as np
import pytest

from appliance import limits
from appliance.errors import CorruptData
from appliance.model import Position
from appliance.state import StateMachine, StateOptions
from appliance.state.layouts import Block, decode_block
from appliance.state.operations import delete_series, put_key
from appliance.state.retention import drop_readings
from appliance.state.series_table import cost_bytes
from tests.state.fakes import Cluster, FakeReader, columns, write


def test_a_batch_holds_its_position_whatever_is_applied_before_it_is_encoded() -> None:
    node, still = Cluster(), Cluster()
    for target in (node, still):
        target.apply(write([1, 2], [1.0, 2.0], producer_id="p", sequence=1), put_key("k", b"1"))
    work = node.state.capture_checkpoint()
    node.apply(write([2, 3], [9.0, 9.0], producer_id="p", sequence=2), put_key("k", b"2"), put_key("l", b""))
    node.store.commit(work.batch(node.store.reader))
    restored = StateMachine.restore(node.store.reader())
    assert restored.position == work.position == Position(2, 1)
    assert restored.hash(node.store.reader()) == still.hash()
    live = node.hash()
    node.state.checkpoint_done(work)
    assert node.hash() == live
    node.restart()
    assert node.hash() == live


def test_nothing_changed_writes_nothing_but_the_position() -> None:
    node = Cluster()
    node.apply(write([1], [1.0]))
    node.checkpoint()
    assert node.state.checkpoint_cost() == 0
    batch = node.state.capture_checkpoint().batch(node.store.reader)
    assert [put[0] for put in batch.puts] == ["meta"]
    assert not list(batch.deletes)


def test_two_checkpoints_at_once_are_a_bug() -> None:
    state = StateMachine()
    state.capture_checkpoint()
    with pytest.raises(AssertionError):
        state.capture_checkpoint()


def blocks_of(node: Cluster) -> list[Block]:
    return [
        decode_block(key, value)
        for (table, key), value in sorted(node.store.tables.items())
        if table in ("blocks", "late")
    ]


def page_share(node: Cluster) -> float:
    """How much of the pages that LMDB gives them the blocks fill."""
    sizes = [
        len(value) + limits.BLOCK_RECORD_OVERHEAD
        for (table, _), value in node.store.tables.items()
        if table in ("blocks", "late")
    ]
    return sum(sizes) / sum(-(-size // limits.PAGE_BYTES) * limits.PAGE_BYTES for size in sizes)


def noisy(times: list[int]) -> list[float]:
    return np.round(np.random.default_rng(len(times)).normal(20, 3, len(times)), 2).tolist()


def test_large_chunks_are_stored_as_they_came_several_to_a_block() -> None:
    node = Cluster()
    messages = [list(range(begin, begin + 1_000)) for begin in range(0, 40_000, 1_000)]
    for times in messages:
        node.apply(write(times, noisy(times)))
    node.checkpoint()
    chunks = [chunk for block in blocks_of(node) for chunk in block.chunks]
    assert len(chunks) > 36
    assert all(chunk.count == 1_000 for chunk in chunks)
    first = columns(messages[0], noisy(messages[0]))
    assert (chunks[0].times, chunks[0].values) == (first.times, first.values)
    assert page_share(node) > 0.97
    sizes = sum(len(value) for (table, _), value in node.store.tables.items() if table == "blocks")
    assert next(node.state.series("", "")).size_bytes == sizes


def test_small_chunks_are_encoded_anew_and_fill_pages() -> None:
    node = Cluster()
    values = noisy(list(range(30_000)))
    for begin in range(0, 30_000, 50):
        node.apply(write(list(range(begin, begin + 50)), values[begin : begin + 50]))
    before = node.hash()
    node.checkpoint()
    assert node.hash() == before
    assert page_share(node) > 0.95
    assert len(blocks_of(node)) < 30_000 * 3 // 8_000 + 2
    node.restart()
    assert node.hash() == before


def test_blocks_are_bounded_where_readings_compress_to_nothing() -> None:
    node = Cluster()
    count = 3 * limits.BLOCK_READINGS_MAX
    node.apply(write(list(range(count)), [1.0] * count))
    node.apply(write(list(range(count, 2 * count)), [1.0] * count))
    before = node.hash()
    node.checkpoint()
    sizes = [chunk.count for block in blocks_of(node) for chunk in block.chunks]
    assert sum(sizes) == 2 * count
    assert max(sizes) <= limits.BLOCK_READINGS_MAX
    assert node.hash() == before


def test_single_readings_fill_blocks_and_the_rest_stays_head() -> None:
    node = Cluster(StateOptions(page_bytes=1024))
    total = 3_005
    for begin in range(0, total, 50):
        node.apply(*(write([time], [float(time)]) for time in range(begin, min(begin + 50, total))))
    node.checkpoint()
    assert sum(chunk.count for block in blocks_of(node) for chunk in block.chunks) < total
    assert len(next(value for (table, _), value in node.store.tables.items() if table == "heads")) < 2_100
    before = node.hash()
    node.restart()
    assert node.hash() == before


HOUR = 3_600 * 10**9


def test_a_backfill_beside_live_readings_rewrites_no_block_and_leaves_them_narrow() -> None:
    """A year of hours is filled in while a reading a second comes in: each block is written once."""
    node = Cluster(StateOptions(page_bytes=512))
    live, filled = 9_000 * HOUR, 0
    written: dict[bytes, int] = {}
    for _ in range(12):
        for _ in range(4):
            times = [filled + place * HOUR for place in range(150)]
            filled = times[-1] + HOUR
            node.apply(write(times, noisy(times)))
            now = [live + place * 10**9 for place in range(60)]
            live = now[-1] + 10**9
            node.apply(write(now, noisy(now)))
        node.checkpoint()
        for (table, key), value in node.store.tables.items():
            if table in ("blocks", "late"):
                assert written.setdefault(key, hash(value)) == hash(value)
    spans = [block.max_time - block.min_time for block in blocks_of(node)]
    assert len(spans) > 20
    assert max(spans) < 1_000 * HOUR
    before = node.hash()
    node.restart()
    assert node.hash() == before


def test_scattered_late_readings_do_not_widen_the_blocks_of_the_others() -> None:
    """Readings with the time of a clock that was not set lie years apart from the rest."""
    node = Cluster(StateOptions(page_bytes=512))
    rng = np.random.default_rng(3)
    for turn in range(60):
        now = [(10**6 + turn * 60 + place) * 10**9 for place in range(60)]
        late = [int(time) * 10**9 for time in rng.integers(0, 10**6, 12)]
        node.apply(write(now, noisy(now)), write(late, noisy(late)))
        if turn % 6 == 5:
            node.checkpoint()
    assert node.store.count("late") > 0
    (series,) = node.state._tables.series.by_name.values()
    assert series.span_max < 3_600 * 10**9
    before = node.hash()
    node.restart()
    assert node.hash() == before


def test_hash_is_blind_to_layout_and_sees_every_reading() -> None:
    one, other, different = Cluster(), Cluster(StateOptions(page_bytes=64)), Cluster()
    for node in (one, other, different):
        node.apply(write(list(range(40)), [1.0] * 40))
        node.apply(write([3, 4], [2.0, float("nan")]))
    other.checkpoint()
    other.apply()
    one.apply()
    different.apply(write([3], [2.5]))
    assert one.hash() == other.hash() != different.hash()


def test_cost_follows_what_changed() -> None:
    node = Cluster()
    node.apply(*(write(list(range(500)), list(np.arange(500.0)), f"s{number}") for number in range(10)))
    full = node.state.checkpoint_cost()
    node.checkpoint()
    node.apply(write([1000], [1.0], "s1"))
    assert full > node.state.checkpoint_cost() * 5 > 0


def test_cost_is_that_of_the_series_that_changed_though_it_is_summed_up_as_they_do() -> None:
    node = Cluster(StateOptions(page_bytes=1024))
    rng = np.random.default_rng(5)
    table = node.state._tables.series
    for turn in range(400):
        name = f"s{rng.integers(6)}"
        count = int(rng.choice([1, 1, 1, 40, 200, 600]))
        times = list(range(turn * 1_000, turn * 1_000 + count))
        node.apply(write(times, rng.normal(size=count).tolist(), name))
        if turn % 40 == 20:
            node.apply(drop_readings([(name, "m", turn * 900)]))
        if turn % 90 == 80:
            node.apply(delete_series(name, "m"))
        if turn % 50 == 30:
            work = node.state.capture_checkpoint()
            node.apply(write(times, rng.normal(size=count).tolist(), name))
            node.store.commit(work.batch(node.store.reader))
            node.state.checkpoint_done(work)
        exact = sum(map(cost_bytes, table.dirty))
        assert exact * 0.5 <= node.state.checkpoint_cost() <= exact * 2
    node.checkpoint()
    assert node.state.checkpoint_cost() == 0


@pytest.mark.parametrize(("table", "what"), [("meta", "there is none"), ("heads", "has no head")])
def test_a_store_with_records_missing_is_refused(table: str, what: str) -> None:
    node = Cluster()
    node.apply(write([1], [1.0]))
    node.checkpoint()
    tables = {key: value for key, value in node.store.tables.items() if key[0] != table}
    with pytest.raises(CorruptData, match=what):
        StateMachine.restore(FakeReader(node.store.position, tables))
