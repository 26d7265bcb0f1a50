"""One guard off, and the named checker catches it; on, the same seed or script passes.

Where random seeds reach the hazard, the first of a few that fails is taken; where they don't, a script leads there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from pysyncobj import SyncObj

from appliance.consensus import guard, reconcile
from appliance.consensus.core import Core
from appliance.consensus.engine import Engine
from appliance.consensus.guard import Guard
from appliance.consensus.promises import Promises
from appliance.consensus.reads import ReadDone, Reads
from appliance.consensus.reconcile import Accepted, ReadableLog, Rejected
from appliance.errors import NotApplied
from appliance.model import Configuration, Entry, MemberId, Position
from appliance.node.acquaintance import Acquaintances
from appliance.node.core import NodeCore
from appliance.node.proposals import Proposals
from raftberry.internal.v1 import peer_pb2
from tests.simulation.failure import CheckFailed
from tests.simulation.node import Machine, Process
from tests.simulation.schedule import SECOND_NS
from tests.simulation.script import calm_world, finish, follower_of, leader_of, run_until
from tests.simulation.swarm import run_seed
from tests.simulation.world import Plan, World

Ablate = Callable[[pytest.MonkeyPatch], None]

# by seeds ------------------------------------------------------------------------------------------------


def promise_at_once(patch: pytest.MonkeyPatch) -> None:
    """H1: acks, votes and vote requests leave before the journal is durable."""

    def make(self: Promises, member: MemberId, frame: peer_pb2.Frame) -> bool:
        self._replica.send(member, frame)
        return True

    patch.setattr(Promises, "make", make)


def commit_alone_before_durable(patch: pytest.MonkeyPatch) -> None:
    """H1: a cluster of one commits at once."""
    patch.setattr(Core, "_SyncObj__getEntries", SyncObj._SyncObj__getEntries)


def count_acks_beyond_own_disk(patch: pytest.MonkeyPatch) -> None:
    """H1: the leader commits by its followers' disks before its own."""

    def count_ack(self: Guard, member: MemberId) -> None:
        following, index = self.core.next_index(member), self._acknowledged[member] + 1
        self.core.receive(
            member, {"type": "next_node_idx", "reset": False, "success": True, "next_node_idx": index}
        )
        self.core.keep_next_index(member, following)

    patch.setattr(Guard, "_count_ack", count_ack)


def read_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """H18: a leader answers reads without asking whether it still leads."""

    def ask(self: Reads, done: ReadDone) -> None:
        done(self._core.raftCommitIndex if self._core.is_leader else None)

    patch.setattr(Reads, "ask", ask)


def believe_every_disk(patch: pytest.MonkeyPatch) -> None:
    """Design, section 5: nobody compares a peer with what it acknowledged."""
    patch.setattr(Acquaintances, "_judge_memory", lambda *_: None)


