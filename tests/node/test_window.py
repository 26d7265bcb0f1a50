"""A batch waits for company, never for long, and not at all for a caller who is alone."""

from __future__ import annotations

import pytest

from appliance.node.budget import SECOND_NS
from appliance.node.window import (
    FORWARD_WINDOW_NS,
    ROUNDS_PER_WINDOW,
    WINDOW_NS_MAX,
    WINDOW_NS_MIN,
    Window,
)
from tests.node.harness import MILLISECOND_NS, cluster, put

ROUND_NS = 3_000_000


def leading(company: int, round_ns: int = ROUND_NS) -> tuple[Window, int]:
    """(a leader's window after one round that took so long, now)."""
    window = Window()
    assert window.is_over(1, 0)
    window.committed(round_ns, company=company)
    return window, round_ns


def test_a_caller_who_is_alone_never_waits() -> None:
    window, now_ns = leading(1)
    for _ in range(5):
        assert window.is_over(1, now_ns)
        now_ns += ROUND_NS
        window.committed(now_ns, company=1)
    assert window.ends_ns is None


def test_a_batch_waits_for_nine_tenths_of_the_company() -> None:
    window, now_ns = leading(20)
    assert not window.is_over(17, now_ns)
    assert not window.concerns(17)
    assert window.concerns(18)
    assert window.is_over(18, now_ns + 1)


def test_a_window_ends_with_the_last_of_those_who_waited() -> None:
    window, now_ns = leading(8)
    assert not window.is_over(1, now_ns)
    assert not window.is_over(0, now_ns + 1)
    assert window.ends_ns is None


def test_company_that_went_away_is_waited_for_once_as_long_as_a_few_rounds() -> None:
    window, now_ns = leading(64)
    ends_ns = now_ns + ROUNDS_PER_WINDOW * ROUND_NS
    assert not window.is_over(1, now_ns)
    assert window.ends_ns == ends_ns
    assert not window.is_over(2, ends_ns - 1)
    assert window.is_over(2, ends_ns)
    window.committed(ends_ns + ROUND_NS, company=2)
    assert window.is_over(2, ends_ns + ROUND_NS)


def test_neither_slow_rounds_nor_fast_ones_take_the_bound_beyond_its_limits() -> None:
    for round_ns, bound_ns in ((10, WINDOW_NS_MIN), (60_000_000_000, WINDOW_NS_MAX)):
        window, now_ns = leading(64, round_ns)
        assert not window.is_over(1, now_ns)
        assert window.ends_ns == now_ns + bound_ns


def test_one_slow_round_of_many_moves_the_bound_a_little() -> None:
    window, now_ns = leading(1)
    assert window.is_over(1, now_ns)
    now_ns += 5 * ROUND_NS
    window.committed(now_ns, company=64)
    assert not window.is_over(1, now_ns)
    assert window.ends_ns == now_ns + ROUNDS_PER_WINDOW * ROUND_NS * 3 // 2


def test_a_follower_forwards_soon_also_if_it_led_before() -> None:
    window, now_ns = leading(64)
    window.pace_ns = 100 * ROUND_NS
    assert not window.is_over(1, now_ns)
    window.expect_to_forward(64, now_ns)
    assert window.ends_ns == now_ns + FORWARD_WINDOW_NS
    assert not window.is_over(1, now_ns)
    assert window.is_over(1, now_ns + FORWARD_WINDOW_NS)
    window.expect_to_forward(1, now_ns)
    assert window.is_over(1, now_ns), "a caller who is alone never waits"


def test_nothing_queued_begins_no_window() -> None:
    window, now_ns = leading(9)
    assert not window.is_over(0, now_ns)
    assert window.ends_ns is None


@pytest.mark.parametrize("count", [12, 20])
def test_what_did_not_fit_a_full_batch_waits_for_nobody(count: int) -> None:
    """Five to a batch: the next five are there."""
    with cluster(size=1) as made:
        leader = made.elect()
        done: list[object] = []
        for number in range(count):
            operation = put(f"k{number}", bytes(200_000))
            leader.core.submit(operation, made.clock.now_ns + 10 * SECOND_NS, done.append)
        made.settle()
        assert len(done) >= count // 5 * 5


def test_who_led_forwards_at_no_pace_of_its_own() -> None:
    with cluster() as made:
        old = made.elect()
        old.core.writes.pace_ns = lambda: SECOND_NS
        done: list[object] = []
        old.core.submit(put(), made.clock.now_ns + 10 * SECOND_NS, done.append)
        made.run_for(1_500)
        assert done
        for other in made.followers:
            made.disconnect(int(old.member.member_id), int(other.member.member_id))
        made.run_for(3_000)
        made.connect()
        made.run_for(3_000)
        assert not old.core.engine.is_leader
        for number in range(4):
            begin_ns, done = made.clock.now_ns, []
            old.core.submit(put(f"k{number}"), begin_ns + 10 * SECOND_NS, done.append)
            while not done:
                made.run_for(1)
            assert made.clock.now_ns - begin_ns < 100 * MILLISECOND_NS
