"""The leader's part of retention: it finds what is too old, or too much, and proposes that it goes.

Invariant: nothing is proposed for the age of readings while clocks are in doubt; one proposal is on its way at a
time; a slice of SERIES_AT_ONCE series is looked at in a turn of the loop. What was proposed is decided by the log, so
a new leader simply looks again. An idle cluster writes nothing: a look finds nothing, and leaves nothing behind.
Roll-ups: mark some series, compute their windows in the pool from the state behind the mark, propose the results.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from appliance.clock import Clock
from appliance.consensus import Engine, EventLog, LogImage
from appliance.model import Verdict
from appliance.node.clocks import Clocks
from appliance.node.options import NodeOptions
from appliance.node.refusals import RollUpName, RollUpRefusals
from appliance.node.rolling import RollUpJob, compute, prepare
from appliance.node.space import Space
from appliance.node.workers import Workers
from appliance.node.writing import WritePath
from appliance.state import Applied, StateMachine
from appliance.state.moment import Moment
from appliance.state.oldest import Oldest, SeriesBytes, choose_oldest
from appliance.state.retention import Policy, drop_readings, mark_roll_ups, rolled_from, unrolled
from appliance.state.series import Series
from appliance.storage.store import Store
from raftberry.internal.v1 import command_pb2

SERIES_AT_ONCE: Final = 200
DROPS_PER_ENTRY: Final = 32
"""Series: a head that straddles the time is decoded when the entry is applied. The others follow in the next."""

ROLL_UPS_AT_ONCE: Final = 25
"""Series of one round: 4 figures of some thousand windows each."""

STEPS: Final = 64
"""Readings go in steps of this part of the time they are kept: each step writes one block of a series anew."""

ROLL_UP_DELAY_NS: Final = 60_000_000_000
"""A window is rolled up when it has been over for so long; later readings have it computed again."""

FREED_PER_STEP: Final = 0.05
"""Of a full store's bytes, by `drop_oldest` at a time."""

FREED_MIN: Final = FREED_PER_STEP / 10
"""A round that freed less was in vain."""

PAUSE_NS_MIN: Final = 1_000_000_000
PAUSE_NS_MAX: Final = 600_000_000_000
"""After a round in vain; each doubles the next."""

Name = tuple[str, str]
Drop = tuple[str, str, int]
"""Sensor, metric, the time before which readings go."""


class Kept(Protocol):
    """The node, as far as retention looks at it."""

    state: StateMachine
    store: Store
    log: LogImage
    engine: Engine
    events: EventLog
    writes: WritePath
    workers: Workers
    options: NodeOptions
    clock: Clock

    def request_wake(self) -> None: ...


