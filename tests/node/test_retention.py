"""The leader drops, rolls up and makes room; every node follows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from appliance.cli.policy import split_globs
from appliance.errors import Overloaded
from appliance.limits import MIB
from appliance.node import log_sizes, refusals, retention, rolling
from appliance.node.clocks import SECOND_NS
from appliance.node.options import DROP_OLDEST, REFUSE, NodeOptions
from appliance.node.report import _alarms
from appliance.node.retention import ROLL_UP_DELAY_NS
from appliance.state import QuerySpec, StateOptions, oldest
from appliance.state.emptied import Windows
from appliance.state.operations import (
    decode_columns,
    delete_key,
    delete_series,
    encode_columns,
    put_key,
    write_readings,
)
from appliance.state.retention import Policy, Retention, RollUp, delete_policy, set_policy
from raftberry.internal.v1 import command_pb2
from tests.node.harness import Cluster, Machine, cluster

HOUR_NS = 3_600 * SECOND_NS
OPTIONS = NodeOptions(retention_interval_ns=SECOND_NS)
QUOTA = NodeOptions(
    store_bytes_max=MIB,
    when_full=DROP_OLDEST,
    checkpoint_bytes_min=30_000,
    watch_keep_bytes=0,
    journal_bytes_max=100_000,
)


def write(
    times: list[int], values: list[float], sensor: str = "greenhouse", metric: str = "t"
) -> command_pb2.Operation:
    columns = encode_columns(sensor, metric, np.array(times, np.int64), np.array(values), integer=False)
    return write_readings([columns])


def submit(made: Cluster, machine: Machine, *operations: command_pb2.Operation) -> None:
    for operation in operations:
        done: list[object] = []
        machine.core.submit(operation, made.clock.now_ns + 10**10, done.append)
        made.run_for(30)
        assert done


def times_of(machine: Machine, metric: str, sensor: str = "greenhouse") -> list[int]:
    prepared = machine.core.state.prepare_query(QuerySpec(sensor, metric), machine.core.store.snapshot())
    return [time for chunk in prepared.run() for time in chunk.times.tolist()]


def values_of(machine: Machine, metric: str) -> dict[int, float]:
    spec = QuerySpec("greenhouse", metric)
    prepared = machine.core.state.prepare_query(spec, machine.core.store.snapshot())
    return {
        time: value
        for chunk in prepared.run()
        for time, value in zip(chunk.times.tolist(), chunk.values.tolist(), strict=True)
    }


def hours_rolled_up(made: Cluster, leader: Machine, count: int, *, since: int) -> list[int]:
    """Times of so many readings of 1.0, an hour apart from so many hours ago, each of which made a window."""
    times = [made.clock.wall_ns() - HOUR_NS * since + place * HOUR_NS for place in range(count)]
    policy = Policy("*", "*", 0, (RollUp(HOUR_NS, 0),))
    submit(made, leader, set_policy(policy), write(times, [1.0] * count))
    made.run_for(5_000)
    return times


def run_until_clocks_are_known(made: Cluster) -> None:
    made.run_for(11_000)


def test_all_nodes_roll_up_and_drop_the_same_and_then_write_nothing() -> None:
    with cluster(options=OPTIONS) as made:
        leader = made.elect()
        now = made.clock.wall_ns()
        step = 600 * SECOND_NS
        old = [now - HOUR_NS * 30 + place * step for place in range(180)]
        policy = Policy("greenhouse", "*", 10 * HOUR_NS, (RollUp(HOUR_NS, 1000 * HOUR_NS),))
        submit(made, leader, set_policy(policy), write(old, [float(place) for place in range(180)]))
        run_until_clocks_are_known(made)
        made.run_for(5_000)
        for machine in made.machines.values():
            kept = times_of(machine, "t")
            assert now - 11 * HOUR_NS < kept[0] <= now - 9 * HOUR_NS
            assert kept == old[len(old) - len(kept) :]
            windows = {time // HOUR_NS * HOUR_NS for time in old}
            assert times_of(machine, "t@1h.mean") == sorted(
                start for start in windows if start + HOUR_NS + ROLL_UP_DELAY_NS < now
            )
            assert len(times_of(machine, "t@1h.count")) == len(times_of(machine, "t@1h.mean"))
        hashes = {
            machine.core.state.hash(machine.core.store.snapshot()) for machine in made.machines.values()
        }
        assert len(hashes) == 1
        index = leader.core.state.position.index
        made.run_for(10_000)
        assert leader.core.state.position.index == index


def test_more_windows_than_a_round_computes_follow_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "WINDOWS_MAX", 7)
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        now = made.clock.wall_ns()
        old = [now - HOUR_NS * 50 + place * HOUR_NS for place in range(48)]
        submit(made, leader, set_policy(Policy("*", "*", 0, (RollUp(HOUR_NS, 0),))), write(old, [1.0] * 48))
        made.run_for(5_000)
        assert len(times_of(leader, "t@1h.mean")) == 48


class _Written:
    """Windows of the means in what each round of roll-ups wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rounds: list[int] = []
        monkeypatch.setattr(retention, "compute", self._compute)

    def _compute(self, *round_: Any) -> list[command_pb2.Operation]:
        operations = rolling.compute(*round_)
        for one in operations:
            means = [columns for columns in one.roll_up.columns if columns.metric.endswith(".mean")]
            self.rounds.append(sum(len(decode_columns(columns).times) for columns in means))
        return operations


