"""A sample of the swarm for every change; script/simulate runs thousands."""

from __future__ import annotations

import pytest

from tests.simulation.schedule import SECOND_NS
from tests.simulation.swarm import Summary, run_seed, run_swarm
from tests.simulation.world import Plan, World

SAMPLE = range(40)
OFTEN = (
    "client_acknowledged",
    "client_unknown",
    "event_checkpointed",
    "event_installed",
    "event_trimmed",
    "event_truncated",
    "fault_crash_all",
    "fault_pause_one",
    "fault_stall_disk",
    "checked_hashes",
    "checked_register_reads",
    "watch_seen",
    "client_read_here",
)


def test_the_sample_of_seeds_passes_every_checker() -> None:
    summary = Summary()
    for _, summary in run_swarm((Plan(seed) for seed in SAMPLE), jobs=2):
        assert not summary.failures, [(report.seed, report.failure) for report in summary.failures]
    assert len(summary.reports) == len(SAMPLE)
    assert [(report.seed, report.shortfall) for report in summary.short] == []
    assert [name for name in OFTEN if not summary.counts[name]] == []
    assert summary.simulated_s > 30 * len(SAMPLE)


def test_a_long_run_of_one_seed_passes_every_checker() -> None:
    summary = Summary()
    for _, summary in run_swarm([Plan(7, size=3, fault_ns=90 * SECOND_NS)], jobs=1):
        assert not summary.failures, summary.failures
    assert summary.counts["client_acknowledged"] >= 1_000


def test_who_moves_to_another_node_as_the_world_ends_has_time_to_read() -> None:
    """This seed's watcher does, and the check of the end took it for one who was forgotten."""
    for _, summary in run_swarm([Plan(335152)], jobs=1):
        assert not summary.failures, summary.failures


def test_who_wins_its_election_when_others_have_moved_on_need_not_have_what_they_committed() -> None:
    """This seed's node is paused while a vote for it is under way, and leads a term that is over when it goes on."""
    for _, summary in run_swarm([Plan(336756)], jobs=1):
        assert not summary.failures, summary.failures


def test_a_term_that_a_bit_flip_changed_at_the_end_of_a_trim_is_damage() -> None:
    """The committer ended this seed's node by an assertion, where the card was to blame."""
    for _, summary in run_swarm([Plan(336616)], jobs=1):
        assert not summary.failures, summary.failures
        assert summary.counts["event_quarantined"] > 0


def test_a_seed_that_ends_by_an_exception_is_told_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: World) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(World, "run", run)
    report = run_seed(Plan(5))
    assert (report.seed, report.failure) == (5, "bug: AssertionError: a bug")
