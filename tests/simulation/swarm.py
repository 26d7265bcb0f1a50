"""Many seeds, one after the other or on several processes, and what fired in all of them together.

Invariant: a seed's result does not depend on the seeds beside it.
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.failure import CheckFailed
from tests.simulation.guards import RULES
from tests.simulation.world import Plan, Report, World

EXPECTED = (
    "checked_hashes",
    "checked_promise_acks",
    "checked_promise_installs",
    "checked_promise_votes",
    "checked_raft_commits",
    "checked_raft_deflated",
    "checked_raft_durable_claims",
    "checked_raft_entries_sent",
    "checked_raft_leaders",
    "checked_register_reads",
    "client_acknowledged",
    "client_not_applied",
    "client_overloaded",
    "client_read",
    "client_read_here",
    "client_retried",
    "client_unknown",
    "crash_at_rest",
    "crash_inside_new",
    "crash_inside_old",
    "dropped_answer_to_no_leader",
    "dropped_not_a_member",
    "dropped_older_term",
    "event_adopted_term",
    "event_asked_to_take_over",
    "event_checkpointed",
    "event_ended",
    "event_granted_pre_vote",
    "event_installed",
    "event_quarantined",
    "event_refused_pre_vote",
    "event_rejected",
    "event_stepped_down",
    "event_trimmed",
    "event_truncated",
    "fault_lying_card_struck",
    "fault_mauled_chunk",
    "fault_older_copy_struck",
    "fault_transfer_sent",
    "fault_wipe_struck",
    "lmdb_lives",
    "member_added",
    "member_removed",
    "network_refused",
    "network_repeated",
    "network_spike",
    "snapshots_failed",
    "snapshots_sent",
    "watch_history_gone",
    "watch_resumed",
    "watch_seen",
)
"""What must have happened somewhere in a swarm, with every kind of fault, else it proves less than it says."""


@dataclass(slots=True)
class Summary:
    reports: list[Report] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    simulated_s: float = 0.0
    wall_s: float = 0.0

    @property
    def failures(self) -> list[Report]:
        return [report for report in self.reports if report.failure]

    @property
    def short(self) -> list[Report]:
        """Those that did less than a seed shall do."""
        return [report for report in self.reports if report.shortfall and not report.failure]

    @property
    def changed_count(self) -> int:
        """Seeds in which somebody joined or left."""
        return sum(
            report.counts["member_added"] + report.counts["member_removed"] > 0 for report in self.reports
        )

    def silent(self) -> list[str]:
        """What never fired."""
        expected = [*EXPECTED, *RULES, *(f"fault_{kind}" for kind in fault_kinds())]
        return [name for name in expected if not self.counts[name]]

    def lines(self) -> Iterator[str]:
        yield from (f"{name:<34}{self.counts[name]:>12,}" for name in sorted(self.counts))
        count = len(self.reports)
        yield (
            f"{count} seeds, {len(self.failures)} failed, {len(self.short)} fell short, "
            f"{self.changed_count} with changes of the membership, "
            f"{self.simulated_s:,.0f} simulated s in {self.wall_s:,.0f} s: "
            f"{60 * count / self.wall_s:,.0f} seeds/min, {self.simulated_s / self.wall_s:,.0f} simulated s/s"
        )


def fault_kinds() -> list[str]:
    """Every kind that a seed may draw."""
    return World(Plan(0)).faults.all_kinds


def run_seed(plan: Plan) -> Report:
    world = World(plan)
    try:
        return world.run()
    except CheckFailed as failed:
        failure = str(failed)
    except Exception as error:  # noqa: BLE001 - of this seed: the others go on
        failure = f"bug: {type(error).__name__}: {error}"
    report = world.report()
    report.failure = failure
    return report


def shrink(plan: Plan) -> tuple[frozenset[str], str] | None:
    """(kinds, failure): no kind can be left out without the same check passing. None: the seed passes."""
    failure = run_seed(plan).failure
    if failure is None:
        return None
    check, kinds = failure.partition(":")[0], frozenset(World(plan).faults.kinds)
    for kind in sorted(kinds):
        fewer = dataclasses.replace(plan, kinds=kinds - {kind})
        found = run_seed(fewer).failure
        if found is not None and found.partition(":")[0] == check:
            kinds, failure = kinds - {kind}, found
    return kinds, failure


def _run_seed(plan: Plan) -> Report:
    """A world has cycles, and nothing else makes garbage: it is collected once, when its seed is over."""
    report = run_seed(plan)
    gc.collect()
    return report


def run_swarm(plans: Iterable[Plan], *, jobs: int) -> Iterator[tuple[Report, Summary]]:
    """Each report as it comes, with the summary up to it."""
    summary, begun = Summary(), time.monotonic()
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=gc.disable) as pool:
        for report in pool.imap(_run_seed, plans, chunksize=4):
            summary.reports.append(report)
            summary.counts.update(report.counts)
            summary.simulated_s += report.simulated_s
            summary.wall_s = time.monotonic() - begun
            yield report, summary
