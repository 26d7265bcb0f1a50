"""Bytes written a day: measured, projected, and kept by waiting."""

from __future__ import annotations

from appliance.node.budget import BURST_NS, DAY_NS, PACE_MAX_NS, SECOND_NS, WriteBudget
from appliance.node.window import Window
from tests.node.harness import FakeClock

MB = 1_000_000


def spend(
    budget: WriteBudget, clock: FakeClock, *, seconds: int, commits_per_second: int, commit_bytes: int
) -> int:
    """Commits as often as the pace allows; how many there were."""
    count = written = 0
    next_ns, end_ns = clock.now_ns, clock.now_ns + seconds * SECOND_NS
    while next_ns < end_ns:
        clock.now_ns = next_ns
        count += 1
        written += commit_bytes
        budget.observe(written, count)
        next_ns += max(SECOND_NS // commits_per_second, budget.pace_ns())
    return count


def test_without_a_budget_nothing_waits() -> None:
    clock = FakeClock()
    budget = WriteBudget(clock, lambda: 0)
    assert spend(budget, clock, seconds=60, commits_per_second=50, commit_bytes=20_000) == 3_000
    assert (budget.pace_ns(), budget.alarm()) == (0, "")
    assert 1_400 * MB < budget.per_day_bytes() < 1_500 * MB, "a minute is not a day: 60 MB of an hour"


def test_a_budget_is_kept_by_fewer_commits() -> None:
    clock = FakeClock()
    budget = WriteBudget(clock, lambda: 8_640 * MB)
    count = spend(budget, clock, seconds=4 * 3_600, commits_per_second=20, commit_bytes=20_000)
    allowed = 100_000 * 4 * 3_600 + 8_640 * MB * BURST_NS // DAY_NS
    assert 0.7 * allowed < 20_000 * count < 1.05 * allowed
    assert 0 < budget.pace_ns() < PACE_MAX_NS


def test_a_budget_that_is_too_small_costs_a_second_a_commit_and_says_so() -> None:
    clock = FakeClock()
    budget = WriteBudget(clock, lambda: 100 * MB)
    spend(budget, clock, seconds=3_600, commits_per_second=20, commit_bytes=20_000)
    assert budget.pace_ns() == PACE_MAX_NS
    assert "more than storage.write_budget_per_day (100 MB)" in budget.alarm()


def test_a_burst_is_not_taken_for_a_day_and_is_told_from_what_is_written_now() -> None:
    clock, written = FakeClock(), 0
    budget = WriteBudget(clock, lambda: 2_000 * MB)

    def run(*, seconds: int, bytes_per_second: int) -> None:
        nonlocal written
        for _ in range(0, seconds, 5):
            clock.now_ns += 5 * SECOND_NS
            written += 5 * bytes_per_second
            budget.observe(written, written // 20_000)

    run(seconds=60, bytes_per_second=0)
    run(seconds=60, bytes_per_second=5 * MB)
    assert budget.alarm().startswith(
        "writing 7,322 MB a day, more than storage.write_budget_per_day (2,000 MB)"
    )
    run(seconds=3_600, bytes_per_second=1_000 * MB // 86_400)
    assert budget.alarm() == (
        "writing 999 MB a day, but an earlier burst beyond storage.write_budget_per_day (2,000 MB) is being made up "
        "for: commits wait up to 1000 ms for each other"
    )
    run(seconds=4 * 3_600, bytes_per_second=1_000 * MB // 86_400)
    assert budget.alarm() == ""


def test_batches_are_a_pace_apart_also_for_a_caller_who_is_alone() -> None:
    window = Window()
    window.pace_ns = 1_000
    assert window.is_over(1, 0)
    assert not window.is_over(1, 999)
    assert window.ends_ns == 1_000
    assert window.is_over(1, 1_000)
