"""python -m tests.simulation run --seeds A..B [--jobs N] | replay SEED [--trace] | shrink SEED

run ends with 1 if a seed failed, or if something that should have happened in it never did.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.simulation.failure import CheckFailed
from tests.simulation.schedule import SECOND_NS
from tests.simulation.swarm import run_swarm, shrink
from tests.simulation.world import Plan, World

SWARM_MIN = 200
"""Seeds from which on everything must have fired."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="many seeds")
    run.add_argument("--seeds", required=True, metavar="A..B", help="half-open, as in 0..100")
    run.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    replay = commands.add_parser("replay", help="one seed")
    replay.add_argument("seed", type=int)
    replay.add_argument("--trace", action="store_true", help="a line for each decision")
    shrink = commands.add_parser("shrink", help="the fewest kinds of faults that still fail")
    shrink.add_argument("seed", type=int)
    for command in (run, replay, shrink):
        command.add_argument("--size", type=int, help="nodes; drawn from the seed otherwise")
        command.add_argument("--seconds", type=int, default=30, help="simulated seconds under faults")
        command.add_argument(
            "--changing", action="store_true", help="the membership changes, whatever the seed draws"
        )
    arguments = parser.parse_args()
    handlers = {"run": _run, "replay": _replay, "shrink": _shrink}
    return handlers[arguments.command](arguments)


def _plan(arguments: argparse.Namespace, seed: int) -> Plan:
    return Plan(
        seed, size=arguments.size, fault_ns=arguments.seconds * SECOND_NS, is_changing=arguments.changing
    )


def _run(arguments: argparse.Namespace) -> int:
    first, _, end = arguments.seeds.partition("..")
    plans = [_plan(arguments, seed) for seed in range(int(first), int(end))]
    summary = None
    for report, summary in run_swarm(plans, jobs=arguments.jobs):
        if report.failure:
            sys.stdout.write(f"seed {report.seed} ({report.size} nodes) FAILED {report.failure}\n")
        elif report.shortfall:
            sys.stdout.write(f"seed {report.seed} ({report.size} nodes) fell short: {report.shortfall}\n")
        elif len(summary.reports) % 100 == 0:
            sys.stdout.write(f"{len(summary.reports)} seeds, {len(summary.failures)} failed\n")
        sys.stdout.flush()
    assert summary is not None, "no seeds"
    sys.stdout.write("\n".join(summary.lines()) + "\n")
    is_default = arguments.size is None and not arguments.changing
    silent = summary.silent() if len(plans) >= SWARM_MIN and is_default else []
    if silent:
        sys.stdout.write(f"never fired: {', '.join(silent)}\n")
    return 1 if summary.failures or silent else 0


def _replay(arguments: argparse.Namespace) -> int:
    world = World(_plan(arguments, arguments.seed), trace=_print if arguments.trace else None)
    try:
        report = world.run()
    except CheckFailed as failed:
        sys.stdout.write(
            f"seed {arguments.seed} ({len(world.machines)} nodes) FAILED {failed}\n{world.describe()}\n"
        )
        return 1
    for name in sorted(report.counts):
        sys.stdout.write(f"{name:<34}{report.counts[name]:>12,}\n")
    sys.stdout.write(f"seed {report.seed}: {report.size} nodes, passed, trace {report.trace_digest}\n")
    return 0


def _shrink(arguments: argparse.Namespace) -> int:
    found = shrink(_plan(arguments, arguments.seed))
    if found is None:
        sys.stdout.write(f"seed {arguments.seed} passes\n")
        return 0
    kinds, failure = found
    sys.stdout.write(
        f"seed {arguments.seed} still fails with {', '.join(sorted(kinds)) or 'no fault'}: {failure}\n"
    )
    return 1


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
