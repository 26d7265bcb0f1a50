"""Clients: writes with unique content, retried through other nodes, and reads. They check nothing themselves.

Invariant: what was not said to be void is never sent again without a producer
and sequence. Answers are heard at once, the strictest case for the checkers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from appliance.errors import ConditionFailed, NotApplied, Overloaded
from appliance.model import Verdict
from appliance.node.proposals import Completion
from appliance.state import OperationResult
from appliance.state.operations import delete_key, encode_columns, put_key, write_readings
from raftberry.internal.v1 import command_pb2
from tests.simulation.failure import CheckFailed
from tests.simulation.history import Attempted, History, RegisterRead, RegisterWrite
from tests.simulation.node import Machine, Process
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS, Schedule

REGISTERS = ("r0", "r1")
KEYS = ("k0", "k1", "k2", "k3")
SERIES = (("cellar", "temperature"), ("cellar", "humidity"), ("roof", "wind"))
ATTEMPTS_MAX = 4
LATE_NS_MAX = 100 * MILLISECOND_NS
OPEN_MIN = 6
"""Operations that may be open when a client begins more: some wait for seconds on a node that is cut off."""

Answer = Callable[[Completion | NotApplied | None], None]
"""An outcome; a refusal at the door; None: nothing was heard, and nothing will be."""


@dataclass(slots=True, eq=False)
class _Request:
    """One that waits for its answer. process: which died if it does, and answers nothing then."""

    process: Process
    then: Answer
    is_over: bool = False
    deadline_ns: int = 0
    """By the process's clock, from when it heard of it."""


