"""For scripts: a calm world, with clients at work, and a stage, where nothing happens unless it is told.

Invariant: no fault but those that the script makes. On a stage no order of events depends on a random source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from appliance.consensus import ConsensusOptions
from appliance.errors import NotApplied
from appliance.model import Verdict
from appliance.node.batch import Batch
from appliance.node.options import NodeOptions
from appliance.node.proposals import Completion
from appliance.state import OperationResult, StateOptions
from appliance.state.operations import put_key
from raftberry.internal.v1 import command_pb2
from tests.simulation.failure import CheckFailed, require
from tests.simulation.hand_links import HandLinks
from tests.simulation.history import Attempted
from tests.simulation.network import Endpoint
from tests.simulation.node import ClusterOptions, Machine, Process
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS
from tests.simulation.world import Plan, World

NO_KINDS: frozenset[str] = frozenset()


@contextmanager
def calm_world(seed: int = 1, *, size: int = 3, is_tiny: bool = True) -> Iterator[World]:
    """Started, with a leader and clients at work."""
    world = World(Plan(seed, size=size, kinds=NO_KINDS, is_tiny=is_tiny))
    world.network.spike_rate, world.network.delay_ns_max = 0.0, 2 * MILLISECOND_NS
    for machine in world.machines:
        machine.speed.commit_ns_median = MILLISECOND_NS
    with world.opened():
        world.start()
        run_until(world, lambda: world.leader() is not None)
        world.run_for(SECOND_NS)
        yield world


def run_until(world: World, is_reached: Callable[[], bool], *, bound_ns: int = 10 * SECOND_NS) -> int:
    """Nanoseconds until the condition held, to a few milliseconds."""
    begun = world.schedule.now_ns
    while not is_reached():
        assert world.schedule.now_ns - begun < bound_ns, world.describe()
        world.run_for(5 * MILLISECOND_NS)
    return world.schedule.now_ns - begun


def leader_of(world: World) -> Machine:
    leader = world.leader()
    assert leader is not None, world.describe()
    return leader


def follower_of(world: World) -> Machine:
    leader = leader_of(world)
    return next(machine for machine in world.machines if machine is not leader)


def isolate(world: World, machine: Machine) -> None:
    for other in world.machines:
        if other is not machine:
            world.network.block(machine.member_id, other.member_id)
            world.network.block(other.member_id, machine.member_id)


def finish(world: World) -> None:
    """Mend, rest, and check all there is to check at the end."""
    world.heal()
    world.check_end()


# a stage ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    """What became of a write or a read. outcome: "" while nothing was heard; else ok, not applied, unknown."""

    outcome: str = ""
    index: int = 0


class Stage:
    """A cluster in the hands of a script: nobody stands for election, and nobody writes, unless told.

    The verbs are those of an operator and of the world: connect, cut, hold, release, crash, start, pause, stall;
    elect, put, read, propose; expect. All checkers look at every step.
    """

    def __init__(
        self,
        size: int,
        *,
        node: NodeOptions | None = None,
        consensus: ConsensusOptions | None = None,
    ) -> None:
        world = self.world = World(Plan(0, size=size, kinds=NO_KINDS, is_tiny=False))
        world.clients = []
        self.links = HandLinks(world.schedule, self._joined)
        world.network = self.links  # type: ignore[assignment]
        self.nodes = world.machines
        self._is_timid = True
        self._count = 0
        self._replaced: list[tuple[type | ModuleType, str, object]] = []
        options = ClusterOptions(
            world.machines[0].cluster.cluster_id,
            world.machines[0].cluster.members,
            node or NodeOptions(),
            consensus or ConsensusOptions(),
            StateOptions(),
        )
        for machine in self.nodes:
            machine.cluster, machine.speed.commit_ns_median = options, MILLISECOND_NS

    # time ------------------------------------------------------------------------------------------------

    def wait(self, milliseconds: int) -> None:
        self.world.run_for(milliseconds * MILLISECOND_NS)

    def until(self, is_reached: Callable[[], bool], check: str, *, within_ms: int = 10_000) -> None:
        """Fails as `check` if it takes longer."""
        for _ in range(within_ms):
            if is_reached():
                return
            self.wait(1)
        raise CheckFailed(check, f"not within {within_ms} ms: {self.world.describe()}")

    def expect(self, is_right: bool, check: str) -> None:
        require(is_right, check, self.world.describe())

    def replace(self, owner: type | ModuleType, name: str, value: object) -> None:
        """A bound of production code, or what a script wants to watch, until the stage closes."""
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def close(self) -> None:
        while self._replaced:
            setattr(*self._replaced.pop())

    # power, signals, cards -------------------------------------------------------------------------------

    def crash(self, *machines: Machine) -> None:
        for machine in machines:
            machine.crash()

    def start(self, *machines: Machine) -> None:
        for machine in machines:
            self.world.restart(machine)
        self.wait(20)

    def pause(self, machine: Machine) -> None:
        process_of(machine).pause()

    def resume(self, machine: Machine) -> None:
        process_of(machine).resume()

    def stall(self, machine: Machine, milliseconds: int) -> None:
        """Its card finishes nothing meanwhile."""
        machine.speed.stalled_until_ns = self.world.schedule.now_ns + milliseconds * MILLISECOND_NS

    # cables ----------------------------------------------------------------------------------------------

    def hold(self, source: Machine, *targets: Machine) -> None:
        """One way: what is sent piles up."""
        for target in targets:
            self.links.hold(source.member_id, target.member_id)

    def release(self, source: Machine, *targets: Machine) -> None:
        for target in targets:
            self.links.release(source.member_id, target.member_id)

    def cut(self, machine: Machine, *others: Machine) -> None:
        for other in others or self._others(machine):
            self.links.cut(machine.member_id, other.member_id)
        self.wait(5)

    def connect(self, machine: Machine, *others: Machine) -> None:
        for other in others or self._others(machine):
            self.links.connect(machine.member_id, other.member_id)
        self.wait(5)

    # Raft ------------------------------------------------------------------------------------------------

    def stand(self, *machines: Machine) -> None:
        """Their election timeout passes now."""
        for machine in machines:
            process = process_of(machine)
            process.core.engine._election.deadline_ns = 0
            process.call(process.core.request_wake)

    def elect(self, machine: Machine) -> None:
        """Stand, win, and commit the NO_OP of the term."""
        engine = process_of(machine).core.engine
        self.stand(machine)
        self.until(lambda: engine.is_leader and engine.has_committed_in_term, "elected")
        self.wait(50)

    def hand_over(self, machine: Machine, heir: Machine) -> None:
        """Ask it to; it may refuse."""
        process = process_of(machine)

        def begin() -> None:
            with suppress(NotApplied):
                process.core.begin_transfer(heir.name)

        process.call(begin)

    def propose(self, machine: Machine, count: int, size: int = 10) -> None:
        """Entries straight into the leader's engine, one Put each, for which nobody waits."""
        for _ in range(count):
            self.propose_operation(machine, put_key(f"p{self._count % 40}", self._value(size)))

    def propose_operation(self, machine: Machine, operation: command_pb2.Operation) -> None:
        batch = Batch()
        batch.add(operation.SerializeToString())
        self.append(machine, batch.encode(time_unix_nano=machine.clock.wall_ns(), elapsed_ns=1))

    def append(self, machine: Machine, command: bytes) -> None:
        """An entry of any kind."""
        process = process_of(machine)

        def propose() -> None:
            process.core.engine.propose(command)

        process.call(propose)
        process.call(process.core.request_wake)

    def checkpoint(self, machine: Machine) -> None:
        process = process_of(machine)
        process.call(lambda: process.core.checkpoint(lambda _: None))
        self.wait(50)

    # callers ---------------------------------------------------------------------------------------------

    def put(
        self,
        machine: Machine,
        key: str = "k0",
        *,
        producer: str = "",
        sequence: int = 0,
        if_mod_revision: int | None = None,
        patience_ms: int = 60_000,
    ) -> Call:
        """A Put of a unique value, whose outcome goes to the history."""
        operation = put_key(key, self._value(10), if_mod_revision=if_mod_revision)
        operation.producer_id, operation.sequence = producer, sequence
        history, call = self.world.history, Call()
        attempted = Attempted(self._count, "put", history.latest_index, self.world.schedule.now_ns)
        if sequence:
            history.reference.by_sequence.setdefault((producer, sequence), self._count)

        def heard(completion: Completion) -> None:
            if completion.error is None:
                result = completion.result
                assert isinstance(result, OperationResult)
                call.outcome, call.index = "ok", result.index
                history.was_applied(attempted, result.index, is_duplicate=result.verdict is Verdict.DUPLICATE)
            elif isinstance(completion.error, NotApplied):
                call.outcome = "not applied"
                history.was_not_applied(attempted)
            else:
                call.outcome = "unknown"
                history.was_lost(attempted)

        def done(completion: Completion) -> None:
            self.world.schedule.after(0, partial(heard, completion))

        process = process_of(machine)
        deadline_ns = machine.clock.monotonic_ns() + patience_ms * MILLISECOND_NS

        def submit() -> None:
            try:
                process.core.submit(operation, deadline_ns, done)
            except NotApplied as error:
                heard(Completion(error))

        process.call(submit)
        return call

    def read(self, machine: Machine, key: str = "k0") -> Call:
        """A linearizable read, judged by the history."""
        process, history, call = process_of(machine), self.world.history, Call()
        after_index = history.latest_index

        def done(error: NotApplied | None) -> None:
            call.outcome = "ok" if error is None else "not applied"
            if error is None:
                state = process.core.state
                record = state.key(key)
                value, revision = (record.value, record.mod_revision) if record is not None else (None, 0)
                call.index = state.position.index
                history.was_read(key, value, revision, state.position.index, after_index)

        deadline_ns = machine.clock.monotonic_ns() + 60 * SECOND_NS
        process.call(lambda: process.core.read_barrier(deadline_ns, done))
        return call

    # the end ---------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Mend everything; the cluster elects, comes to rest and takes a write; all is checked."""
        self._is_timid = False
        for machine in self.nodes:
            self.release(machine, *self._others(machine))
            machine.speed.stalled_until_ns = 0
            if machine.process is not None:
                election = machine.process.core.engine._election
                for name in ("postpone", "lost_leader"):
                    election.__dict__.pop(name, None)
                machine.process.call(election.postpone)
                machine.process.call(machine.process.core.request_wake)
            self.connect(machine)
        self.world.heal()
        self.world.check_end()

    # helpers ---------------------------------------------------------------------------------------------

    def _joined(self, process: Endpoint) -> None:
        """A process started: its election timeout never passes by itself."""
        if not self._is_timid:
            return
        assert isinstance(process, Process)
        election = process.core.engine._election

        def never() -> None:
            election.deadline_ns, election._granted = 1 << 62, set()

        def lost() -> None:
            election._heard_leader_ns = None

        election.__dict__.update(postpone=never, lost_leader=lost)
        never()

    def _others(self, machine: Machine) -> list[Machine]:
        return [other for other in self.nodes if other is not machine]

    def _value(self, size: int) -> bytes:
        self._count += 1
        return b"%d %s" % (self._count, b"." * size)


@contextmanager
def stage(
    size: int = 3, *, node: NodeOptions | None = None, consensus: ConsensusOptions | None = None
) -> Iterator[Stage]:
    """Started and connected; nobody leads yet."""
    made = Stage(size, node=node, consensus=consensus)
    with made.world.opened():
        try:
            made.start(*made.nodes)
            yield made
        finally:
            made.close()


def process_of(machine: Machine) -> Process:
    assert machine.process is not None, f"{machine.name} is down"
    return machine.process
