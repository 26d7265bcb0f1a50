"""One guard off, and the named checker catches it; on, the same script or seed passes.

A script leads to each hazard; where every seed does, a few seeds do as well. What only shows on the plain library is
in test_ablation_library.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.simulation import ablation_callers as callers_scripts
from tests.simulation import ablation_guards as guards
from tests.simulation import ablation_leaders as leaders_scripts
from tests.simulation import ablation_log as log_scripts
from tests.simulation import ablation_snapshots as snapshots_scripts
from tests.simulation.failure import CheckFailed
from tests.simulation.mutation import Patch
from tests.simulation.swarm import run_seed
from tests.simulation.world import Plan

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """checks: any of these is the right one to notice."""

    hazard: str
    ablate: Callable[[Patch], None]
    script: Callable[[], None]
    checks: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.hazard}_{self.ablate.__name__}"


CASES = (
    Case("h2", guards.truncate_always, log_scripts.entries_come_twice, {"index_order"}),
    Case("h3", guards.move_next_index_back, log_scripts.acks_trail_the_entries, {"sent_once"}),
    Case("h4", guards.step_back_by_one, log_scripts.a_long_tail_conflicts, {"converged"}),
    Case("h4", guards.believe_every_rejection, log_scripts.a_rejection_points_beyond_the_log, {"converged"}),
    Case(
        "h5",
        guards.count_acks_of_older_terms,
        log_scripts.an_ack_arrives_two_terms_late,
        {"durable_on_majority"},
    ),
    Case("h5", guards.hear_strangers, log_scripts.a_stranger_answers, {"no_bug"}),
    Case(
        "h6",
        guards.commit_what_was_not_matched,
        log_scripts.a_tail_is_left_unmatched,
        {"state_machine_safety"},
    ),
    Case(
        "h7",
        guards.install_always,
        snapshots_scripts.a_snapshot_comes_twice,
        {"local_reads_monotonic", "index_order"},
    ),
    Case(
        "h8",
        guards.splice_transfers,
        snapshots_scripts.a_second_transfer_follows_the_first,
        {"state_machine_safety", "state_hash", "content"},
    ),
    Case("h8", guards.take_any_chunk, snapshots_scripts.a_bit_flips_in_a_chunk, {"state_hash", "content"}),
    Case(
        "h8",
        guards.acknowledge_a_failed_install,
        snapshots_scripts.a_bit_flips_in_a_chunk,
        {"promise_is_durable"},
    ),
    Case(
        "h9",
        guards.take_answers_to_a_former_life,
        callers_scripts.an_operation_outlives_the_process_that_sent_it,
        {"acknowledged_is_applied"},
    ),
    Case("h9", guards.believe_every_refusal, callers_scripts.a_forward_is_sent_twice, {"exactly_once"}),
    Case(
        "h10", guards.wait_for_ever, callers_scripts.the_leader_of_a_caller_is_cut_off, {"answered_in_time"}
    ),
    Case("h11", guards.raise_refusals, callers_scripts.a_condition_fails, {"no_bug"}),
    Case("h12", guards.send_in_parts, callers_scripts.an_entry_is_large, {"no_bug"}),
    Case(
        "h13",
        guards.change_while_another_change_waits,
        callers_scripts.a_leader_of_the_few_removes_the_others,
        {"leader_completeness"},
    ),
    Case(
        "h13",
        guards.start_with_the_checkpoints_members,
        callers_scripts.a_change_is_not_committed_before_a_restart,
        {"configuration_survives"},
    ),
    Case(
        "h15", guards.send_without_bound, snapshots_scripts.a_follower_takes_nothing, {"under_way_is_bounded"}
    ),
    Case(
        "h15",
        guards.push_the_whole_snapshot,
        snapshots_scripts.a_follower_takes_no_chunk,
        {"under_way_is_bounded"},
    ),
    Case(
        "h15",
        guards.spin_for_a_snapshot,
        snapshots_scripts.the_log_begins_behind_a_follower,
        {"the_loop_ends"},
    ),
    Case("h16", guards.count_repeated_votes, leaders_scripts.a_vote_comes_twice, {"election_safety"}),
    Case("h16", guards.ignore_older_terms, leaders_scripts.a_candidate_is_left_behind, {"converged"}),
    Case(
        "h16",
        guards.stand_without_a_pre_vote,
        leaders_scripts.a_follower_returns_from_a_partition,
        {"stable_leader"},
    ),
    Case(
        "h16", guards.believe_in_a_broken_stream, leaders_scripts.the_leader_is_killed, {"prompt_succession"}
    ),
    Case("h17", guards.lead_for_half_a_minute, leaders_scripts.the_leader_is_cut_off, {"no_lonely_leader"}),
    Case(
        "h17",
        guards.take_own_commits_for_signs_of_life,
        leaders_scripts.the_leader_is_cut_off,
        {"no_lonely_leader"},
    ),
    Case(
        "h18",
        guards.read_without_a_round,
        leaders_scripts.the_leader_that_was_deposed_is_asked,
        {"linearizable_reads"},
    ),
    Case(
        "h18",
        guards.read_before_the_terms_first_commit,
        leaders_scripts.a_new_leader_is_asked_at_once,
        {"linearizable_reads"},
    ),
    Case(
        "h21",
        guards.start_as_the_library_does,
        snapshots_scripts.all_restart_behind_a_checkpoint,
        {"index_order"},
    ),
    Case(
        "h22", guards.transfer_without_a_pause, callers_scripts.leadership_moves_under_load, {"handed_over"}
    ),
    Case("h22", guards.pause_without_end, callers_scripts.the_heir_is_gone, {"answered_in_time"}),
    Case(
        "h23", guards.let_the_library_truncate, log_scripts.a_tail_conflicts_that_is_not_in_memory, {"no_bug"}
    ),
    Case(
        "h37",
        guards.lead_before_the_term_is_durable,
        leaders_scripts.a_lone_voter_loses_its_term,
        {"promise_is_durable"},
    ),
    Case(
        "amnesia",
        guards.believe_every_disk,
        callers_scripts.an_old_card_is_put_back,
        {"convergence", "amnesia"},
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_script_misses_the_guard_that_is_off(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    case.script()
    with monkeypatch.context() as patch:
        case.ablate(patch)
        with pytest.raises(CheckFailed) as failed:
            case.script()
    assert failed.value.check in case.checks, failed.value


@pytest.mark.parametrize(
    ("ablate", "checks", "size"),
    [
        (guards.promise_at_once, {"promise_is_durable"}, 3),
        (guards.commit_alone_before_durable, {"durable_on_majority", "index_order"}, 1),
        (guards.count_acks_beyond_own_disk, {"durable_on_majority", "index_order"}, 3),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_any_of_a_few_seeds_misses_the_rule_of_the_pipeline(
    monkeypatch: pytest.MonkeyPatch, ablate: Callable[[Patch], None], checks: set[str], size: int
) -> None:
    """H1."""
    with monkeypatch.context() as patch:
        ablate(patch)
        reports = (run_seed(_short(seed, size)) for seed in range(5))
        failed = next((report for report in reports if report.failure), None)
    assert failed is not None, "no seed missed the guard"
    assert failed.failure is not None
    assert failed.failure.partition(":")[0] in checks, failed.failure
    assert run_seed(_short(failed.seed, size)).failure is None


def _short(seed: int, size: int) -> Plan:
    return Plan(seed, size, fault_ns=5 * SECOND_NS)