def test_a_late_reading_has_only_its_own_window_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "WINDOWS_MAX", 7)
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        old = hours_rolled_up(made, leader, 40, since=50)
        written = _Written(monkeypatch)
        submit(made, leader, write([old[2] + 1, old[30] + 1], [3.0, math.nan]))
        made.run_for(5_000)
        assert written.rounds == [1]
        assert values_of(leader, "t@1h.mean")[old[2] // HOUR_NS * HOUR_NS] == 2.0
        assert len(times_of(leader, "t@1h.mean")) == 40


def test_a_round_that_looks_at_more_windows_than_it_may_goes_on_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rolling, "WINDOWS_READ_MAX", 10)
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        old = hours_rolled_up(made, leader, 40, since=50)
        written = _Written(monkeypatch)
        submit(made, leader, write([old[0], old[39]], [3.0, 3.0]))
        made.run_for(5_000)
        assert written.rounds == [1, 0, 0, 1]
        assert [value for value in values_of(leader, "t@1h.mean").values() if value == 3.0] == [3.0] * 2


def test_windows_that_the_roll_up_does_not_keep_are_not_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        old = [made.clock.wall_ns() - HOUR_NS * 500 + place * HOUR_NS for place in range(498)]
        policy = Policy("*", "*", 0, (RollUp(HOUR_NS, 24 * HOUR_NS),))
        submit(made, leader, set_policy(policy), write(old, [1.0] * 498))
        run_until_clocks_are_known(made)
        made.run_for(5_000)
        kept = times_of(leader, "t@1h.mean")
        assert 20 < len(kept) <= 25
        written = _Written(monkeypatch)
        for late in range(1, 4):
            submit(made, leader, write([old[1] + late, old[490] + late], [3.0, 3.0 + late]))
            made.run_for(5_000)
        assert written.rounds == [1, 1, 1]
        assert times_of(leader, "t@1h.mean") == kept
        index = leader.core.state.position.index
        made.run_for(10_000)
        assert leader.core.state.position.index == index


def test_a_round_looks_at_so_many_windows_also_where_all_were_emptied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rolling, "WINDOWS_READ_MAX", 10)
    monkeypatch.setattr(rolling, "WINDOWS_MAX", 5)
    looked_at: list[int] = []
    changed_windows = rolling.changed_windows

    def changed(computed: Windows, *others: Any) -> Any:
        looked_at.append(max((len(columns.times) for columns in computed.values()), default=0))
        return changed_windows(computed, *others)

    monkeypatch.setattr(rolling, "changed_windows", changed)
    with cluster(size=1, options=replace(OPTIONS, checkpoint_bytes_min=10)) as made:
        leader = made.elect()
        old = [made.clock.wall_ns() - HOUR_NS * 1_500 + place * HOUR_NS for place in range(1_400)]
        submit(
            made, leader, set_policy(Policy("*", "*", 0, (RollUp(HOUR_NS, 0),))), write(old, [1.0] * 1_400)
        )
        made.run_for(60_000)
        looked_at.clear()
        submit(made, leader, write(old, [math.nan] * 1_400))
        made.run_for(60_000)
        assert set(values_of(leader, "t@1h.count").values()) == {0}
        assert max(looked_at) < 700, "a piece of the store at most, and what it is read with"


