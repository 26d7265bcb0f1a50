"""What a head keeps is bounded, however its readings came; blocks that bursts share are found as fast as others."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.state import QuerySpec, StateOptions
from appliance.state.blocks import (
    AS_IS_CHUNKS_MAX,
    AS_IS_READINGS_MIN,
    KEPT_BLOCKS_MAX,
    KEPT_CHUNKS_MAX,
    BlockBuilder,
    block_target,
)
from appliance.state.columns import CODEC_PCODEC
from appliance.state.layouts import HeadFigures, encode_head
from appliance.state.series import NOTHING_DROPPED, NOTHING_WRITTEN, Chunk, Series
from tests.state.fakes import Cluster, write

PAGE_BYTES = 512
SECOND = 10**9
HOUR = 3_600 * SECOND


def burst(begin: int, count: int) -> list[int]:
    return list(range(begin, begin + count * 10**6, 10**6))


def noisy(times: list[int]) -> list[float]:
    return np.round(np.random.default_rng(times[0] % 2**32).normal(20, 3, len(times)), 1).tolist()


def the_series(node: Cluster) -> Series:
    (series,) = node.state._tables.series.by_name.values()
    return series


def read_count(node: Cluster) -> int:
    query = node.state.prepare_query(QuerySpec("s", "m"), node.store.reader())
    return sum(len(chunk.times) for chunk in query.run())


@pytest.mark.parametrize("count", [AS_IS_READINGS_MIN - 1, AS_IS_READINGS_MIN, AS_IS_READINGS_MIN + 1])
def test_bursts_with_long_gaps_become_blocks(count: int) -> None:
    node = Cluster(StateOptions(page_bytes=PAGE_BYTES))
    for number in range(120):
        times = burst(number * HOUR, count)
        node.apply(write(times, noisy(times)))
        if number % 10 == 9:
            node.checkpoint()
    series = the_series(node)
    assert series.next_sequence > 1
    assert series.head_bytes < (KEPT_BLOCKS_MAX + 3) * block_target(PAGE_BYTES)
    assert read_count(node) == 120 * count
    before = node.hash()
    node.restart()
    assert node.hash() == before


def test_blocks_of_regular_bursts_are_no_late_ones_and_those_of_scattered_bursts_are() -> None:
    node = Cluster(StateOptions(page_bytes=PAGE_BYTES))
    for number in range(120):
        times = burst(1_000 * HOUR + number * HOUR, 600)
        node.apply(write(times, noisy(times)))
        if number % 10 == 9:
            node.checkpoint()
    assert node.store.count("blocks") > 5
    assert node.store.count("late") == 0
    assert the_series(node).span_max < 24 * HOUR
    for number in range(10):
        times = burst(number * 30 * HOUR, 600)
        node.apply(write(times, noisy(times)))
        node.checkpoint()
    assert node.store.count("late") > 0
    assert the_series(node).span_max < 100 * HOUR, "a search looks at some blocks in vain"
    assert read_count(node) == 130 * 600


def test_a_head_of_more_chunks_than_its_record_can_count_is_made_into_blocks() -> None:
    count = 1 << 16
    head = [chunk_of(number, size_bytes=40) for number in range(count)]
    built = builder_of(head).build(head)
    assert len(built.kept) <= KEPT_CHUNKS_MAX
    stored = [chunk for block in (*built.blocks, *built.late) for chunk in block.chunks]
    kept_and_stored = sorted([*stored, *built.kept], key=lambda chunk: chunk.min_time)
    assert kept_and_stored == head
    assert len(encode_head(figures_of(head), built.kept)) < 4 * block_target(4096)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_head_keeps_so_many_chunks_however_small(beyond: int) -> None:
    head = [chunk_of(number, size_bytes=2) for number in range(KEPT_CHUNKS_MAX + beyond)]
    built = builder_of(head).build(head)
    if beyond > 0:
        assert len(built.kept) < 2 * AS_IS_CHUNKS_MAX
        assert built.blocks
    else:
        assert built.kept == head


def test_many_small_chunks_fill_a_head_before_its_bytes_do() -> None:
    node = Cluster()
    node.apply(write([0], [1.0]))
    series = the_series(node)
    for number in range(KEPT_CHUNKS_MAX + 1):
        times = burst(number * HOUR, 64)
        node.apply(write(times, [1.0] * 64))
    assert len(series.chunks) > KEPT_CHUNKS_MAX
    before = node.hash()
    node.checkpoint()
    assert len(series.chunks) <= KEPT_CHUNKS_MAX
    assert node.hash() == before


def chunk_of(number: int, *, size_bytes: int) -> Chunk:
    """A burst, an hour after the one before."""
    half = bytes(size_bytes // 2)
    begin = number * HOUR
    return Chunk(CODEC_PCODEC, AS_IS_READINGS_MIN, half, half, begin, begin + SECOND)


def figures_of(head: list[Chunk]) -> HeadFigures:
    return HeadFigures(
        reading_count=sum(chunk.count for chunk in head),
        first_time=head[0].min_time,
        last_time=head[-1].max_time,
        last_value=0.0,
        size_bytes=0,
        next_sequence=0,
        span_max=0,
        integer=False,
        written_from=NOTHING_WRITTEN,
        dropped_before=NOTHING_DROPPED,
        roll_up=None,
    )


def builder_of(head: list[Chunk]) -> BlockBuilder:
    return BlockBuilder(1, figures_of(head), page_bytes=4096)
