"""Cuts the power many times and says what was lost: python -m tests.system.power.campaign FOLDER

A cut is counted under the phase that was under way when the disk stopped, as the console and the calls left
unanswered show it, not under the one that was aimed at.
Invariant: the run fails at the first acknowledged reading that is missing on an honest disk.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc

from raftberry.v1 import cluster_pb2
from tests.system.power.cluster import (
    CLIENT_PORT,
    CUT,
    GUEST_ENVIRONMENT,
    PEER_PORT,
    Node,
    Others,
    Writers,
    guest_members,
    write_ballast,
)
from tests.system.power.machine import Machine, copy_disk

CUTS_OF_A_LIFE = 20
"""Then a fresh disk: readings grow, and the emulated machine reads them all back after every cut."""

BACK_S = 120.0
"""Seconds on a machine that does nothing else: three; the test runs beside others too."""

BALLAST_READINGS = 150_000
"""They do not compress: two megabytes of snapshot, of which the install takes its time."""


class Campaign:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.disk = folder / "run.img"
        self.rng = random.Random(seed)
        self.cuts: Counter[str] = Counter()
        self.pages: Counter[str] = Counter()
        self.back_s: list[float] = []
        self.acknowledged = 0

    def machine(self, *, is_lying: bool = False) -> Machine:
        return Machine(
            self.folder, self.disk, client_port=CLIENT_PORT, peer_port=PEER_PORT, is_lying=is_lying
        )

    def cut(self, machine: Machine, after: int) -> None:
        answer = machine.cut(
            after=after, keep_percent=self.rng.choice((0, 30, 70, 100)), seed=self.rng.getrandbits(32)
        )
        words = answer.split()
        self.pages.update({"flushes": int(words[1]), "dirty": int(words[3]), "kept": int(words[5])})

    def count(self, phase: str, detail: str) -> None:
        self.cuts[phase] += 1
        print(f"{sum(self.cuts.values()):4} {phase:16} {detail}", flush=True)

    # a cluster of one: the strictest judge, there is no other copy -------------------------------------------

    def life_of_one(self, cuts: int, life: int) -> None:
        copy_disk(self.folder / "data.img", self.disk)
        node = Node(CLIENT_PORT)
        writers = Writers([node.endpoint], life)
        counts = (0, 0)
        try:
            for number in range(cuts + 1):
                machine = self.machine()
                try:
                    self.come_back(machine, node, GUEST_ENVIRONMENT)
                    missing = writers.missing(node, counts)
                    assert not missing, f"lost after a power cut: {missing[:10]} of {counts}"
                    if number < cuts:
                        self.cut_one(machine, node, number)
                finally:
                    machine.stop()
                counts = writers.counts()
            self.acknowledged += sum(counts)
        finally:
            writers.abandon()
            node.close()

    def come_back(self, machine: Machine, node: Node, environment: dict[str, str]) -> None:
        began = time.monotonic()
        machine.power_up(environment)
        node.serving(BACK_S)
        self.back_s.append(time.monotonic() - began)

    def cut_one(self, machine: Machine, node: Node, number: int) -> None:
        time.sleep(self.rng.uniform(0.2, 0.8))
        aim = ("append", "checkpoint", "trim")[number % 3]
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

    def life_of_three(self, cycles: int, life: int, folder: Path) -> None:
        copy_disk(self.folder / "data.img", self.disk)
        environment = {**GUEST_ENVIRONMENT, "RAFTBERRY_CLUSTER__INITIAL_MEMBERS": guest_members()}
        others, node = Others(folder), Node(CLIENT_PORT)
        others.start()
        writers: Writers | None = None
        counts = (0, 0)
        try:
            for number in range(cycles + 1):
                machine = self.machine()
                try:
                    self.come_back(machine, node, environment)
                    writers = writers or Writers([other.endpoint for other in others.nodes.values()], life)
                    self.catch_up(node, others)
                    missing = writers.missing(node, counts)
                    assert not missing, f"lost after a power cut: {missing[:10]} of {counts}"
                    if number == cycles:
                        break
                    self.cut_election(machine, others)
                finally:
                    machine.stop()
                counts = writers.counts()
                self.make_snapshot_needed(others, number)
                self.cut_snapshot(environment, node)
                counts = writers.counts()
            self.acknowledged += sum(counts)
        finally:
            if writers is not None:
                writers.abandon()
            others.stop()
            node.close()

    def catch_up(self, node: Node, others: Others) -> None:
        end = time.monotonic() + BACK_S
        found = [one.status() for one in others.nodes.values()]
        goal = max(one.commit_index for one in found if one is not None)
        while (status := node.status()) is None or status.applied_index < goal:
            assert time.monotonic() < end, f"did not catch up to {goal}: {status}"
            time.sleep(0.1)

    def cut_election(self, machine: Machine, others: Others) -> None:
        leader = others.leader()
        if leader is None:
            self.cut(machine, self.rng.randrange(8))
            self.count("append", "as the leader of three")
            return
        call = leader.transfer(CUT)
        end = time.monotonic() + 10
        while not machine.has_line("asked_to_take_over") and not call.done() and time.monotonic() < end:
            time.sleep(0.001)
        after = self.rng.randrange(8)
        self.cut(machine, after)
        has_begun = machine.has_line("asked_to_take_over") or machine.has_line("became_candidate")
        self.count("election" if has_begun else "append", f"after {after} writes and flushes")

    def make_snapshot_needed(self, others: Others, number: int) -> None:
        end = time.monotonic() + 20
        while (leader := others.leader()) is None:
            assert time.monotonic() < end, "the two others have no leader"
            time.sleep(0.1)
        write_ballast(leader, self.rng, number=number, readings=BALLAST_READINGS)
        for other in others.nodes.values():
            other.checkpoint().result()

    def cut_snapshot(self, environment: dict[str, str], node: Node) -> None:
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
        environment = {**GUEST_ENVIRONMENT, "RAFTBERRY_CLUSTER__INITIAL_MEMBERS": guest_members()}
        others, node = Others(folder), Node(CLIENT_PORT)
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
    parser.add_argument("--one", type=int, default=110, help="cuts of a cluster of one")
    parser.add_argument("--three", type=int, default=60, help="cycles of a cluster of three, two cuts each")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    campaign = Campaign(arguments.folder, arguments.seed)
    copy_disk(campaign.folder / "data.img", campaign.disk)
    machine = campaign.machine()
    try:
        if not (campaign.folder / "memory").exists():
            machine.save()
    finally:
        machine.stop()
    result: dict[str, object] = {"seed": arguments.seed}
    began = time.monotonic()
    try:
        result["lie_to_one"] = campaign.lie_to_one()
        print(f"lying disk, one: {result['lie_to_one']}", flush=True)
        with tempfile.TemporaryDirectory(dir=campaign.folder) as folder:
            result["lie_to_three"] = campaign.lie_to_three(Path(folder))
        print(f"lying disk, three: {result['lie_to_three']}", flush=True)
        one, three, life = arguments.one, arguments.three, 0
        while one > 0 or three > 0:
            life += 1
            if one > 0:
                campaign.life_of_one(min(one, CUTS_OF_A_LIFE), life)
                one -= CUTS_OF_A_LIFE
            if three > 0:
                with tempfile.TemporaryDirectory(dir=campaign.folder) as folder:
                    campaign.life_of_three(min(three, CUTS_OF_A_LIFE // 2), 1_000 + life, Path(folder))
                three -= CUTS_OF_A_LIFE // 2
        result["verdict"] = "nothing lost"
    except (AssertionError, grpc.RpcError) as error:
        result["verdict"] = f"FAILED: {error}"
    back = sorted(campaign.back_s)
    result |= {
        "cuts": dict(campaign.cuts),
        "cuts_total": sum(campaign.cuts.values()),
        "acknowledged": campaign.acknowledged,
        "pages": dict(campaign.pages),
        "back_s": {"median": round(back[len(back) // 2], 1), "max": round(back[-1], 1)} if back else {},
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    (campaign.folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    sys.exit(0 if result["verdict"] == "nothing lost" else 1)


if __name__ == "__main__":
    main()
