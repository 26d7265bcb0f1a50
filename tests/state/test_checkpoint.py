"""Checkpoints: exact while apply goes on, small when little changed; blocks and their bytes."""

from __future__ import annotations

import numpy as np
import pytest

from appliance import limits
from appliance.errors import CorruptData
from appliance.model import Position
from appliance.state import StateMachine, StateOptions
from appliance.state.layouts import decode_block
from appliance.state.operations import put_key
from appliance.state.series import TAIL_READINGS_MAX
from tests.state.fakes import Cluster, FakeReader, columns, write


def test_a_batch_holds_its_position_whatever_is_applied_before_it_is_encoded() -> None:
    node, still = Cluster(), Cluster()
    for target in (node, still):
        target.apply(write([1, 2], [1.0, 2.0], producer_id="p", sequence=1), put_key("k", b"1"))
    work = node.state.begin_checkpoint()
    node.apply(write([2, 3], [9.0, 9.0], producer_id="p", sequence=2), put_key("k", b"2"), put_key("l", b""))
    node.store.commit(work.batch())
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
    batch = node.state.begin_checkpoint().batch()
    assert [put[0] for put in batch.puts] == ["meta"]
    assert not list(batch.deletes)


def test_two_checkpoints_at_once_are_a_bug() -> None:
    state = StateMachine()
    state.begin_checkpoint()
    with pytest.raises(AssertionError):
        state.begin_checkpoint()


def test_a_packed_chunk_that_fills_a_block_is_stored_as_it_came() -> None:
    node = Cluster()
    count = limits.BLOCK_READINGS_TARGET
    node.apply(write([5_000_000], [1.0]))
    node.apply(write(list(range(count)), [0.5] * count))
    node.checkpoint()
    message = columns(list(range(count)), [0.5] * count)
    ((_, key),) = [name for name in node.store.tables if name[0] == "blocks"]
    block = decode_block(key, node.store.tables["blocks", key])
    assert (block.chunk.times, block.chunk.values) == (message.times, message.values)
    assert next(node.state.series("", "")).size_bytes == len(node.store.tables["blocks", key])


def test_blocks_are_bounded() -> None:
    node = Cluster()
    count = 3 * limits.BLOCK_READINGS_MAX
    node.apply(write(list(range(count)), [1.0] * count))
    node.apply(write(list(range(count, 2 * count)), [1.0] * count))
    before = node.hash()
    node.checkpoint()
    sizes = [
        decode_block(key, value).chunk.count
        for (table, key), value in node.store.tables.items()
        if table == "blocks"
    ]
    assert sum(sizes) == 2 * count
    assert max(sizes) <= limits.BLOCK_READINGS_MAX
    assert node.hash() == before


def test_single_readings_fill_blocks_and_the_head_stays_small() -> None:
    node = Cluster()
    total = 2 * limits.BLOCK_READINGS_TARGET + TAIL_READINGS_MAX + 5
    for begin in range(0, total, 50):
        node.apply(*(write([time], [float(time)]) for time in range(begin, min(begin + 50, total))))
    node.checkpoint()
    assert node.store.count("blocks") == 2
    assert len(next(value for (table, _), value in node.store.tables.items() if table == "heads")) < 1500
    before = node.hash()
    node.restart()
    assert node.hash() == before


def test_hash_is_blind_to_layout_and_sees_every_reading() -> None:
    one, other, different = Cluster(), Cluster(StateOptions(block_readings=7)), Cluster()
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


@pytest.mark.parametrize(("table", "what"), [("meta", "there is none"), ("heads", "has no head")])
def test_a_store_with_records_missing_is_refused(table: str, what: str) -> None:
    node = Cluster()
    node.apply(write([1], [1.0]))
    node.checkpoint()
    tables = {key: value for key, value in node.store.tables.items() if key[0] != table}
    with pytest.raises(CorruptData, match=what):
        StateMachine.restore(FakeReader(node.store.position, tables))