def test_a_window_whose_values_were_all_corrected_to_nan_counts_nothing() -> None:
    minute = 60 * SECOND_NS
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        start = (made.clock.wall_ns() // minute - 20) * minute
        windows = [start, start + minute, start + 2 * minute]
        submit(made, leader, set_policy(Policy("*", "*", 0, (RollUp(minute, 0),))))
        submit(made, leader, write(windows, [85.0, 20.0, math.nan]))
        made.run_for(5_000)
        assert values_of(leader, "t@1m.mean") == {windows[0]: 85.0, windows[1]: 20.0}
        submit(made, leader, write(windows[:1], [math.nan]))
        made.run_for(5_000)
        counts = values_of(leader, "t@1m.count")
        assert counts == {windows[0]: 0, windows[1]: 1}, "a window that never had a value is not written"
        for figure in ("mean", "min", "max"):
            values = values_of(leader, f"t@1m.{figure}")
            assert math.isnan(values.pop(windows[0]))
            assert values == {windows[1]: 20.0}
        submit(made, leader, write(windows[:1], [21.0]))
        made.run_for(5_000)
        assert values_of(leader, "t@1m.mean") == {windows[0]: 21.0, windows[1]: 20.0}
        assert values_of(leader, "t@1m.count") == {windows[0]: 1, windows[1]: 1}


def test_all_windows_of_a_round_may_have_been_emptied_and_more_than_one_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rolling, "WINDOWS_MAX", 7)
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        old = hours_rolled_up(made, leader, 40, since=50)
        submit(made, leader, write(old, [math.nan] * 40))
        made.run_for(5_000)
        assert list(values_of(leader, "t@1h.count").values()) == [0] * 40
        index = leader.core.state.position.index
        made.run_for(5_000)
        assert leader.core.state.position.index == index


def test_roll_ups_of_readings_that_are_gone_stay_when_older_ones_come_late() -> None:
    """The series was deleted, its roll-ups were not: what has no readings any more is not empty."""
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        old = hours_rolled_up(made, leader, 20, since=50)
        submit(made, leader, delete_series("greenhouse", "t"), write([old[0] - HOUR_NS, old[19]], [2.0, 2.0]))
        made.run_for(5_000)
        assert list(values_of(leader, "t@1h.mean").values()) == [2.0, *[1.0] * 19, 2.0]


