"""Cuts the power many times and says what was lost: python -m tests.system.power.campaign FOLDER

A cut is counted under the phase that was under way when the disk stopped, as the console and the calls left
unanswered show it, not under the one that was aimed at; and only when the machine has come back by itself and holds
everything. Each cut is aimed at the phase that has the fewest so far.
Invariant: the run fails at the first acknowledged reading that is missing on an honest disk.
FOLDER/result.json is written after every check: a run that was ended goes on from there.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from raftberry.v1 import cluster_pb2
from tests.system.power.cluster import (
    CLIENT_PORT,
    CUT,
    GUEST,
    GUEST_ENVIRONMENT,
    Node,
    Others,
    Writers,
    members,
    write_ballast,
)
from tests.system.power.machine import Machine, copy_disk, wait_until

ALONE = ("append", "checkpoint", "trim")
"""Phases of a cluster of one; the others need one of three."""
TOGETHER = ("election", "snapshot install")

CUTS_OF_A_LIFE = 20
"""Then a fresh disk: readings grow, and the emulated machine reads them all back after every cut."""

ELECTION_S = 30.0
"""The machine's election timeout is two seconds of its own, emulated time."""

ELECTION_TRIES = 10

MISSES = 5
"""A cut that is aimed at a phase hits another one now and then: so many times the goal, then the run gives up."""

BACK_S = 600.0
"""On a machine that does nothing else it takes four seconds; the test runs beside others too."""

ELECTION = ("started_pre_vote", "granted_vote", "became_candidate", "asked_to_take_over")
"""What the console says when the machine begins to take part in an election."""

BALLAST_READINGS = 150_000
"""They do not compress: two megabytes of snapshot, of which the install takes its time."""


