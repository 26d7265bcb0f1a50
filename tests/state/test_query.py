"""Queries against the naive way, on random readings in random order."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import Overloaded
from appliance.state import Aggregation, QueryChunk, QuerySpec, StateOptions, aggregate, query, sweep
from appliance.state.aggregate import Aggregator, Result
from appliance.state.columns import Columns
from appliance.state.operations import delete_series
from appliance.state.series import Chunk
from raftberry.v1 import reading_pb2
from tests.state.fakes import Cluster, write

OPTIONS = StateOptions(page_bytes=64)
ALL = tuple(Aggregation)[1:]

Reading = tuple[int, float]


def run(node: Cluster, spec: QuerySpec) -> list[QueryChunk]:
    return list(node.state.prepare_query(spec, node.store.reader()).run())


def readings(chunks: list[QueryChunk], aggregation: Aggregation = Aggregation.RAW) -> list[Reading]:
    return [
        reading
        for chunk in chunks
        if chunk.aggregation is aggregation
        for reading in zip(chunk.times.tolist(), chunk.values.tolist(), strict=True)
    ]


def naive(values: list[Reading], aggregation: Aggregation, quantile: float) -> float | None:
    column = [value for _, value in values]
    if aggregation is Aggregation.RATE:
        (first_time, first), (last_time, last) = values[0], values[-1]
        return (last - first) / (last_time - first_time) * 1e9 if last_time > first_time else None
    if aggregation is Aggregation.PERCENTILE:
        return float(np.quantile(column, quantile))
    figures = {
        Aggregation.MIN: min(column),
        Aggregation.MAX: max(column),
        Aggregation.MEAN: statistics.fmean(column),
        Aggregation.SUM: math.fsum(column),
        Aggregation.COUNT: len(column),
        Aggregation.FIRST: column[0],
        Aggregation.LAST: column[-1],
        Aggregation.STDDEV: statistics.pstdev(column),
    }
    return figures[aggregation]


@st.composite
def filled(draw: st.DrawFn) -> tuple[Cluster, dict[int, float]]:
    node = Cluster(OPTIONS)
    content: dict[int, float] = {}
    value = st.one_of(st.integers(-100, 100).map(float), st.just(math.nan))
    for _ in range(draw(st.integers(1, 8))):
        times = draw(st.lists(st.integers(-60, 60), min_size=1, max_size=25))
        values = draw(st.lists(value, min_size=len(times), max_size=len(times)))
        node.apply(write(times, values))
        content.update(zip(times, values, strict=True))
        if draw(st.booleans()):
            node.checkpoint()
    return node, content


@settings(max_examples=80, deadline=None)
@given(
    filled(),
    st.one_of(st.none(), st.integers(-70, 70)),
    st.one_of(st.none(), st.integers(-70, 70)),
    st.sampled_from([0, 0, 1, 3]),
    st.booleans(),
    st.sampled_from([0, 1, 7, 50]),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
)
def test_every_query_agrees_with_the_naive_way(
    source: tuple[Cluster, dict[int, float]],
    start: int | None,
    end: int | None,
    limit: int,
    descending: bool,
    step: int,
    quantile: float,
) -> None:
    node, content = source
    inside = [
        (time, value)
        for time, value in sorted(content.items())
        if (start is None or time >= start) and (end is None or time < end)
    ]
    raw = run(node, QuerySpec("s", "m", start=start, end=end, limit=limit, descending=descending))
    expected = inside[::-1] if descending else inside
    assert repr(readings(raw)) == repr(expected[: limit or None])

    windows: dict[int, list[Reading]] = {}
    for time, value in inside:
        if not math.isnan(value):
            windows.setdefault(time // step if step else 0, []).append((time, value))
    spec = QuerySpec("s", "m", start, end, limit, descending, ALL, quantile, step)
    found = run(node, spec)
    for aggregation in ALL:
        results: list[Any] = []
        for window, members in sorted(windows.items(), reverse=descending):
            result = naive(members, aggregation, quantile)
            label = window * step if step else (members[0][0] if start is None else start)
            if result is not None:
                results.append((label, pytest.approx(result, abs=1e-9)))
        assert readings(found, aggregation) == results[: limit or None]


def test_aggregations_have_the_numbers_of_the_api() -> None:
    assert [reading_pb2.Aggregation.Name(number)[12:] for number in ALL] == [item.name for item in ALL]


def test_query_shows_its_position_while_writes_checkpoints_and_deletes_go_on() -> None:
    node = Cluster(OPTIONS)
    node.apply(write(list(range(100)), [1.0] * 100))
    node.checkpoint()
    node.apply(write([5, 200], [2.0, 2.0]))
    prepared = node.state.prepare_query(QuerySpec("", ""), node.store.reader())
    node.apply(write([5, 201], [3.0, 3.0]))
    node.apply(delete_series("s", "m"))
    node.checkpoint()
    found = readings(list(prepared.run()))
    assert prepared.position.index == 3
    assert len(found) == 101
    assert found[5] == (5, 2.0)
    assert found[-1] == (200, 2.0)
    assert prepared.reader.is_closed  # type: ignore[attr-defined]


def test_chunks_are_bounded_and_abandoned_queries_close_their_reader() -> None:
    node = Cluster()
    node.apply(write(list(range(50_000)), [float(n) for n in range(50_000)]))
    for descending in (False, True):
        chunks = run(node, QuerySpec("", "", descending=descending))
        assert max(len(chunk.times) for chunk in chunks) <= query.QUERY_CHUNK_READINGS
        assert len(readings(chunks)) == 50_000
    prepared = node.state.prepare_query(QuerySpec("", ""), node.store.reader())
    iterator = prepared.run()
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert prepared.reader.is_closed  # type: ignore[attr-defined]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(("aggregations", "step"), [((), 0), ((Aggregation.MEAN,), 0), (ALL, 7)])
@pytest.mark.parametrize("is_durable", [False, True])
def test_an_abandoned_query_ends_within_a_series(
    is_durable: bool,
    aggregations: tuple[Aggregation, ...],
    step: int,
    descending: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Cluster()
    for begin in range(0, 100_000, 5_000):
        node.apply(write(list(range(begin, begin + 5_000)), [float(n * n % 997) for n in range(5_000)]))
    if is_durable:
        node.checkpoint()
    spec = QuerySpec("", "", aggregations=aggregations, step_ns=step, descending=descending)
    prepared = node.state.prepare_query(spec, node.store.reader())
    decoded: list[Chunk] = []
    real = sweep.load_chunk

    def load(chunk: Chunk, *, integer: bool, where: str) -> Columns:
        decoded.append(chunk)
        if len(decoded) == 3:
            prepared.abandon()
        return real(chunk, integer=integer, where=where)

    monkeypatch.setattr(sweep, "load_chunk", load)
    assert sum(len(chunk.times) for chunk in prepared.run()) < 100_000
    assert len(decoded) == 3
    assert prepared.reader.is_closed  # type: ignore[attr-defined]


def test_an_abandoned_aggregate_ends_within_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Cluster()
    node.apply(write(list(range(50_000)), [1.0] * 50_000))
    prepared = node.state.prepare_query(
        QuerySpec("", "", aggregations=(Aggregation.MEAN,)), node.store.reader()
    )
    fed: list[int] = []
    real = Aggregator._feed

    def feed(self: Aggregator, piece: Columns) -> Iterator[Result]:
        fed.append(len(piece.times))
        prepared.abandon()
        return real(self, piece)

    monkeypatch.setattr(Aggregator, "_feed", feed)
    assert list(prepared.run()) == []
    assert fed == [query.QUERY_CHUNK_READINGS]
    assert prepared.reader.is_closed  # type: ignore[attr-defined]


def test_descending_over_crowds_and_deserts_is_complete() -> None:
    node = Cluster()
    crowd = list(range(150_000))
    node.apply(write(crowd, [0.0] * len(crowd)))
    node.apply(write([-(10**18), 10**15, 10**18], [1.0, 1.0, 1.0]))
    node.checkpoint()
    found = readings(run(node, QuerySpec("", "", descending=True)))
    assert [time for time, _ in found] == [10**18, 10**15, *reversed(crowd), -(10**18)]


def test_series_come_in_order_of_their_names_and_kinds_are_told() -> None:
    node = Cluster()
    node.apply(
        write([1], [1], "b", "y", integer=True), write([1], [1.5], "b", "x"), write([1], [1.5], "a", "z")
    )
    chunks = run(node, QuerySpec("*", ""))
    assert [(chunk.sensor, chunk.metric, chunk.integer) for chunk in chunks] == [
        ("a", "z", False), ("b", "x", False), ("b", "y", True),
    ]  # fmt: skip
    aggregated = run(node, QuerySpec("b", "y", aggregations=(Aggregation.MAX, Aggregation.MEAN)))
    assert [chunk.integer for chunk in aggregated] == [True, False]


def test_extreme_times_are_labelled_without_overflow() -> None:
    node = Cluster()
    edge = -(1 << 63)
    node.apply(write([edge, (1 << 63) - 1], [1.0, 2.0]))
    spec = QuerySpec("", "", aggregations=(Aggregation.COUNT, Aggregation.RATE), step_ns=1000)
    assert readings(run(node, spec), Aggregation.COUNT)[0] == (edge, 1)
    whole = QuerySpec("", "", aggregations=(Aggregation.RATE,))
    ((time, rate),) = readings(run(node, whole), Aggregation.RATE)
    assert time == edge
    assert rate == pytest.approx(1e9 / 2**64)


def integers(
    times: list[int], values: list[int], aggregation: Aggregation, step_ns: int = 0
) -> list[Reading]:
    node = Cluster()
    node.apply(write(times, values, integer=True))
    return readings(run(node, QuerySpec("", "", aggregations=(aggregation,), step_ns=step_ns)), aggregation)


def test_rate_of_large_integers_is_that_of_their_difference() -> None:
    second = 10**9
    rate = Aggregation.RATE
    assert integers([0, second], [2**60, 2**60 + 100], rate) == [(0, 100.0)]
    assert integers([0, second], [2**60 + 100, 2**60], rate) == [(0, -100.0)]
    assert integers([0, second], [-(2**63), 2**63 - 1], rate) == [(0, float(2**64 - 1))]
    assert integers([0, second], [2**63 - 1, -(2**63)], rate) == [(0, -float(2**64 - 1))]


def test_stddev_of_large_integers_is_that_of_their_differences() -> None:
    large = [2**60, 2**60 + 10] * 2
    assert integers([0, 1, 2, 3], large, Aggregation.STDDEV) == [(0, 5.0)]
    negative = [-(2**62), -(2**62) + 10] * 2
    times = list(range(8))
    assert integers(times, large + negative, Aggregation.STDDEV, step_ns=4) == [(0, 5.0), (4, 5.0)]
    extreme = [-(2**63), 2**63 - 1]
    assert integers([0, 1], extreme, Aggregation.STDDEV) == [(0, pytest.approx(2.0**63))]
    aggregator = aggregate.Aggregator((Aggregation.STDDEV,), step_ns=0, quantile=0.5, label=None)
    pieces = [Columns(np.arange(2 * part, 2 * part + 2), np.array(large[:2])) for part in range(3)]
    (result,) = aggregator.run(iter(pieces))
    assert result[Aggregation.STDDEV].values.tolist() == [5.0]


@pytest.mark.parametrize(
    ("values", "quantile", "expected"),
    [
        ([math.inf] * 4, 0.5, math.inf),
        ([-math.inf] * 4, 0.3, -math.inf),
        ([1.0] * 98 + [math.inf] * 2, 0.995, math.inf),
        ([1.0, math.inf], 0.5, math.inf),
        ([1.0, math.inf], 0.0, 1.0),
    ],
)
def test_percentile_of_infinities_is_a_number(values: list[float], quantile: float, expected: float) -> None:
    node = Cluster()
    node.apply(write(list(range(len(values))), values))
    spec = QuerySpec("", "", aggregations=(Aggregation.PERCENTILE,), quantile=quantile)
    assert readings(run(node, spec), Aggregation.PERCENTILE) == [(0, expected)]


def test_percentile_over_too_many_readings_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "PERCENTILE_READINGS_MAX", 10)
    pieces = [Columns(np.arange(11), np.arange(11.0))]
    aggregator = aggregate.Aggregator((Aggregation.PERCENTILE,), step_ns=0, quantile=0.5, label=None)
    with pytest.raises(Overloaded, match="ask for shorter windows"):
        list(aggregator.run(iter(pieces)))