@pytest.mark.parametrize("widths", [(HOUR_NS,), (HOUR_NS // 60, HOUR_NS, 24 * HOUR_NS)])
def test_a_late_reading_of_a_series_that_retention_took_leaves_its_roll_ups(widths: tuple[int, ...]) -> None:
    with cluster(size=3, options=OPTIONS) as made:
        leader = made.elect()
        began = (made.clock.wall_ns() - 300 * HOUR_NS) // (24 * HOUR_NS) * 24 * HOUR_NS
        times = [began + place * 30 * SECOND_NS for place in range(100)]
        roll_ups = tuple(RollUp(width, 0) for width in widths)
        submit(made, leader, set_policy(Policy("greenhouse", "*", 30 * HOUR_NS, roll_ups)))
        submit(made, leader, write(times, [20.0] * 100))
        run_until_clocks_are_known(made)
        made.run_for(5_000)
        assert leader.core.state.find_series("greenhouse", "t") is None
        figures = [metric for _, metric in leader.core.state.series_names()]
        before = {metric: values_of(leader, metric) for metric in figures}
        assert sum(before["t@1h.count"].values()) == 100
        for late in (40 * SECOND_NS, 10 * SECOND_NS):
            submit(made, leader, write([began + late], [-5.0]))
            made.run_for(3_000)
            assert {metric: values_of(leader, metric) for metric in figures} == before
        made.run_for(5_000)
        assert leader.core.state.find_series("greenhouse", "t") is None, "it goes as the others did"
        fresh = made.clock.wall_ns() - 3 * HOUR_NS
        submit(made, leader, write([fresh], [7.0]))
        made.run_for(5_000)
        assert values_of(leader, "t@1h.mean")[fresh // HOUR_NS * HOUR_NS] == 7.0
        hashes = {
            machine.core.state.hash(machine.core.store.snapshot()) for machine in made.machines.values()
        }
        assert len(hashes) == 1


def test_retention_is_held_and_says_so_while_a_clock_is_in_doubt() -> None:
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        old = [made.clock.wall_ns() - 100 * HOUR_NS, made.clock.wall_ns()]
        submit(made, leader, write(old, [1.0, 2.0]))
        clocks = leader.core.housekeeping.clocks
        clocks._jumped_ns = made.clock.now_ns
        submit(made, leader, set_policy(Policy("*", "*", HOUR_NS)))
        made.run_for(5_000)
        assert times_of(leader, "t") == old
        alarms = _alarms(leader.core, _Serving())
        assert any("retention is held: this node's clock jumped" in alarm for alarm in alarms)
        clocks._jumped_ns = None
        made.run_for(5_000)
        assert times_of(leader, "t") == old[1:]


class _Serving:
    started_ns = 0

    def is_serving(self) -> bool:
        return True


def test_a_full_store_drops_the_oldest_readings_of_all_series_before_writes_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_sizes, "MARK_BYTES", 10_000)
    with cluster(size=1, options=QUOTA) as made:
        leader = made.elect()
        rng = np.random.default_rng(1)
        for turn in range(140):
            times = [1_000_000 * turn + place * 1_000 for place in range(1_000)]
            submit(made, leader, write(times, rng.normal(size=1_000).tolist(), f"s{turn % 3}"))
        made.run_for(2_000)
        assert leader.core.housekeeping.space.refusal() == ""
        firsts = [info.first_time for info in leader.core.state.series("", "")]
        assert all(first is not None and first > 10_000_000 for first in firsts)
        assert max(firsts) - min(firsts) < 5_000_000, "one time for all series"
        assert times_of(leader, "t", "s1")[-1] == 1_000_000 * 139 + 999_000


@pytest.mark.parametrize("outlier_ns", [365 * 24 * HOUR_NS, -50 * 365 * 24 * HOUR_NS], ids=["ahead", "1976"])
def test_a_full_store_gives_up_little_at_a_time_whatever_one_wrong_clock_said(
    outlier_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sizes, "MARK_BYTES", 10_000)
    with cluster(size=1, options=QUOTA) as made:
        leader = made.elect()
        events = leader.core.events
        rng = np.random.default_rng(1)
        base = made.clock.wall_ns() - 2 * HOUR_NS
        for sensor in range(3):
            submit(made, leader, write([base + outlier_ns], [1.0], f"s{sensor}"))
        fewest, rounds = 140_000, 0
        for turn in range(140):
            times = [base + SECOND_NS * 40 * turn + place * 40_000_000 for place in range(1_000)]
            count = events.count
            submit(made, leader, write(times, rng.normal(size=1_000).tolist(), f"s{turn % 3}"))
            dropped = sum(event.kind == "dropped_oldest" for event in events.since(count))
            assert dropped <= 3, "each round frees something"
            rounds += dropped
            if dropped:
                fewest = min(fewest, sum(len(times_of(leader, "t", f"s{sensor}")) for sensor in range(3)))
        assert rounds > 1
        assert fewest > 80_000


def fill(made: Cluster, leader: Machine, turns: int = 140) -> None:
    rng = np.random.default_rng(1)
    base = made.clock.wall_ns() - 2 * HOUR_NS
    for turn in range(turns):
        times = [base + SECOND_NS * 40 * turn + place * 40_000_000 for place in range(1_000)]
        submit(made, leader, write(times, rng.normal(size=1_000).tolist(), f"s{turn % 3}"))


def test_a_full_store_that_waits_for_roll_ups_writes_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_sizes, "MARK_BYTES", 10_000)
    with cluster(size=1, options=QUOTA) as made:
        leader = made.elect()
        submit(made, leader, set_policy(Policy("*", "*", 0, (RollUp(30 * 24 * HOUR_NS, 0),))))
        with pytest.raises(Overloaded, match="no reading may be dropped before it is rolled up"):
            fill(made, leader)
        made.run_for(60_000)
        index, count = leader.core.state.position.index, leader.core.events.count
        made.run_for(60_000)
        assert (leader.core.state.position.index, leader.core.events.count) == (index, count)
        submit(made, leader, delete_policy("*", "*"))
        made.run_for(700_000)
        assert leader.core.housekeeping.space.refusal() == ""


def put_keys(made: Cluster, leader: Machine, size: int) -> None:
    for number in range(100):
        submit(made, leader, put_key(f"k{number}", bytes(size)))


def test_a_store_full_of_keys_does_not_say_that_readings_wait() -> None:
    with cluster(size=1, options=QUOTA) as made:
        leader = made.elect()
        with pytest.raises(Overloaded):
            put_keys(made, leader, 25_000)
        made.run_for(2_000)
        (alarm,) = alarms_of(leader, "store is")
        key_bytes = leader.core.state.key_bytes
        assert key_bytes > 25_000 * leader.core.state.key_count > MIB // 2
        assert alarm.endswith(
            f"dropping readings cannot make room enough, keys have {key_bytes} bytes: delete some"
        )


def test_readings_stay_when_without_them_keys_would_fill_the_store_still() -> None:
    with cluster(size=1, options=QUOTA) as made:
        leader = made.elect()
        fill(made, leader, 10)
        before = sum(len(times_of(leader, "t", f"s{sensor}")) for sensor in range(3))
        with pytest.raises(Overloaded):
            put_keys(made, leader, 20_000)
        made.run_for(3_600_000)
        after = sum(len(times_of(leader, "t", f"s{sensor}")) for sensor in range(3))
        assert after > 0.9 * before, "some went when that could still have made room"
        index, count = leader.core.state.position.index, leader.core.events.count
        made.run_for(700_000)
        assert (leader.core.state.position.index, leader.core.events.count) == (index, count)
        (alarm,) = alarms_of(leader, "store is")
        assert alarm.endswith(f"keys have {leader.core.state.key_bytes} bytes: delete some")
        submit(made, leader, *(delete_key(f"k{number}") for number in range(10)))
        made.run_for(700_000)
        assert leader.core.housekeeping.space.refusal() == ""


def test_deletes_make_room_in_a_full_store_that_refuses_writes() -> None:
    with cluster(size=1, options=replace(QUOTA, when_full=REFUSE)) as made:
        leader = made.elect()
        held = 0
        while not leader.core.housekeeping.space.refusal():
            submit(made, leader, put_key(f"k{held}", bytes(20_000)))
            held += 1
        made.run_for(5_000)
        with pytest.raises(Overloaded, match="delete series"):
            submit(made, leader, put_key("more", b""))
        for number in range(10):
            submit(made, leader, delete_key(f"k{number}"))
        made.run_for(1_000)
        assert leader.core.housekeeping.space.refusal() == ""
        submit(made, leader, put_key("k0", bytes(20_000)))
        assert leader.core.state.key_count == held - 9


def test_rounds_that_free_nothing_come_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sizes, "MARK_BYTES", 10_000)
    with cluster(size=1, options=QUOTA) as made:
        leader = made.elect()
        fill(made, leader, 100)
        monkeypatch.setattr(oldest.Spans, "time_of", lambda spans, _: int(min(spans.starts)) + 1)
        smaller = replace(QUOTA, store_bytes_max=MIB * 85 // 100)
        monkeypatch.setattr(leader.core.housekeeping.space, "_options", lambda: smaller)
        kinds = []
        for _ in range(2):
            count = leader.core.events.count
            made.run_for(60_000)
            kinds.append([event.kind for event in leader.core.events.since(count)].count("dropped_oldest"))
        assert kinds == [6, 1]


LOG_HEAVY = replace(QUOTA, watch_keep_bytes=MIB, journal_bytes_max=4 * MIB, checkpoint_bytes_min=MIB // 2)


@pytest.mark.parametrize("when_full", [REFUSE, DROP_OLDEST])
def test_in_a_full_quota_the_log_makes_room_before_readings_go_or_writes_are_refused(
    when_full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sizes, "MARK_BYTES", 10_000)
    with cluster(size=1, options=replace(LOG_HEAVY, when_full=when_full)) as made:
        leader, refusals = made.elect(), ""
        house = leader.core.housekeeping
        for _ in range(4):
            try:
                fill(made, leader, 100)
            except Overloaded as error:
                refusals += str(error)
        assert house.store_bytes > MIB // 2, "most of the quota is for readings"
        assert house.sizes.total_bytes < MIB // 5
        assert bool(refusals) == (when_full == REFUSE)
        index = leader.core.state.position.index
        count = leader.core.events.count
        made.run_for(60_000)
        assert (leader.core.state.position.index, leader.core.events.count) == (index, count)


MINUTE_NS = 60 * SECOND_NS
TO_MINUTES = set_policy(Policy("*", "*", 10 * HOUR_NS, (RollUp(MINUTE_NS, 0),)))


def minutes(made: Cluster, count: int) -> list[int]:
    """Times of readings, one a minute, the last some minutes ago."""
    now = made.clock.wall_ns()
    return [now - MINUTE_NS * (count + 5 - place) for place in range(count)]


def alarms_of(machine: Machine, word: str) -> list[str]:
    return [alarm for alarm in _alarms(machine.core, _Serving()) if word in alarm]  # type: ignore[arg-type]


def test_a_roll_up_whose_name_is_too_long_is_not_tried_and_raises_an_alarm() -> None:
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        metric = "t" * 192
        submit(made, leader, TO_MINUTES, write(minutes(made, 100), [1.0] * 100, metric=metric))
        index = leader.core.state.position.index
        made.run_for(100_000)
        assert leader.core.state.position.index == index, "an idle cluster writes nothing"
        (alarm,) = alarms_of(leader, "roll-up")
        assert alarm.startswith(
            f"roll-up of greenhouse/{metric} to 1m is refused: the name {metric}@1m.count would"
        )
        assert "201 bytes (limit 200)" in alarm
        submit(made, leader, delete_series("greenhouse", "*"))
        made.run_for(3_000)
        assert alarms_of(leader, "roll-up") == []


def test_a_roll_up_that_the_log_refuses_rests_however_many_windows_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both series fit, each alone: what is refused could not be foreseen."""
    monkeypatch.setattr(rolling, "WINDOWS_MAX", 7)
    monkeypatch.setattr(refusals, "REST_NS", 100 * SECOND_NS)
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        times, table = minutes(made, 100), leader.core.state._tables.series
        submit(made, leader, write(times, [1.0] * 100, "a"), write(times, [1.0] * 100, "b"))
        table._options = StateOptions(series_max=7)
        monkeypatch.setattr(Retention, "roll_up_obstacle", lambda *_: "")
        submit(made, leader, TO_MINUTES)
        made.run_for(20_000)
        assert len(times_of(leader, "t@1m.mean", "a")) == 100
        index = leader.core.state.position.index
        made.run_for(70_000)
        assert leader.core.state.position.index == index
        (alarm,) = alarms_of(leader, "roll-up")
        assert "roll-up of b/t to 1m is refused: there are 6 series (limit 7)" in alarm
        table._options = StateOptions()
        made.run_for(40_000)
        assert len(times_of(leader, "t@1m.mean", "b")) == 100
        assert alarms_of(leader, "roll-up") == []


def test_roll_ups_beyond_the_limit_of_series_wait_for_room_and_write_nothing() -> None:
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        submit(made, leader, write(minutes(made, 100), [1.0] * 100))
        table = leader.core.state._tables.series
        table._options = StateOptions(series_max=4)
        submit(made, leader, TO_MINUTES)
        index = leader.core.state.position.index
        made.run_for(60_000)
        assert leader.core.state.position.index == index
        assert "it needs 4 more series, there is room for 3" in alarms_of(leader, "roll-up")[0]
        table._options = StateOptions(series_max=5)
        made.run_for(5_000)
        assert len(times_of(leader, "t@1m.mean")) == 100
        assert alarms_of(leader, "roll-up") == []


def test_a_reading_ahead_of_time_is_rolled_up_when_its_time_has_come_and_not_waited_for_in_the_log() -> None:
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        times = minutes(made, 10)
        ahead = made.clock.wall_ns() + 10 * MINUTE_NS
        submit(made, leader, TO_MINUTES, write([*times, ahead], [1.0] * 11))
        made.run_for(5_000)
        index = leader.core.state.position.index
        made.run_for(300_000)
        assert leader.core.state.position.index == index
        late = times[-1] + 2 * MINUTE_NS
        submit(made, leader, write([late], [2.0]))
        made.run_for(5_000)
        assert times_of(leader, "t@1m.mean")[-1] == late // MINUTE_NS * MINUTE_NS
        made.run_for(450_000)
        assert times_of(leader, "t@1m.mean")[-1] == ahead // MINUTE_NS * MINUTE_NS
        assert len(times_of(leader, "t@1m.mean")) == 12


def test_old_roll_ups_of_another_kind_raise_an_alarm_and_gone_they_are_made_anew() -> None:
    with cluster(size=1, options=OPTIONS) as made:
        leader = made.elect()
        times = minutes(made, 100)
        integers = encode_columns("greenhouse", "t", np.array(times), np.arange(100), integer=True)
        submit(made, leader, TO_MINUTES, write_readings([integers]))
        made.run_for(5_000)
        submit(made, leader, delete_series("greenhouse", "t"), write(times, [1.5] * 100))
        index = leader.core.state.position.index
        made.run_for(60_000)
        assert leader.core.state.position.index == index
        (alarm,) = alarms_of(leader, "roll-up")
        assert (
            "refused: greenhouse/t@1m.min holds integers of an earlier series, the readings are floats now: delete it "
            "(raftberry series delete greenhouse 't@*')"
        ) in alarm
        submit(made, leader, delete_series("greenhouse", "t@*"))
        made.run_for(5_000)
        assert len(times_of(leader, "t@1m.min")) == 100
        assert alarms_of(leader, "roll-up") == []


def test_a_disk_filled_by_others_refuses_writes_and_recovers_by_itself() -> None:
    with cluster(size=1) as made:
        leader = made.elect()
        house = leader.core.housekeeping
        house.disk_has(leader.core.options.disk_free_bytes_min - 1)
        with pytest.raises(
            Overloaded, match=r"the disk has 255 MiB free \(limit 256 MiB.*remove other files"
        ):
            leader.core.submit(write([1], [1.0]), made.clock.now_ns + 10**10, lambda _: None)
        house.disk_has(leader.core.options.disk_free_bytes_min)
        submit(made, leader, write([1], [1.0]))


def test_a_policy_as_it_is_typed_reaches_a_sensor_with_slashes_in_its_name() -> None:
    with cluster(options=OPTIONS) as made:
        leader = made.elect()
        now = made.clock.wall_ns()
        sensor, metric = split_globs("barn/east/*")
        old, new = now - 2 * HOUR_NS, now - SECOND_NS
        for name in ("barn/east", "barn", "barn/eastern"):
            submit(made, leader, write([old, new], [1.0, 2.0], sensor=name))
        submit(made, leader, set_policy(Policy(sensor, metric, 60 * SECOND_NS)))
        run_until_clocks_are_known(made)
        made.run_for(5_000)
        for machine in made.machines.values():
            assert times_of(machine, "t", "barn/east") == [new]
            assert times_of(machine, "t", "barn") == times_of(machine, "t", "barn/eastern") == [old, new]
