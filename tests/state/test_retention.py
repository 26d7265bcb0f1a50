"""Policies, what they drop, and how far series are rolled up."""

from __future__ import annotations

import random
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import errors
from appliance.model import Verdict
from appliance.state import Applied, QuerySpec, StateMachine, StateOptions, retention
from appliance.state.names import matcher
from appliance.state.retention import (
    Policy,
    PolicyTable,
    RollUp,
    delete_policy,
    drop_readings,
    encode_policy,
    mark_roll_ups,
    policy_of,
    roll_up_metric,
    rolled_from,
    set_policy,
    unrolled,
)
from appliance.state.series import NOTHING_WRITTEN
from raftberry.internal.v1 import command_pb2
from tests.state.fakes import Cluster, columns, write

MINUTE = 60 * 10**9
DAY = 1_440 * MINUTE
POLICY = Policy("greenhouse", "*", 90 * DAY, (RollUp(MINUTE, 730 * DAY),))


globs = st.text("ab*?[]!", min_size=1, max_size=5)
names = st.text("ab]!", min_size=1, max_size=5)


def only(applied: Applied) -> tuple[Verdict, str]:
    (result,) = applied.results
    return result.verdict, str(result.error or "")


def noise(count: int) -> list[float]:
    """Values that do not compress, so that they fill blocks."""
    return random.Random(count).choices([value / 7 for value in range(9_000)], k=count)


def times_of(node: Cluster, metric: str = "m", sensor: str = "s") -> list[int]:
    chunks = node.state.prepare_query(QuerySpec(sensor, metric), node.store.reader()).run()
    return [time for chunk in chunks for time in chunk.times.tolist()]


def rolled(node: Cluster, mark_index: int, rolled_to: int, means: dict[int, float]) -> command_pb2.Operation:
    made = (
        [columns(list(means), list(means.values()), "greenhouse", roll_up_metric("t", MINUTE, "mean"))]
        if means
        else []
    )
    return command_pb2.Operation(
        roll_up=command_pb2.RollUpReadings(
            sensor="greenhouse",
            metric="t",
            width_nano=MINUTE,
            mark_index=mark_index,
            rolled_to_unix_nano=rolled_to,
            columns=made,
        )
    )


def waiting_from(node: Cluster) -> int:
    series = node.state.find_series("greenhouse", "t")
    assert series is not None
    ((_, time),) = unrolled(series, POLICY)
    return time


def test_policies_have_their_bytes_and_come_back_after_a_crash() -> None:
    golden = (
        "01 0a0a 677265656e686f757365 1201 2a 18 808098aeb187e80d 2210 08 80b09dc2df01 10 808098dae5f48470"
    )
    encoded = encode_policy(POLICY)
    assert encoded.hex() == golden.replace(" ", "")
    assert policy_of(command_pb2.Policy.FromString(encoded[1:])) == POLICY
    node = Cluster()
    node.apply(set_policy(POLICY), set_policy(Policy("*", "*", DAY)))
    node.checkpoint()
    node.apply(delete_policy("*", "*"), set_policy(Policy("x", "*", DAY)))
    before = node.hash()
    node.restart()
    assert node.hash() == before
    node.checkpoint()
    node.restart()
    assert set(node.state.retention.policies.policies) == {("greenhouse", "*"), ("x", "*")}


def test_the_longest_pattern_decides_and_a_roll_up_goes_by_what_it_was_made_of() -> None:
    node = Cluster()
    node.apply(*map(set_policy, (Policy("*", "*", DAY), POLICY, Policy("green*", "*", 2 * DAY))))
    find = node.state.retention.policies.find
    assert find("greenhouse", "t") == POLICY
    assert find("green", "t") == Policy("green*", "*", 2 * DAY)
    assert find("cellar", "t") == Policy("*", "*", DAY)
    assert find("greenhouse", "t@1m.mean") == POLICY
    assert rolled_from("t@1m.mean") == ("t", MINUTE)
    assert rolled_from("t@noon") == ("t@noon", None)
    assert POLICY.keep_ns_of(MINUTE) == 730 * DAY
    node.apply(delete_policy("greenhouse", "*"))
    assert node.state.retention.policies.find("greenhouse", "t") == Policy("green*", "*", 2 * DAY)