class Campaign:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.disk = folder / "run.img"
        self.report: dict[str, Any] = {"seed": seed, "cuts": {}, "acknowledged": 0, "lives": 0, "back_s": []}
        if self._result.exists():
            self.report |= json.loads(self._result.read_text())
        self.cuts: Counter[str] = Counter(self.report["cuts"])
        self.pages: Counter[str] = Counter(self.report.get("pages", {}))
        # A run that goes on does not do the same again.
        self.rng = random.Random(f"{self.report['seed']} {self.report['lives']}")
        self._unchecked: list[str] = []

    @property
    def _result(self) -> Path:
        return self.folder / "result.json"

    def save(self) -> None:
        back = sorted(self.report["back_s"])
        self.report |= {"cuts": dict(self.cuts), "cuts_total": self.cuts.total(), "pages": dict(self.pages)}
        if back:
            self.report["back"] = {"median_s": back[len(back) // 2], "max_s": back[-1]}
        self._result.write_text(json.dumps(self.report, indent=2) + "\n")

    def machine(self, *, is_lying: bool = False) -> Machine:
        return Machine(self.folder, self.disk, client_port=CLIENT_PORT, address=GUEST, is_lying=is_lying)

    def others(self, folder: Path) -> Others:
        return Others(folder.absolute(), self.folder.absolute() / "root/site", self.folder)

    def cut(self, machine: Machine, after: int) -> None:
        answer = machine.cut(
            after=after, keep_percent=self.rng.choice((0, 30, 70, 100)), seed=self.rng.getrandbits(32)
        )
        words = answer.split()
        self.pages.update({"flushes": int(words[1]), "dirty": int(words[3]), "kept": int(words[5])})

    def count(self, phase: str, detail: str) -> None:
        """The machine was cut; it counts once it is back."""
        self._unchecked.append(phase)
        print(f"{self.cuts.total() + len(self._unchecked):4} {phase:16} {detail}", flush=True)

    def check(self, writers: Writers, node: Node, counts: tuple[int, int]) -> None:
        missing = writers.missing(node, counts)
        assert not missing, f"lost after a cut in {self._unchecked}: {missing[:10]} of {counts}"
        self.cuts.update(self._unchecked)
        self._unchecked.clear()
        self.save()

    def wanted(self, phases: Sequence[str], goal: int) -> str:
        """The phase with the fewest cuts; empty: each has its goal."""
        fewest = min(phases, key=lambda phase: self.cuts[phase])
        return fewest if self.cuts[fewest] < goal else ""

    def run(self, goal: int) -> None:
        """Lives in turn, until each phase has had its goal."""
        lives_max = MISSES * goal * len((*ALONE, *TOGETHER)) // CUTS_OF_A_LIFE + 2
        while self.wanted((*ALONE, *TOGETHER), goal):
            assert self.report["lives"] < lives_max, (
                f"{lives_max} lives, and still not {goal} cuts of each phase"
            )
            self.report["lives"] += 1
            life = self.report["lives"]
            self.life_of_one(goal, life)
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                self.life_of_three(goal, 1_000 + life, Path(folder))

    # a cluster of one: the strictest judge, there is no other copy -------------------------------------------

    def life_of_one(self, goal: int, life: int) -> None:
        if not self.wanted(ALONE, goal):
            return
        copy_disk(self.folder / "data.img", self.disk)
        node = Node(CLIENT_PORT)
        writers = Writers([node.endpoint], life)
        counts = (0, 0)
        try:
            for number in range(CUTS_OF_A_LIFE + 1):
                machine = self.machine()
                try:
                    found = self.come_back(machine, node, GUEST_ENVIRONMENT)
                    # A leader knows that it leads before what it found in its journal is committed in its term and
                    # applied; until then its own answers lack the last of it.
                    self.wait_until_applied(node, found.last_index)
                    self.check(writers, node, counts)
                    aim = self.wanted(ALONE, goal)
                    if number == CUTS_OF_A_LIFE or not aim:
                        break
                    self.cut_one(machine, node, aim)
                finally:
                    machine.stop()
                counts = writers.counts()
            self.report["acknowledged"] += sum(counts)
        finally:
            writers.abandon()
            node.close()

    def come_back(
        self, machine: Machine, node: Node, environment: dict[str, str]
    ) -> cluster_pb2.GetStatusResponse:
        began = time.monotonic()
        machine.power_up(environment)
        found = node.serving(BACK_S)
        self.report["back_s"].append(round(time.monotonic() - began, 1))
        return found

    def wait_until_applied(self, node: Node, goal: int) -> None:
        def has_applied() -> bool:
            status = node.status()
            return status is not None and status.applied_index >= goal

        wait_until(has_applied, BACK_S, f"did not apply up to {goal}: {node.status()}")

    def cut_one(self, machine: Machine, node: Node, aim: str) -> None:
        time.sleep(self.rng.uniform(0.2, 0.8))
        if aim == "append":
            self.cut(machine, self.rng.randrange(8))
            self.count("append", "")
            return
        call = node.checkpoint()
        after = self.rng.randrange(24)
        if aim == "trim":
            call.result()
            after = self.rng.randrange(5)
        had_trimmed = machine.has_line(" trimmed ")
        self.cut(machine, after)
        is_answered = call.done() and call.exception() is None
        if not is_answered:
            self.count("checkpoint", f"after {after} writes and flushes")
        elif machine.has_line(" trimmed ") or had_trimmed:
            self.count("trim", f"after {after} writes and flushes")
        else:
            self.count("append", "the checkpoint was already durable")

    # a cluster of three: snapshots and elections ---------------------------------------------------------------

    def life_of_three(self, goal: int, life: int, folder: Path) -> None:
        if not self.wanted(TOGETHER, goal):
            return
        copy_disk(self.folder / "data.img", self.disk)
        environment = {**GUEST_ENVIRONMENT, "RAFTBERRY_CLUSTER__INITIAL_MEMBERS": members()}
        others, node = self.others(folder), Node(CLIENT_PORT)
        others.start()
        writers: Writers | None = None
        counts = (0, 0)
        try:
            for number in range(CUTS_OF_A_LIFE + 1):
                machine = self.machine()
                try:
                    self.come_back(machine, node, environment)
                    writers = writers or Writers([other.endpoint for other in others.nodes.values()], life)
                    self.catch_up(node, others)
                    self.check(writers, node, counts)
                    aim = self.wanted(TOGETHER, goal)
                    if number == CUTS_OF_A_LIFE or not aim:
                        break
                    if aim == "election":
                        self.cut_election(machine, node, others)
                    else:
                        self.cut(machine, 0)
                finally:
                    machine.stop()
                if aim != "election":
                    self.make_snapshot_needed(others, number)
                    self.cut_snapshot(environment)
                counts = writers.counts()
            self.report["acknowledged"] += sum(counts)
        finally:
            if writers is not None:
                writers.abandon()
            others.stop()
            node.close()

    def catch_up(self, node: Node, others: Others) -> None:
        found = [one.status() for one in others.nodes.values()]
        self.wait_until_applied(node, max(one.commit_index for one in found if one is not None))

    def cut_election(self, machine: Machine, node: Node, others: Others) -> None:
        """Another node leads. It stands still, so that the machine asks for votes or is asked for one, or it hands
        over; the cut comes when the machine has said so, among the writes that make term and vote durable."""
        leader = self.leader_elsewhere(node, others)
        start = machine.line_count()
        way = self.rng.choices(("the leader stands still", "leadership is handed over"), (9, 1))[0]
        if way == "the leader stands still":
            others.pause(leader)
        try:
            has_begun = ""
            for _ in range(ELECTION_TRIES):
                if way == "leadership is handed over":
                    # Refused until the machine, slow as it is, has all that the leader has.
                    others.nodes[leader].transfer(CUT)
                if has_begun := machine.wait_for_any(ELECTION, start, ELECTION_S / ELECTION_TRIES):
                    break
            after = self.rng.randrange(8)
            self.cut(machine, after)
        finally:
            others.resume(leader)
        is_over = machine.has_line("became_leader", start)
        phase = "election" if has_begun and not is_over else "append"
        self.count(phase, f"{way}; {has_begun or 'no election began'}; after {after} writes and flushes")

    def leader_elsewhere(self, node: Node, others: Others) -> str:
        """The name of the one that leads; the machine hands over if it is the leader itself."""
        end = time.monotonic() + BACK_S
        while not (leader := others.leader()):
            assert time.monotonic() < end, "no other node becomes leader"
            node.transfer(next(iter(others.nodes))).exception()
            time.sleep(0.2)
        return leader

    def make_snapshot_needed(self, others: Others, number: int) -> None:
        end = time.monotonic() + BACK_S
        while not (leader := others.leader()):
            assert time.monotonic() < end, "the two others have no leader"
            time.sleep(0.1)
        write_ballast(others.nodes[leader], self.rng, number=number, readings=BALLAST_READINGS)
        for other in others.nodes.values():
            other.checkpoint().result()

    def cut_snapshot(self, environment: dict[str, str]) -> None:
        machine = self.machine()
        try:
            machine.power_up(environment)
            machine.wait_for_line(" connected ", BACK_S)
            time.sleep(self.rng.uniform(0, 0.5))
            after = self.rng.randrange(12)
            self.cut(machine, after)
            is_installed = machine.has_line(" installed ")
            self.count("append" if is_installed else "snapshot install", f"after {after} writes and flushes")
        finally:
            machine.stop()

    # a disk that lies ------------------------------------------------------------------------------------------

    def lie_to_one(self) -> str:
        """A cluster of one on a card that lies must lose readings, else this test could not fail."""
        copy_disk(self.folder / "data.img", self.disk)
        node = Node(CLIENT_PORT)
        writers = Writers([node.endpoint], 9_001)
        try:
            self.one_power_up(node, is_lying=False, write_s=1.0)
            self.one_power_up(node, is_lying=True, write_s=3.0)
            counts = writers.counts()
            writers.abandon()
            time.sleep(2)
            machine = self.machine()
            try:
                machine.power_up(GUEST_ENVIRONMENT)
                node.serving(BACK_S)
                missing = writers.missing(node, counts)
            finally:
                machine.stop()
        finally:
            node.close()
        assert missing, "a disk that lies about flushes lost nothing: this test cannot fail"
        return f"{len(missing)} of {sum(counts)} acknowledged readings were gone"

    def one_power_up(self, node: Node, *, is_lying: bool, write_s: float) -> None:
        machine = self.machine(is_lying=is_lying)
        try:
            machine.power_up(GUEST_ENVIRONMENT)
            node.serving(BACK_S)
            time.sleep(write_s)
            machine.cut(after=0, keep_percent=0, seed=0)
        finally:
            machine.stop()

    def lie_to_three(self, folder: Path) -> str:
        """In a cluster of three the others remember what the node acknowledged, and keep it out."""
        copy_disk(self.folder / "data.img", self.disk)
        environment = {**GUEST_ENVIRONMENT, "RAFTBERRY_CLUSTER__INITIAL_MEMBERS": members()}
        others, node = self.others(folder), Node(CLIENT_PORT)
        others.start()
        writers: Writers | None = None
        try:
            for is_lying in (False, True):
                machine = self.machine(is_lying=is_lying)
                try:
                    machine.power_up(environment)
                    node.serving(BACK_S)
                    writers = writers or Writers([other.endpoint for other in others.nodes.values()], 9_003)
                    self.catch_up(node, others)
                    time.sleep(2)
                    machine.cut(after=0, keep_percent=0, seed=0)
                finally:
                    machine.stop()
            return self.quarantine_of(node, environment)
        finally:
            if writers is not None:
                writers.abandon()
            others.stop()
            node.close()

    def quarantine_of(self, node: Node, environment: dict[str, str]) -> str:
        machine = self.machine()
        try:
            machine.power_up(environment)
            end = time.monotonic() + BACK_S
            while (found := node.status()) is None or found.role != cluster_pb2.ROLE_QUARANTINED:
                assert time.monotonic() < end, f"a node that forgot what it acknowledged takes part: {found}"
                time.sleep(0.1)
        finally:
            machine.stop()
        return "; ".join(found.alarms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--goal", type=int, default=40, help="cuts of each of the five phases")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    # What was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    campaign = Campaign(arguments.folder, arguments.seed)
    report = campaign.report
    report.pop("verdict", None)
    try:
        save_memory(campaign)
        if "lie_to_one" not in report:
            report["lie_to_one"] = campaign.lie_to_one()
            print(f"lying disk, one: {report['lie_to_one']}", flush=True)
        if "lie_to_three" not in report:
            with tempfile.TemporaryDirectory(dir=campaign.folder) as folder:
                report["lie_to_three"] = campaign.lie_to_three(Path(folder))
            print(f"lying disk, three: {report['lie_to_three']}", flush=True)
        campaign.run(arguments.goal)
        report["verdict"] = "nothing lost"
    except (AssertionError, grpc.RpcError) as error:
        report["verdict"] = f"FAILED: {error}"
    campaign.save()
    print(json.dumps({key: value for key, value in report.items() if key != "back_s"}, indent=2))
    sys.exit(0 if report["verdict"] == "nothing lost" else 1)


def save_memory(campaign: Campaign) -> None:
    """Boot once; every power-up begins from there."""
    if (campaign.folder / "memory").exists():
        return
    copy_disk(campaign.folder / "data.img", campaign.disk)
    machine = campaign.machine()
    try:
        machine.save()
    finally:
        machine.stop()


if __name__ == "__main__":
    main()
