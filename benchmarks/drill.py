"""`raftberry drill` beside etcd: the same faults under the same load, in turn, in one run; medians and ratios.

    script/benchmark-drill --nodes 3 --nodes 5 --rounds 3

Invariant: one client (the product's own drill) writes to all systems, one write at a time for each of its writers, and
goes on to the next node after the same time; faults are injected by the same means, at the same moments.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from appliance.cli.drill.cluster import DrillCluster
from appliance.cli.drill.faults import FAULTS, Faults, Timing
from appliance.cli.drill.measuring import tally
from appliance.cli.drill.record import Setting, Span, make_record
from appliance.cli.version import installed_version
from appliance.client.connection import Connection
from appliance.client.methods import QUERY, TRANSFER_LEADERSHIP
from appliance.client.steady import SteadyLoad
from appliance.host.machine import describe_machine
from benchmarks import packages
from benchmarks.drill_etcd import EtcdCluster, EtcdLoad, etcd_version
from benchmarks.drill_report import summary, table
from benchmarks.slow_disk import Stall
from raftberry.v1 import cluster_pb2, reading_pb2

ROOT: Final = Path(__file__).resolve().parent.parent
WRITERS: Final = 6
WRITES_PER_SECOND: Final = 200
UNDISTURBED_S: Final = 4.0
"""At first, for the latencies to compare with; then each fault has Timing.settle_s around it."""

Record = dict[str, Any]
ReadBack = Callable[[str, str], list[int]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run of one system does."""

    nodes: int
    faults: Sequence[str]
    timing: Timing
    folder: Path


class TracedCluster(DrillCluster):
    """Its disk is slowed by the means that etcd's is slowed by, not by the product's own fail point."""

    def __init__(self, count: int, *, parent: Path) -> None:
        super().__init__(count, parent=parent)
        self._stalls: dict[str, Stall] = {}

    def stall_disk(self, name: str, seconds: float) -> None:
        if seconds > 0:
            self._stalls[name] = Stall(self._processes[name].pid, seconds)
        else:
            self._stalls.pop(name).end()

    def close(self) -> None:
        for stall in self._stalls.values():
            stall.end()
        super().close()


def run_raftberry(plan: Plan) -> Record:
    cluster = TracedCluster(plan.nodes, parent=plan.folder)
    with ExitStack() as ends:
        ends.callback(cluster.close)
        cluster.start()
        connection = ends.enter_context(Connection(cluster.endpoints, timeout_s=120))

        def transfer(target: str) -> None:
            connection.call(TRANSFER_LEADERSHIP, cluster_pb2.TransferLeadershipRequest(target=target))

        def read_back(sensor: str, writer: str) -> list[int]:
            request = reading_pb2.QueryRequest(sensor=sensor, metric=writer)
            answers = connection.collect(QUERY, request)
            return [value for answer in answers for each in answer.readings for value in each.int_value]

        return _run(plan, cluster, SteadyLoad, transfer, read_back)


def run_etcd(plan: Plan, *, election_ms: int) -> Record:
    cluster = EtcdCluster(plan.nodes, parent=plan.folder, election_ms=election_ms)
    with ExitStack() as ends:
        ends.callback(cluster.close)
        cluster.start()
        return _run(plan, cluster, EtcdLoad, cluster.transfer, cluster.read_back)


def _run(
    plan: Plan,
    cluster: TracedCluster | EtcdCluster,
    kind: type[SteadyLoad],
    transfer: Callable[[str], None],
    read_back: ReadBack,
) -> Record:
    """As `raftberry drill` does it."""
    sensor = f"drill-{secrets.token_hex(4)}"
    load = kind(
        cluster.endpoints, sensor=sensor, clients=WRITERS, streams=0, writes_per_second=WRITES_PER_SECOND
    )
    faults = Faults(cluster, load, plan.timing, transfer=transfer)
    load.start()
    try:
        faults.await_well()
        began_s = time.monotonic()
        faults.pause(UNDISTURBED_S)
        steady_s = time.monotonic()
        for name in plan.faults:
            fault = faults.inject(name)
            print(f"    {name} {fault.until_s - fault.began_s:.1f} s", file=sys.stderr, flush=True)
        ended_s = time.monotonic()
        load.stop()
    finally:
        load.stop(patience_s=0.0)
    found = {writer: read_back(sensor, writer) for writer in load.writers}
    writes = tally(load.acknowledgements, load.unanswered, found)
    span = Span(began_s, steady_s, ended_s)
    return make_record(_setting(plan), span, faults.done, load.acknowledgements, load.looks, writes)


def _setting(plan: Plan) -> Setting:
    return Setting(
        date=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=describe_machine(),
        version=installed_version(),
        command=shlex.join(["script/benchmark-drill", *sys.argv[1:]]),
        nodes=plan.nodes,
        clients=WRITERS,
        streams=0,
        writes_per_second=WRITES_PER_SECOND,
        hold_s=plan.timing.hold_s,
        settle_s=plan.timing.settle_s,
    )


SYSTEMS: Final[dict[str, Callable[[Plan], Record]]] = {
    "raftberry": run_raftberry,
    "etcd": lambda plan: run_etcd(plan, election_ms=1_000),
    "etcd-500ms": lambda plan: run_etcd(plan, election_ms=500),
}
"""etcd with its defaults; etcd-500ms with our election timeout."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/benchmark-drill", description="Drill beside etcd.")
    parser.add_argument("--nodes", type=int, action="append", choices=[3, 5], help="repeatable; both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--system", action="append", choices=list(SYSTEMS), help="repeatable; all")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="repeatable; all")
    parser.add_argument("--hold", type=float, default=4.0, help="seconds that a fault lasts")
    parser.add_argument("--settle", type=float, default=1.0, help="seconds of undisturbed load around each")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "benchmark-data", help="on the disk to measure"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "drill", help="for the JSON files")
    arguments = parser.parse_args()
    packages.fetch("etcd")
    for folder in (arguments.folder, arguments.output):
        folder.mkdir(parents=True, exist_ok=True)
    packages.fetch("etcd")
    names = arguments.system or list(SYSTEMS)
    is_clean = True
    for nodes in arguments.nodes or [3, 5]:
        timing = Timing(arguments.hold, arguments.settle)
        plan = Plan(nodes, arguments.fault or list(FAULTS), timing, arguments.folder)
        records: dict[str, list[Record]] = {name: [] for name in names}
        for number in range(arguments.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                print(f"  {nodes} nodes, round {number + 1}: {name}", file=sys.stderr, flush=True)
                records[name].append(SYSTEMS[name](plan))
        result = summary(records, etcd=etcd_version())
        file = arguments.output / f"drill-{nodes}-nodes-beside-etcd.json"
        file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        print(f"{table(result)}\n\n{file}\n", flush=True)
        is_clean = is_clean and all(each["lost"] == 0 for each in result["writes"].values())
    return 0 if is_clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