@given(
    st.lists(st.tuples(globs, globs), max_size=12, unique=True),
    st.lists(st.tuples(names, names), min_size=1, max_size=8),
)
def test_the_policy_found_is_the_first_of_all_that_match(
    patterns: list[tuple[str, str]], sought: list[tuple[str, str]]
) -> None:
    table = PolicyTable()
    for pattern in patterns:
        table.set(Policy(*pattern, DAY))
    ranked = sorted(patterns, key=lambda one: (-len(one[0] + one[1]), one))
    for sensor, metric in sought:
        expected = next(
            (one for one in ranked if fnmatchcase(sensor, one[0]) and fnmatchcase(metric, one[1])), None
        )
        found = table.find(sensor, metric)
        assert (found and (found.sensor, found.metric)) == expected


def test_a_policy_is_sought_among_those_that_begin_as_the_name_does() -> None:
    table = PolicyTable()
    for number in range(100, 200):
        table.set(Policy(f"s{number}/*", "t*", DAY))
    table.set(Policy("*", "*", DAY))
    assert len(list(table._candidates("s150/x", "t"))) == 2


def test_each_policy_is_compiled_once_however_many_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []

    def counting(pattern: str) -> Callable[[str], object]:
        compiled.append(pattern)
        return matcher(pattern)

    monkeypatch.setattr(retention, "matcher", counting)
    table = PolicyTable()
    policies = [Policy(f"s{number}*", "*", DAY) for number in range(20)]
    for policy in policies:
        table.set(policy)
        assert table.find(f"{policy.sensor[:-1]}x", "t") == policy
    assert len(compiled) == 2 * len(policies)
    assert table.find("s1xyz", "t") == policies[1]
    table.set(Policy("s1xyz", "*", 2 * DAY))
    assert table.find("s1xyz", "t") == Policy("s1xyz", "*", 2 * DAY)
    table.set(Policy("s1xyz", "*", 3 * DAY))
    assert table.find("s1xyz", "t") == Policy("s1xyz", "*", 3 * DAY)
    table.delete("s1xyz", "*")
    assert table.find("s1xyz", "t") == policies[1]
    compiled.clear()
    loaded = PolicyTable()
    for key, value in table.records():
        loaded.load(key, value)
    assert len(compiled) == 2 * len(policies)
    assert loaded.find("s19y", "t") == policies[19]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy("", "*", DAY), "a policy names a glob"),
        (Policy("*", "*"), "neither ends readings nor rolls them up"),
        (Policy("*", "*", 1), "a minute to 292 years"),
        (Policy("*", "*", DAY, (RollUp(1, 0),)), "a second to 366 days"),
        (Policy("*", "*", MINUTE, (RollUp(2 * MINUTE, 0),)), "wider than the time"),
        (Policy("*", "*", DAY, tuple(RollUp(MINUTE * n, 0) for n in range(1, 6))), "at most 4"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy: Policy, words: str) -> None:
    verdict, message = only(Cluster().apply(set_policy(policy)))
    assert verdict is Verdict.REFUSED
    assert words in message


def test_dropped_readings_are_gone_at_once_and_leave_the_store_with_the_next_checkpoint() -> None:
    node = Cluster(StateOptions(page_bytes=256))
    values = noise(2_000)
    for begin in range(0, 2_000, 100):
        node.apply(write(list(range(begin, begin + 100)), values[begin : begin + 100]))
    node.checkpoint()
    assert node.store.count("blocks") > 5
    size = next(node.state.series("s", "m")).size_bytes
    node.apply(drop_readings([("s", "m", 1_500), ("s", "no such", 5)]))
    assert times_of(node) == list(range(1_500, 2_000))
    assert next(node.state.series("s", "m")).first_time == 1_500
    before = node.hash()
    node.checkpoint()
    assert node.hash() == before
    assert next(node.state.series("s", "m")).size_bytes < size / 2
    sizes = sum(len(value) for (table, _), value in node.store.tables.items() if table in ("blocks", "late"))
    assert next(node.state.series("s", "m")).size_bytes == sizes
    node.restart()
    assert node.hash() == before


def test_what_is_written_after_a_drop_stays_however_old_it_is() -> None:
    node = Cluster(StateOptions(page_bytes=128))
    node.apply(write(list(range(500)), noise(500)))
    node.checkpoint()
    assert node.store.count("blocks") > 0
    node.apply(drop_readings([("s", "m", 400)]))
    node.apply(write([7, 8], [2.0, 2.0]))
    assert times_of(node) == [7, 8, *range(400, 500)]
    node.checkpoint()
    node.restart()
    assert times_of(node) == [7, 8, *range(400, 500)]


def test_a_series_whose_last_reading_is_dropped_is_deleted() -> None:
    node = Cluster()
    node.apply(write([1, 2], [1.0, 2.0]), write([9], [1.0], "other"))
    node.apply(drop_readings([("s", "m", 3), ("other", "m", 9)]))
    assert [info.sensor for info in node.state.series("", "")] == ["other"]