@pytest.mark.parametrize(
    ("ablate", "checks", "size", "seeds"),
    [
        (promise_at_once, {"promise_is_durable"}, 3, range(3)),
        (commit_alone_before_durable, {"durable_on_majority", "index_order"}, 1, range(3)),
        (count_acks_beyond_own_disk, {"durable_on_majority", "index_order"}, 3, range(5)),
        (read_without_a_round, {"linearizable_reads"}, 5, range(40)),
        (
            believe_every_disk,
            {"amnesia", "convergence", "durable_index", "promise_is_durable"},
            None,
            range(80),
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_guard_that_is_off_is_missed(
    monkeypatch: pytest.MonkeyPatch, ablate: Ablate, checks: set[str], size: int | None, seeds: range
) -> None:
    with monkeypatch.context() as patch:
        ablate(patch)
        failed = next(
            (report for report in (run_seed(Plan(seed, size)) for seed in seeds) if report.failure), None
        )
    assert failed is not None, "no seed missed the guard"
    assert failed.failure is not None
    assert failed.failure.partition(":")[0] in checks, failed.failure
    assert run_seed(Plan(failed.seed, size)).failure is None


# by scripts ----------------------------------------------------------------------------------------------


def truncate_always(patch: pytest.MonkeyPatch) -> None:
    """H2: every AppendEntries cuts off all that follows its previous entry."""

    def cut(
        log: ReadableLog, previous: Position, entries: list[Entry], commit_index: int
    ) -> Accepted | Rejected:
        verdict = reconcile.reconcile(log, previous, entries, commit_index)
        if isinstance(verdict, Rejected):
            return verdict
        last = entries[-1][1] if entries else previous.index
        conflict = previous.index + 1 if log.last.index > previous.index else None
        return Accepted(previous, entries, last, conflict)

    def resolve(self: Guard, _: MemberId, verdict: Accepted) -> None:
        if verdict.conflict_index is not None:
            self._replica.log.truncate_from(verdict.conflict_index)

    patch.setattr(guard, "reconcile", cut)
    patch.setattr(Guard, "_resolve_conflict", resolve)


def install_always(patch: pytest.MonkeyPatch) -> None:
    """H7: a snapshot clears a log that already holds its last entry."""

    def install(self: Engine, position: Position, configuration: Configuration) -> None:
        self._replica.log.reset(position, configuration)
        self._core.installed(position)

    patch.setattr(NodeCore, "_is_snapshot_needed", lambda *_: True)
    patch.setattr(Engine, "install", install)


def believe_every_refusal(patch: pytest.MonkeyPatch) -> None:
    """H9, H10: the refusal of a forward that was sent twice is taken for the outcome of both."""

    def refused(self: Proposals, requests: list[int], *, is_overload: bool) -> None:
        self._requeue([request for request in requests if request in self._sent])

    patch.setattr(Proposals, "refused", refused)


class Tape:
    """Frames of some kinds that reached a process, to be delivered again: a network that repeats itself."""

    def __init__(self, process: Process, kind: str) -> None:
        self._process, self._kind, self._deliver = process, kind, process.on_frame
        self.frames: list[tuple[MemberId, bytes]] = []
        process.on_frame = self._record  # type: ignore[method-assign]

    def _record(self, member: MemberId, data: bytes) -> None:
        if peer_pb2.Frame.FromString(data).HasField(self._kind):
            self.frames.append((member, data))
        self._deliver(member, data)

    def replay(self, world: World) -> None:
        assert self.frames, f"no {self._kind} was seen"
        for member, data in list(self.frames):
            self._process.call(partial(self._deliver, member, data))
            world.run_for(SECOND_NS // 100)


def deliver_entries_twice() -> None:
    with calm_world(is_tiny=False) as world:
        process = follower_of(world).process
        assert process is not None
        tape = Tape(process, "append_entries")
        world.run_for(SECOND_NS)
        del tape.frames[20:]
        tape.replay(world)
        finish(world)


def deliver_a_snapshot_twice() -> None:
    with calm_world() as world:
        machine = follower_of(world)
        machine.crash()
        world.run_for(2 * SECOND_NS)
        world.restart(machine)
        assert machine.process is not None
        tape = Tape(machine.process, "snapshot_chunk")
        world.run_for(3 * SECOND_NS)
        tape.replay(world)
        world.run_for(SECOND_NS)
        finish(world)


def depose_a_leader_behind_a_follower(seed: int = 1) -> None:
    """A follower hears neither of its write's commit nor of the new leader, and sends it again to the old one."""
    with calm_world(seed, is_tiny=False) as world:
        for _ in range(4):
            leader, follower = leader_of(world), follower_of(world)
            heir = next(machine for machine in world.machines if machine not in (leader, follower))
            for machine in (leader, heir):
                world.network.slow(machine.member_id, follower.member_id, SECOND_NS)
            world.run_for(SECOND_NS // 20)
            run_until(world, partial(hand_over, leader, heir))
            world.network.break_link(leader.member_id, follower.member_id)
            world.network.slow(leader.member_id, follower.member_id, 0)
            world.run_for(2 * SECOND_NS)
        finish(world)


def hand_over(leader: Machine, heir: Machine) -> bool:
    assert leader.process is not None
    assert heir.process is not None
    with suppress(NotApplied):
        leader.process.core.begin_transfer(heir.name)
    return heir.process.core.engine.is_leader


@pytest.mark.parametrize(
    ("ablate", "script", "checks"),
    [
        (truncate_always, deliver_entries_twice, {"index_order"}),
        (install_always, deliver_a_snapshot_twice, {"local_reads_monotonic", "index_order"}),
        (believe_every_refusal, depose_a_leader_behind_a_follower, {"exactly_once"}),
    ],
    ids=["truncate_always", "install_always", "believe_every_refusal"],
)
def test_a_script_misses_the_guard_that_is_off(
    monkeypatch: pytest.MonkeyPatch, ablate: Ablate, script: Callable[[], None], checks: set[str]
) -> None:
    script()
    with monkeypatch.context() as patch:
        ablate(patch)
        with pytest.raises(CheckFailed) as failed:
            script()
    assert failed.value.check in checks, failed.value