class Client:
    def __init__(
        self,
        number: int,
        machines: Sequence[Machine],
        history: History,
        schedule: Schedule,
        rng: random.Random,
        *,
        think_ns_max: int,
        burst_max: int = 1,
    ) -> None:
        """burst_max: operations that are begun at once; some more may be open."""
        self.number, self._machines, self._history = number, machines, history
        self._schedule, self._rng, self._think_ns_max = schedule, rng, think_ns_max
        self._burst_max = burst_max
        self._open_count = 0
        self._sequence = 0
        self._count = 0
        self._revisions: dict[str, int] = {}
        self._waiting: list[_Request] = []
        self.is_stopped = False

    def start(self) -> None:
        self._schedule.after(self._rng.randint(0, self._think_ns_max), self._next)

    def process_died(self, process: Process) -> None:
        """The connection broke: whatever was under way there ended unknown."""
        for request in self._waiting:
            if request.process is process:
                delay_ns = self._rng.randint(1, 20) * MILLISECOND_NS
                self._schedule.after(delay_ns, partial(self._answer, request, None))

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    # one burst after the other ---------------------------------------------------------------------------

    def _next(self) -> None:
        if self.is_stopped:
            return
        if self._open_count <= OPEN_MIN + self._burst_max:
            self._begin_burst()
        self._schedule.after(self._rng.randint(0, self._think_ns_max), self._next)

    def _begin_burst(self) -> None:
        if self._rng.random() < 0.25:
            self._open_count += 1
            self._read()
            return
        count = self._rng.randint(1, self._burst_max)
        self._open_count += count
        for _ in range(count):
            self._write()

    def _rest(self) -> None:
        """One operation is over."""
        self._open_count -= 1

    def _new(self, kind: str) -> Attempted:
        self._count += 1
        identity = self.number * 1_000_000 + self._count
        self._history.counts[kind] += 1
        return Attempted(identity, kind, self._history.latest_index, self._schedule.now_ns)

    # reads -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        key = self._rng.choice(REGISTERS + KEYS)
        process = self._rng.choice(self._machines).process
        if process is None:
            self._rest()
            return
        if self._rng.random() < 0.25:
            process.call(partial(self._read_here, process, key))
            self._rest()
            return
        after_index, begun_ns = self._history.latest_index, self._schedule.now_ns

        def submit(deadline_ns: int, request: _Request) -> None:
            def done(error: NotApplied | None) -> None:
                if error is None and not request.is_over:
                    self._observe(process, key, after_index, begun_ns)
                self._answer(request, error)

            process.core.read_barrier(deadline_ns, done)

        self._ask(process, submit, lambda _: self._rest())

    def _read_here(self, process: Process, key: str) -> None:
        """A local read: it may be old, and never older than the one before it there."""
        if not process.core.quarantine_reason:
            state = process.core.state
            record = state.key(key)
            value, revision = (record.value, record.mod_revision) if record is not None else (None, 0)
            life = (process.station, process.incarnation)
            self._history.was_read_here(life, key, value, revision, state.position.index)

    def _observe(self, process: Process, key: str, after_index: int, begun_ns: int) -> None:
        state = process.core.state
        record = state.key(key)
        value, revision = (record.value, record.mod_revision) if record is not None else (None, 0)
        self._history.was_read(key, value, revision, state.position.index, after_index)
        self._revisions[key] = revision
        if key in REGISTERS:
            identity = int(value.split(b" ")[0]) if value is not None else 0
            self._history.reads.append(RegisterRead(key, identity, begun_ns, self._schedule.now_ns))

    # writes ----------------------------------------------------------------------------------------------

    def _write(self) -> None:
        kind = self._rng.choices(("write", "put", "conditional", "ttl", "delete"), (50, 30, 10, 4, 6))[0]
        attempted = self._new(kind)
        is_once = kind == "delete" or self._rng.random() < 0.5
        operation, key = self._operation(kind, attempted.identity)
        if is_once:
            self._sequence += 1
            operation.producer_id, operation.sequence = f"client-{self.number}", self._sequence
            by_sequence = self._history.reference.by_sequence
            by_sequence[operation.producer_id, operation.sequence] = attempted.identity
        self._attempt(attempted, operation, key, ATTEMPTS_MAX)

    def _operation(self, kind: str, identity: int) -> tuple[command_pb2.Operation, str]:
        rng = self._rng
        if kind == "write":
            return self._readings(identity), ""
        padding = b"." * rng.randint(0, 60)
        value = b"%d %s" % (identity, padding)
        if kind == "put":
            key = rng.choice(REGISTERS + KEYS)
            return put_key(key, value), key
        key = rng.choice(KEYS)
        if kind == "ttl":
            return put_key(key, value, ttl_seconds=rng.randint(1, 4)), key
        condition = self._revisions.get(key, 0) if rng.random() < 0.8 else None
        if kind == "conditional":
            return put_key(key, value, if_mod_revision=condition), key
        return delete_key(key, if_mod_revision=condition), key

    def _readings(self, identity: int) -> command_pb2.Operation:
        columns = []
        for series in self._rng.sample(SERIES, self._rng.randint(1, 2)):
            count = self._rng.choice((1, 1, 1, 3, 8))
            first = self._schedule.now_ns if self._rng.random() < 0.8 else self._rng.randint(0, 50)
            times = np.arange(first, first + count, dtype="<i8")
            values = np.full(count, identity, dtype="<i8")
            columns.append(encode_columns(*series, times, values, integer=True))
        return write_readings(columns)

    def _attempt(
        self, attempted: Attempted, operation: command_pb2.Operation, key: str, attempts: int
    ) -> None:
        process = self._rng.choice(self._machines).process

        def answered(answer: Completion | NotApplied | None) -> None:
            self._judge(attempted, operation, key, attempts - 1, answer)

        if process is None:
            answered(NotApplied("connection refused"))
            return

        def submit(deadline_ns: int, request: _Request) -> None:
            process.core.submit(operation, deadline_ns, partial(self._answer, request))

        self._ask(process, submit, answered)

    def _judge(
        self,
        attempted: Attempted,
        operation: command_pb2.Operation,
        key: str,
        attempts: int,
        answer: Completion | NotApplied | None,
    ) -> None:
        if isinstance(answer, Completion) and answer.error is None:
            self._acknowledged(attempted, key, answer)
            self._rest()
            return
        error = answer.error if isinstance(answer, Completion) else answer
        is_void = isinstance(error, NotApplied)
        if isinstance(error, Overloaded):
            self._history.counts["overloaded"] += 1
        attempted.is_in_doubt |= not is_void
        is_over = isinstance(error, ConditionFailed) or self.is_stopped or attempts == 0
        if not is_over and (is_void or operation.sequence):
            self._history.counts["retried"] += 1
            self._schedule.after(
                self._rng.randint(1, 200) * MILLISECOND_NS,
                lambda: self._attempt(attempted, operation, key, attempts),
            )
            return
        if attempted.is_in_doubt:
            self._history.was_lost(attempted)
            self._note_register(attempted, key, None)
        else:
            self._history.was_not_applied(attempted)
        self._rest()

    def _acknowledged(self, attempted: Attempted, key: str, completion: Completion) -> None:
        result = completion.result
        assert isinstance(result, OperationResult)
        is_duplicate = result.verdict is Verdict.DUPLICATE
        self._history.was_applied(attempted, result.index, is_duplicate=is_duplicate)
        if result.mod_revision:
            self._revisions[key] = result.mod_revision
        self._note_register(attempted, key, self._schedule.now_ns)

    def _note_register(self, attempted: Attempted, key: str, ended_ns: int | None) -> None:
        if key in REGISTERS:
            write = RegisterWrite(key, attempted.identity, attempted.begun_ns, ended_ns)
            self._history.writes.append(write)

    # one request -----------------------------------------------------------------------------------------

    def _ask(self, process: Process, submit: Callable[[int, _Request], None], then: Answer) -> None:
        """Send a request; then is called once, with the answer or when the client gave up waiting."""
        patience_ns = self._rng.choice((300, 500, 1_000, 3_000, 8_000)) * MILLISECOND_NS
        request = _Request(process, then)

        def send() -> None:
            deadline_ns = request.deadline_ns = process.core.clock.monotonic_ns() + patience_ns
            try:
                submit(deadline_ns, request)
            except NotApplied as error:
                self._answer(request, error)

        self._waiting.append(request)
        self._schedule.after(patience_ns + SECOND_NS, partial(self._give_up, request))
        process.call(send)

    def _give_up(self, request: _Request) -> None:
        """Nothing was heard although the deadline has passed: only a process that was stopped may be so late (H10)."""
        process = request.process
        if not request.is_over and process.is_alive and not process.was_paused_within(2 * SECOND_NS):
            late_ns = process.core.clock.monotonic_ns() - request.deadline_ns
            if request.deadline_ns and late_ns > LATE_NS_MAX:
                raise CheckFailed("answered_in_time", f"{process.machine.name} is {late_ns:,} ns late")
        self._answer(request, None)

    def _answer(self, request: _Request, outcome: Completion | NotApplied | None) -> None:
        if not request.is_over:
            request.is_over = True
            self._waiting.remove(request)
            self._schedule.after(0, lambda: request.then(outcome))
