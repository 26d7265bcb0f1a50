"""Which readings a full store gives up first."""

from __future__ import annotations

import random

import pytest

from appliance.state import StateOptions, oldest
from appliance.state.oldest import Oldest, SeriesBytes, choose_oldest, spans_of
from appliance.state.operations import delete_series
from appliance.state.retention import Policy, RollUp, drop_readings, set_policy
from tests.state.fakes import Cluster, write

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
YEAR = 366 * 86_400 * SECOND
HOUR = 3_600 * SECOND


def filled(*, outlier: int | None = None, sensors: int = 3, readings: int = 4_000) -> Cluster:
    """A reading a second until NOW, of values that fill blocks."""
    node = Cluster(StateOptions(page_bytes=256))
    rng = random.Random(1)
    for sensor in range(sensors):
        if outlier is not None:
            node.apply(write([outlier], [1.0], f"s{sensor}"))
        for begin in range(0, readings, 100):
            times = [NOW - (readings - begin - place) * SECOND for place in range(100)]
            node.apply(write(times, [rng.random() for _ in times], f"s{sensor}"))
            if begin % 1_000 == 0:
                node.checkpoint()
    node.checkpoint()
    return node


def survey(node: Cluster) -> list[SeriesBytes]:
    moment = node.state.begin_survey()
    moment.capture_all()
    return list(moment.results())


def time_to_free(node: Cluster, share: float = 0.05) -> int | None:
    return spans_of(survey(node), node.store.reader(), now=NOW).time_of(share)


def choose(node: Cluster) -> Oldest:
    return choose_oldest(survey(node), node.store.reader(), share=0.05, now=NOW)


@pytest.mark.parametrize("outlier", [None, 5, NOW + YEAR, -YEAR], ids=["none", "1970", "ahead", "1969"])
def test_one_reading_of_a_wrong_clock_does_not_move_the_time(outlier: int | None) -> None:
    before = time_to_free(filled(outlier=outlier))
    assert before is not None
    assert NOW - 3_950 * SECOND < before < NOW - 3_600 * SECOND, "5% of 4,000 seconds, to about a block"


def test_readings_that_were_written_twice_count_where_they_lie() -> None:
    node = filled()
    for begin in range(0, 4_000, 100):
        times = [NOW - (4_000 - begin - place) * SECOND for place in range(100)]
        node.apply(write(times, [place / 7 for place in times], "s0"))
        if begin % 1_000 == 0:
            node.checkpoint()
    node.checkpoint()
    for _ in range(3):
        size_bytes = sum(one.size_bytes for one in survey(node))
        before = time_to_free(node, 0.1)
        assert before is not None
        node.apply(drop_readings([(one.sensor, one.metric, before) for one in survey(node)]))
        node.checkpoint()
        freed = 1 - sum(one.size_bytes for one in survey(node)) / size_bytes
        assert 0.07 < freed < 0.13


@pytest.mark.parametrize("outlier", [None, NOW + YEAR])
def test_series_without_a_block_go_by_their_heads(outlier: int | None) -> None:
    node = filled(outlier=outlier, readings=100, sensors=20)
    assert node.store.count("blocks") == 0 or outlier is None
    before = time_to_free(node)
    assert before is not None
    assert NOW - 100 * SECOND < before < NOW - 80 * SECOND


def test_what_waits_to_be_rolled_up_is_neither_counted_nor_dropped() -> None:
    node = filled()
    assert choose(node).waiting_bytes == 0
    total_bytes = sum(one.size_bytes for one in survey(node))
    node.apply(set_policy(Policy("s0", "*", 0, (RollUp(HOUR, 0),))))
    assert [sensor for sensor, _, _ in choose(node).drops] == ["s1", "s2"]
    assert choose(node).waiting_bytes == pytest.approx(total_bytes / 3, rel=0.05)
    node.apply(set_policy(Policy("*", "*", 0, (RollUp(HOUR, 0),))))
    assert choose(node) == Oldest(0, [], 0, 0, total_bytes)


def test_readings_that_are_all_ahead_of_the_clock_can_go() -> None:
    node = filled()
    found = spans_of(survey(node), node.store.reader(), now=5).time_of(0.05)
    assert found is not None
    assert found < NOW - 3_600 * SECOND


def test_a_large_store_is_looked_at_in_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    node = filled()
    whole = time_to_free(node, 0.5)
    monkeypatch.setattr(oldest, "SAMPLES_MAX", 20)
    sampled = time_to_free(node, 0.5)
    assert whole is not None
    assert sampled is not None
    assert abs(whole - sampled) < 400 * SECOND


def test_a_deleted_series_does_not_count_and_the_reader_is_closed() -> None:
    node = filled()
    node.apply(delete_series("*", "*"))
    reader = node.store.reader()
    assert choose_oldest(survey(node), reader, share=0.05, now=NOW) == Oldest(0, [], 0, 0, 0)
    assert reader.is_closed


def test_what_goes_are_the_series_that_hold_something_older_which_may_go() -> None:
    node = filled(sensors=2)
    node.apply(write([NOW - SECOND], [1.0], "young"))
    node.apply(write([NOW - YEAR], [1.0], "old"))
    node.apply(write([NOW - YEAR], [1.0], "kept"))
    found = survey(node)
    place = next(place for place, one in enumerate(found) if one.sensor == "kept")
    found[place] = found[place]._replace(droppable_before=NOW - YEAR)
    chosen = choose_oldest(iter(found), node.store.reader(), share=0.05, now=NOW)
    assert chosen.drops == [(sensor, "m", chosen.before) for sensor in ("s0", "s1", "old")]
    whole = sum(one.size_bytes for one in found if one.sensor == "old")
    assert chosen.size_bytes == whole > 0
