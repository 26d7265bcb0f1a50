"""Bugs planted on purpose: does the swarm find them, and how soon? python -m tests.simulation.planted NAME --seeds A..B

Invariant: a planted bug is a changed fragment of production code in this process only (mutation.py); no file changes.
"""

from __future__ import annotations

import argparse
import sys

from appliance.consensus.log import LogImage
from appliance.consensus.reads import Reads
from appliance.node.barriers import Barriers
from appliance.node.snapshot_receiver import SnapshotReceiver
from appliance.node.watches import Watches
from appliance.state.producers import Producer, ProducerTable
from appliance.storage import recovery
from tests.simulation.mutation import Patch, mutate
from tests.simulation.swarm import run_seed
from tests.simulation.world import Plan


def journal_flush_order(patch: Patch) -> None:
    """A promise leaves with the batch before the one that holds it."""
    mutate(
        patch,
        LogImage,
        "promise_sequence",
        "self._taken + 1 if self._pending else self._taken",
        "self._taken",
    )


def vote_persistence(patch: Patch) -> None:
    """The hard state is written without the vote."""
    mutate(patch, LogImage, "take_batch", "HardState(self.term, self.vote,", "HardState(self.term, None,")


def vote_recovery(patch: Patch) -> None:
    """The vote is on the disk, and forgotten at a start."""
    mutate(
        patch,
        recovery,
        "plan_recovery",
        "vote=hard_state.vote if term == hard_state.term else None",
        "vote=None",
    )


def snapshot_install(patch: Patch) -> None:
    """The records of the last chunk are not written."""
    mutate(
        patch, SnapshotReceiver, "_finish", "incoming.installer.add(records)", "incoming.installer.add([])"
    )


def producer_window(patch: Patch) -> None:
    """The highest sequence of a producer is not known to be seen."""
    mutate(patch, Producer, "is_seen", "if below < 0:", "if below <= 0:")


def producer_checkpoint(patch: Patch) -> None:
    """A producer is in a checkpoint only as it was when it first came."""
    mutate(
        patch,
        ProducerTable,
        "mark",
        "    self.dirty.add(producer_id)\n",
        "    if producer.bits == 1:\n        self.dirty.add(producer_id)\n",
    )


def watch_resume(patch: Patch) -> None:
    """A watch that resumes behind what was trimmed goes on with what is left."""
    mutate(
        patch,
        Watches,
        "watch",
        "else after_index",
        "else max(after_index, self.earliest_index())",
    )


def read_barrier(patch: Patch) -> None:
    """A read does not wait until this node has applied what the leader had committed."""
    mutate(patch, Barriers, "_answered", "if index <= self._engine.applied_index:", "if True:")


def read_round(patch: Patch) -> None:
    """A read is confirmed by a round that began before it was asked."""
    mutate(patch, Reads, "_join_round", "_Read(self._round,", "_Read(self.begun,")


BUGS = {
    plant.__name__: plant
    for plant in (
        journal_flush_order,
        vote_persistence,
        vote_recovery,
        snapshot_install,
        producer_window,
        producer_checkpoint,
        watch_resume,
        read_barrier,
        read_round,
    )
}


CHECKS = {
    "journal_flush_order": {"promise_is_durable"},
    "vote_persistence": {"promise_is_durable", "one_vote"},
    "snapshot_install": {"state_hash", "content", "state_machine_safety", "no_bug", "amnesia"},
    "producer_window": {"exactly_once"},
    "producer_checkpoint": {"exactly_once", "state_machine_safety", "state_hash"},
    "watch_resume": {"watch"},
    "read_barrier": {"linearizable_reads", "registers"},
}
"""What may notice a bug that the first seeds find."""


class _ForGood:
    """A patch that ends with the process."""

    def setattr(self, target: object, name: str, value: object) -> None:
        setattr(target, name, value)


def main() -> int:
    """0 if a seed caught it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted", description=__doc__)
    parser.add_argument("name", choices=sorted(BUGS))
    parser.add_argument("--seeds", default="0..200", metavar="A..B", help="half-open")
    parser.add_argument("--size", type=int, help="nodes; drawn from the seed otherwise")
    arguments = parser.parse_args()
    BUGS[arguments.name](_ForGood())
    first, _, end = arguments.seeds.partition("..")
    for count, seed in enumerate(range(int(first), int(end)), start=1):
        report = run_seed(Plan(seed, arguments.size))
        if report.failure:
            sys.stdout.write(
                f"{arguments.name}: caught by seed {seed}, {count} seeds run, {report.size} nodes: {report.failure}\n"
            )
            return 0
        sys.stdout.flush()
    sys.stdout.write(f"{arguments.name}: not caught by {arguments.seeds}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