class RetentionKeeper:
    """What was dropped leaves the store with the next checkpoint."""

    def __init__(self, node: Kept, clocks: Clocks, space: Space) -> None:
        self._node, self._clocks, self._space = node, clocks, space
        self._next_look_ns = node.clock.monotonic_ns() + node.options.retention_interval_ns
        self._names: Iterator[Name] | None = None
        self._drops: list[Drop] = []
        """By age."""

        self._oldest: list[Drop] = []
        """By size."""

        self._survey: Moment[Series, SeriesBytes] | None = None
        self._deleted_bytes: int | None = None
        """Of series that the last round of drops ended; None: it is judged."""

        self._pause_ns = PAUSE_NS_MIN
        self._paused_until_ns = 0
        self._is_choosing = False
        """The pool looks for the time before which the oldest readings go."""

        self._rolling: list[Name] = []
        self._proposed_at = 0
        self._job: RollUpJob | None = None
        self._generation = 0
        self.refusals = RollUpRefusals(node.clock)
        self.doubt = ""
        """Why nothing is dropped by age or rolled up at present; empty: it may be, or there is no policy."""

    def cycle(self, doubt: str) -> None:
        """doubt: what Clocks says of the present members."""
        node = self._node
        self.doubt = doubt if node.state.retention.policies.policies else ""
        if not node.engine.has_committed_in_term or node.writes.is_held:
            self._forget()
            return
        if self.is_waiting:
            return
        if self.doubt:
            self._drops = []
        if len(self._drops) >= DROPS_PER_ENTRY or (self._drops and self._names is None):
            self._drops = self._propose_drops(self._drops)
        elif self._oldest:
            self._oldest = self._propose_drops(self._oldest)
        elif self._job is not None:
            self._go_on_rolling()
        elif self._space.wants_less() and not self._is_paused():
            self._drop_oldest()
        elif self._names is not None:
            self._look_on()
        elif node.clock.monotonic_ns() >= self._next_look_ns:
            self._next_look_ns = node.clock.monotonic_ns() + node.options.retention_interval_ns
            self.refusals.keep(self._is_to_be_rolled_up)
            if node.state.retention.policies.policies:
                self._names = iter(node.state.series_names())
                node.request_wake()

    def _forget(self) -> None:
        """Not leading, or handing over: whoever leads looks again."""
        self._names, self._job, self._rolling = None, None, []
        self._drops, self._oldest = [], []
        if self._survey is not None:
            self._survey.close()
        self._survey, self._is_choosing = None, False
        self._proposed_at = 0
        self._generation += 1
        self.refusals.keep(lambda _: False)

    @property
    def is_waiting(self) -> bool:
        """What was proposed last is not applied yet."""
        return self._proposed_at > self._node.state.position.index

    # by age ----------------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        assert self._names is not None
        if self.doubt:
            self._forget()
            return
        now = self._node.clock.wall_ns()
        for _ in range(SERIES_AT_ONCE):
            name = next(self._names, None)
            if name is None:
                self._names = None
                break
            self._look_at(name, now)
            if len(self._drops) >= DROPS_PER_ENTRY or len(self._rolling) >= ROLL_UPS_AT_ONCE:
                break
        if self._rolling and (self._names is None or len(self._rolling) >= ROLL_UPS_AT_ONCE):
            names, self._rolling = self._rolling, []
            self._job = RollUpJob(names, now - ROLL_UP_DELAY_NS)
            self._propose([mark_roll_ups(names)])
            return
        self._node.request_wake()

    def _look_at(self, name: Name, now: int) -> None:
        state = self._node.state
        series, policy = state.find_series(*name), state.retention.policies.find(*name)
        if series is None or policy is None or series.integer is None:
            return
        width_ns = rolled_from(series.metric)[1]
        if width_ns is None and self._can_roll_up(series, policy, now - ROLL_UP_DELAY_NS):
            self._rolling.append(name)
        keep_ns = policy.keep_ns_of(width_ns)
        if keep_ns:
            step_ns = max(keep_ns // STEPS, 1)
            before = (now - keep_ns) // step_ns * step_ns
            if series.first_time < before and (
                width_ns is not None or series.first_time < state.retention.droppable_before(series)
            ):
                self._drops.append((*name, before))

    # roll-ups --------------------------------------------------------------------------------------------

    def _can_roll_up(self, series: Series, policy: Policy, limit: int) -> bool:
        """A window is over, and nothing is known that would have it refused."""
        is_due = False
        for width, start in unrolled(series, policy):
            if start + width <= limit:
                name = RollUpName(series.sensor, series.metric, width)
                self.refusals.foresee(name, self._node.state.retention.roll_up_obstacle(series, width))
                is_due |= not self.refusals.holds(name)
        return is_due

    def _is_to_be_rolled_up(self, name: RollUpName) -> bool:
        state = self._node.state
        policy = state.retention.policies.find(name.sensor, name.metric)
        is_wanted = policy is not None and any(one.width_ns == name.width_ns for one in policy.roll_ups)
        return is_wanted and state.find_series(name.sensor, name.metric) is not None

    def applied(self, applied: Applied) -> None:
        """Nobody else looks at what became of the leader's own roll-ups."""
        if applied.index != self._proposed_at or self._job is None or applied.command is None:
            return
        for operation, result in zip(applied.command.operations, applied.results, strict=True):
            if operation.HasField("roll_up") and result.verdict is Verdict.REFUSED:
                self._job.give_up(operation.roll_up)
                if self._is_marked_still(operation.roll_up):
                    rolled = operation.roll_up
                    self.refusals.add(
                        RollUpName(rolled.sensor, rolled.metric, rolled.width_nano), str(result.error)
                    )

    def _is_marked_still(self, rolled: command_pb2.RollUpReadings) -> bool:
        """If not, that was the reason, and the next look finds what there is to do."""
        series = self._node.state.find_series(rolled.sensor, rolled.metric)
        return (
            series is not None
            and series.roll_up is not None
            and series.roll_up.marked_index == rolled.mark_index
        )

    def _go_on_rolling(self) -> None:
        """The mark was applied: compute; or the results are there: propose them."""
        job, node = self._job, self._node
        assert job is not None
        if job.results is not None:
            results = job.results
            if not results:
                self._job = None
                self._paused_until_ns = 0  # what was rolled up may be dropped
                if job.again:
                    self._rolling += job.again
                    self._names = self._names or iter(())
                node.request_wake()
                return
            self._propose(job.take())
        elif not job.is_running:
            job.is_running, generation = True, self._generation
            prepared = prepare(job, node.state, node.store, self.refusals)

            def done(results: list[command_pb2.Operation]) -> None:
                if generation == self._generation:
                    job.results = results
                    node.request_wake()

            node.workers.read(lambda: compute(job, prepared), done)

    # by size ---------------------------------------------------------------------------------------------

    def _is_paused(self) -> bool:
        """Nothing could go, or next to nothing was freed: the same again needs time."""
        if self._deleted_bytes is not None:
            freed_bytes = self._space.freed_bytes + self._deleted_bytes
            self._deleted_bytes = None
            if freed_bytes < FREED_MIN * self._space.used_bytes:
                self._pause()
            else:
                self._pause_ns = PAUSE_NS_MIN
        return self._node.clock.monotonic_ns() < self._paused_until_ns

    def _pause(self) -> None:
        self._paused_until_ns = self._node.clock.monotonic_ns() + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, PAUSE_NS_MAX)

    def _drop_oldest(self) -> None:
        """Of all series what lies before one time: it is chosen so that some percent of the bytes are freed."""
        if self._is_choosing:
            return
        if self._survey is None:
            self._survey = self._node.state.begin_survey()
        if not self._survey.capture_some():
            self._node.request_wake()
            return
        survey, self._survey = self._survey.results(), None
        self._is_choosing, generation = True, self._generation

        def chosen(oldest: Oldest) -> None:
            if generation == self._generation:
                self._is_choosing = False
                self._drop(oldest)

        reader, now = self._node.store.snapshot(), self._node.clock.wall_ns()
        self._node.workers.read(lambda: choose_oldest(survey, reader, share=FREED_PER_STEP, now=now), chosen)

    def _drop(self, oldest: Oldest) -> None:
        node = self._node
        if not self._space.weigh(oldest, node.state.key_bytes):
            self._pause()
            return
        self._oldest, self._deleted_bytes = oldest.drops, oldest.size_bytes
        node.events.record(
            "dropped_oldest", node.engine.term, node.log.last_index, before_unix_nano=oldest.before
        )
        self._space.dropped()
        node.request_wake()

    def _propose_drops(self, drops: list[Drop]) -> list[Drop]:
        """An entry of them; returns the others."""
        self._propose([drop_readings(drops[:DROPS_PER_ENTRY])])
        return drops[DROPS_PER_ENTRY:]

    @property
    def is_dropping(self) -> bool:
        """Some of what shall go is not proposed or not applied yet."""
        return bool(self._drops or self._oldest) or self.is_waiting

    def _propose(self, operations: list[command_pb2.Operation]) -> None:
        self._node.writes.propose_own(operations)
        self._proposed_at = self._node.log.last_index