def test_a_drop_that_comes_while_a_checkpoint_is_on_its_way_is_complete() -> None:
    node = Cluster(StateOptions(page_bytes=128))
    node.apply(write(list(range(1_000)), noise(1_000)))
    work = node.state.capture_checkpoint()
    node.apply(drop_readings([("s", "m", 900)]), write([5], [1.0]))
    expected = [5, *range(900, 1_000)]
    assert times_of(node) == expected
    node.store.commit(work.batch(node.store.reader))
    assert times_of(node) == expected
    node.state.checkpoint_done(work)
    assert times_of(node) == expected
    node.checkpoint()
    assert times_of(node) == expected
    node.restart()
    assert times_of(node) == expected


def test_windows_wait_from_the_first_reading_on_and_late_readings_open_them_again() -> None:
    node = Cluster()
    node.apply(set_policy(POLICY))
    node.apply(write([70 * 10**9, 130 * 10**9], [1.0, 2.0], "greenhouse", "t"))
    assert waiting_from(node) == MINUTE
    mark = node.apply(mark_roll_ups([("greenhouse", "t")])).index
    node.apply(write([65 * 10**9], [3.0], "greenhouse", "t"))
    assert (
        only(node.apply(rolled(node, mark, 3 * MINUTE, {MINUTE: 1.0, 2 * MINUTE: 2.0})))[0] is Verdict.APPLIED
    )
    assert waiting_from(node) == MINUTE, "the late reading came after the mark"
    assert times_of(node, "t@1m.mean", "greenhouse") == [MINUTE, 2 * MINUTE]
    again = node.apply(mark_roll_ups([("greenhouse", "t")])).index
    stale = only(node.apply(rolled(node, mark, 3 * MINUTE, {})))
    assert stale[0] is Verdict.REFUSED
    node.apply(rolled(node, again, 2 * MINUTE, {MINUTE: 2.0}))
    assert waiting_from(node) == 2 * MINUTE
    node.checkpoint()
    before = node.hash()
    node.restart()
    assert (node.hash(), waiting_from(node)) == (before, 2 * MINUTE)
    last = node.apply(mark_roll_ups([("greenhouse", "t")])).index
    node.apply(rolled(node, last, 3 * MINUTE, {2 * MINUTE: 2.0}))
    assert waiting_from(node) == NOTHING_WRITTEN


def test_a_reading_is_not_dropped_before_its_window_is_rolled_up() -> None:
    node = Cluster()
    node.apply(set_policy(POLICY))
    node.apply(write([n * MINUTE for n in range(10)], [1.0] * 10, "greenhouse", "t"))
    mark = node.apply(mark_roll_ups([("greenhouse", "t")])).index
    node.apply(rolled(node, mark, 5 * MINUTE, {0: 1.0}))
    node.apply(drop_readings([("greenhouse", "t", 8 * MINUTE)]))
    assert times_of(node, "t", "greenhouse")[0] == 5 * MINUTE


def test_a_window_that_was_dropped_in_part_is_not_computed_again_from_what_came_late() -> None:
    node = Cluster()
    node.apply(set_policy(POLICY))
    node.apply(write([n * MINUTE for n in range(10)], [1.0] * 10, "greenhouse", "t"))
    mark = node.apply(mark_roll_ups([("greenhouse", "t")])).index
    node.apply(rolled(node, mark, 9 * MINUTE, {0: 1.0}))
    node.apply(drop_readings([("greenhouse", "t", 5 * MINUTE + 1)]))
    node.apply(write([3 * MINUTE], [9.0], "greenhouse", "t"))
    assert waiting_from(node) == 6 * MINUTE


def test_roll_ups_that_find_no_room_are_refused_whole() -> None:
    node = Cluster(StateOptions(series_max=1))
    node.apply(set_policy(POLICY), write([1], [1.0], "greenhouse", "t"))
    mark = node.apply(mark_roll_ups([("greenhouse", "t")])).index
    (result,) = node.apply(rolled(node, mark, MINUTE, {0: 1.0})).results
    assert isinstance(result.error, errors.Overloaded)
    assert waiting_from(node) == 0


def test_the_policies_of_a_restored_state_are_its_own() -> None:
    node = Cluster()
    node.apply(set_policy(POLICY))
    node.checkpoint()
    restored = StateMachine.restore(node.store.reader())
    assert restored.retention.policies.find("greenhouse", "x") == POLICY
