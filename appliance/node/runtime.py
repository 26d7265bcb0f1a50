"""The node on an asyncio loop: the sans-IO core with real threads, timers and futures around it.

Invariant: the core's cycle runs once for all that arrived in one turn of the loop, and at the time the core asks
for; nothing else drives it. All methods are called on the loop thread. This is the port that floor 5 serves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from appliance.errors import CorruptData, NotApplied, Overloaded, Quarantined, RaftberryError
from appliance.limits import CLOCK_EARLIEST_UNIX_NANO, LISTED_SERIES_MAX, SCANS_MAX
from appliance.model import Configuration, Position, Role
from appliance.node.answers import Answers, settle
from appliance.node.backup import encode_backup
from appliance.node.comparison import Comparison, compare_states
from appliance.node.core import NodeCore
from appliance.node.events import EventSubscription
from appliance.node.figures import Figures, figures
from appliance.node.live import LiveWatches, Watcher
from appliance.node.outcome import Tell, WriteOutcome
from appliance.node.report import report
from appliance.node.scan import RunningScan, ScanRoom, Share, capture
from appliance.node.status import NodeStatus, SecurityStatus, with_security
from appliance.node.transfer import transfer_leadership
from appliance.node.turns import Turns
from appliance.node.watches import Watches
from appliance.node.workers import ThreadWorkers
from appliance.state import QueryChunk, QuerySpec, StateMachine
from appliance.state.membership import Change
from appliance.state.moment import ITEMS_PER_TURN
from appliance.state.names import is_pattern
from appliance.state.operations import verify_state
from raftberry.internal.v1 import backup_pb2, command_pb2

log = logging.getLogger(__name__)

LOCAL = 2
"""raftberry.v1.CONSISTENCY_LOCAL; everything else is linearizable."""

SECOND_NS = 1_000_000_000
TIMER_NS_MIN = 1_000_000
LAST_CHECKPOINT_S_MAX = 20
QUERY_READINGS_AT_ONCE = 8_192
"""What is held for a client that takes nothing, in several copies; each batch waits for a thread."""

CHUNK_OVERHEAD = 256
"""Readings that a small chunk costs as much as: a batch is of 32 at most."""


class Node:
    def __init__(
        self, core: NodeCore, workers: ThreadWorkers, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._core, self._workers, self._on_fatal = core, workers, on_fatal
        workers.guarded = partial(self._turn, "result")
        self._loop = asyncio.get_running_loop()
        self._is_cycle_due = self._is_upkeep_due = False
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._was_serving = False
        self._answers = Answers(self._loop)
        self._scan_room = ScanRoom(SCANS_MAX, f"{SCANS_MAX} queries are running")
        self._list_room = ScanRoom(LISTED_SERIES_MAX, f"lists of {LISTED_SERIES_MAX} series are running")
        self._backup: RunningScan[bytes] | None = None
        self._is_backup_begun = False
        """One is asked for, and waits for its barrier and its checkpoint."""

        self._rate = RateMeter(lambda: core.writes.reading_count, core.clock.monotonic_ns)
        self._tasks: list[asyncio.Task[None]] = []
        self.turns = Turns(core.clock.monotonic_ns)
        self.started_ns = core.clock.monotonic_ns()
        self.cycled_ns = self.started_ns
        """When consensus last had a turn: for the watchdog."""
        self.watches = Watches(core, workers)
        self.live_watches = LiveWatches(self.watches, lambda: core.state.position)
        self.security: Callable[[], SecurityStatus] = SecurityStatus
        """What the ports are; for the status."""
        self.remedy: Callable[[], str] = lambda: "its peers must rebuild it"
        """What happens to this node now if it is in doubt; for the status."""

        self.on_serving_change: list[Callable[[bool], None]] = []

    # life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self.turns.sample_lag())]
        self.wake()

    async def stop(self, *, deadline_ns: int) -> None:
        """Hand leadership over and see it taken, write a checkpoint; then this node says nothing any more."""
        if self._core.role is Role.LEADER and len(self._core.engine.connected) > 0:
            try:
                leader, term = await transfer_leadership(self._core, "", deadline_ns, is_leaving=True)
                log.info("handed leadership over leader=%s term=%d", leader, term)
            except RaftberryError as error:
                log.warning("could not hand leadership over: %s", error)
        for task in self._tasks:
            task.cancel()
        if not self._core.quarantine_reason:
            await self._last_checkpoint()
        self._core.retire()
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    async def close(self) -> None:
        """Finish the commits and end the threads: after the calls that may still read."""
        await self._loop.run_in_executor(None, self._workers.stop)

    async def _last_checkpoint(self) -> None:
        """Saves the next start the replay; it is not waited for without end, for a snapshot may be on its way in."""
        try:
            async with asyncio.timeout(LAST_CHECKPOINT_S_MAX):
                position = await self.checkpoint()
        except TimeoutError:
            log.warning(
                "wrote no checkpoint within %d s: the next start replays the log", LAST_CHECKPOINT_S_MAX
            )
        else:
            log.info("wrote a checkpoint index=%d term=%d", position.index, position.term)

    def wake(self) -> None:
        """Run a cycle after what is ready on the loop now."""
        if not self._is_cycle_due and not self._is_stopped:
            self._is_cycle_due = True
            self._loop.call_soon(self._cycle)

    def _cycle(self) -> None:
        self._is_cycle_due = False
        if self._is_stopped:
            return
        self._turn("cycle", self._core.cycle)
        self.cycled_ns = self._core.clock.monotonic_ns()
        if not self._is_upkeep_due:
            # Behind the answers and the watchers, which the cycle put on the loop before it.
            self._is_upkeep_due = True
            self._loop.call_soon(self._upkeep)

    def _upkeep(self) -> None:
        self._is_upkeep_due = False
        if self._is_stopped:
            return
        self._turn("cycle", self._core.upkeep)
        self._set_timer(self._core.next_wake_ns())

    def _set_timer(self, at_ns: int) -> None:
        """An earlier timer stands: it only wakes once in vain."""
        now = self._core.clock.monotonic_ns()
        if self._timer is not None:
            if self._timer_ns <= at_ns:
                return
            self._timer.cancel()
        self._timer_ns = max(at_ns, now + TIMER_NS_MIN)
        self._timer = self._loop.call_later((self._timer_ns - now) / SECOND_NS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._cycle()

    def _turn(self, kind: str, call: Callable[[], None]) -> None:
        began_ns = self._core.clock.monotonic_ns()
        self.guarded(call)
        self.turns.observe(kind, self._core.clock.monotonic_ns() - began_ns)

    def guarded(self, call: Callable[[], None]) -> None:
        """Damage puts the node into quarantine; anything else unexpected ends the process (H11)."""
        try:
            call()
        except CorruptData as error:
            log.critical("quarantined: %s", error)
            self._core.quarantine(str(error))
        except BaseException as error:  # noqa: BLE001 - the top of the loop's callbacks
            self._on_fatal(error)

    async def _beat(self) -> None:
        """Once in an election timeout: is the cluster still led, as far as this node can tell?"""
        period_ns = self._core.consensus_options.election_timeout_max_ns
        while True:
            self._rate.sample()
            self._tell_serving()
            await asyncio.sleep(period_ns / SECOND_NS)

    def _tell_serving(self) -> None:
        is_serving = self.is_serving()
        if is_serving != self._was_serving:
            self._was_serving = is_serving
            for listener in self.on_serving_change:
                listener(is_serving)

    # the port: writes ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._core.me.name

    @property
    def state(self) -> StateMachine:
        return self._core.state

    def submit(self, operation: command_pb2.Operation, tell: Tell, *, deadline_ns: int | None) -> None:
        self._core.submit(operation, self._deadline(deadline_ns), self._answers.to(tell))

    def write(
        self, operation: command_pb2.Operation, *, deadline_ns: int | None
    ) -> asyncio.Future[WriteOutcome]:
        future: asyncio.Future[WriteOutcome] = self._loop.create_future()
        self.submit(operation, partial(settle, future), deadline_ns=deadline_ns)
        return future

    def wall_ns(self) -> int:
        """The time for a reading that brings none. Raises NotApplied while this machine's clock is not set."""
        now = self._core.clock.wall_ns()
        if now < CLOCK_EARLIEST_UNIX_NANO:
            raise NotApplied(
                f"this node's clock is not set (it says {now // SECOND_NS} s after 1970): a reading without a time "
                "was refused; send time_unix_nano, or wait until the node has synchronised its clock"
            )
        return now

    # the port: reads -------------------------------------------------------------------------------------

    async def read_barrier(self, consistency: int, *, deadline_ns: int | None) -> Position:
        if consistency == LOCAL:
            if self._core.quarantine_reason:
                raise Quarantined(self._core.quarantine_reason)
            return self.state.position
        future: asyncio.Future[None] = self._loop.create_future()
        self._core.read_barrier(self._deadline(deadline_ns), partial(settle, future))
        await future
        return self.state.position

    async def query(self, spec: QuerySpec) -> RunningScan[QueryChunk]:
        with ExitStack() as held:
            held.enter_context(await self._scan_room.take())
            share = held.enter_context(await self.room_to_list(spec.sensor, spec.metric))
            prepared = self.state.begin_query(spec, self._core.store.snapshot())
            await capture(prepared)
            share.keep(prepared.views.taken_count)
            give_back = held.pop_all().close
        return RunningScan(
            prepared.run(),
            prepared.reader,
            self._workers,
            position=prepared.position,
            at_once=QUERY_READINGS_AT_ONCE,
            size_of=lambda chunk: len(chunk.times) + CHUNK_OVERHEAD,
            abandon=prepared.abandon,
            on_close=give_back,
        )

    async def room_to_list(self, sensor: str, metric: str) -> Share:
        is_one = sensor and metric and not is_pattern(sensor) and not is_pattern(metric)
        count = 1 if is_one else self.state.series_count
        share = await self._list_room.take(count if count > ITEMS_PER_TURN else 0)
        if self._core.quarantine_reason:
            share.give_back()
            raise Quarantined(self._core.quarantine_reason)
        return share

    async def serve_watch(self, *, after_index: int, watcher: Watcher) -> None:
        await self.live_watches.serve(after_index, watcher)

    async def state_hash(self) -> tuple[Position, bytes]:
        with await self._scan_room.take():
            prepared = self.state.begin_hash(self._core.store.snapshot())
            await capture(prepared)
            digest = await self._workers.in_pool(prepared.run)
        return prepared.position, digest

    async def verify(self, *, deadline_ns: int | None) -> Comparison:
        """Have every member hash its state at one entry, and compare."""
        deadline_ns = self._deadline(deadline_ns)
        outcome = await self.write(verify_state(), deadline_ns=deadline_ns)
        position = Position(outcome.index, outcome.term)
        return await compare_states(self._core, position, deadline_ns)

    # the port: operating ---------------------------------------------------------------------------------

    def status(self) -> NodeStatus:
        return with_security(report(self._core, self, self._rate.per_second()), self.security())

    def figures(self) -> Figures:
        return figures(self._core, self.turns, watch_count=self.live_watches.count)

    def retention_doubt(self) -> str:
        return self._core.housekeeping.retention.doubt

    def commit_busy_ns(self) -> int:
        """How long the commit under way has taken; 0: none is. For the watchdog."""
        return self._core.pipeline.busy_ns()

    def is_serving(self) -> bool:
        confirmed = self._core.engine.confirmed_ns()
        if confirmed is None or self._core.quarantine_reason:
            return False
        bound = 2 * self._core.consensus_options.election_timeout_max_ns
        return self._core.clock.monotonic_ns() - confirmed <= bound

    async def transfer_leadership(self, target: str, *, deadline_ns: int | None) -> tuple[str, int]:
        self._check_led()
        return await transfer_leadership(self._core, target, self._deadline(deadline_ns))

    @property
    def configuration(self) -> Configuration:
        """The members as this node knows them: in effect here, committed or not."""
        return self._core.log.configuration

    async def change_members(self, change: Change, *, deadline_ns: int | None) -> Configuration:
        """Bring one change of the membership about, from any node; returns the committed configuration it led to.

        Idempotent. ConditionFailed, NotFound, Overloaded: refused, with the reason and the remedy. NoLeader: not begun
        before the deadline (a learner that is to be promoted was still catching up, another change was under way).
        OutcomeUnknown: begun, and not seen committed.
        """
        self._check_led()
        future: asyncio.Future[Configuration] = self._loop.create_future()
        self._core.change_members(change, self._deadline(deadline_ns), partial(settle, future))
        return await future

    def _check_led(self) -> None:
        """As before a write: nobody waits for a leader that is not heard. Raises Quarantined, NoLeader."""
        if self._core.quarantine_reason:
            raise Quarantined(self._core.quarantine_reason)
        if silence := self._core.engine.silence():
            raise silence

    def events(self) -> EventSubscription:
        return EventSubscription(self.name, self._core.events, self._core.contacts.name_of)

    async def checkpoint(self) -> Position:
        future: asyncio.Future[Position] = self._loop.create_future()
        if self._core.quarantine_reason:
            raise Quarantined(self._core.quarantine_reason)
        self._core.checkpoint(lambda position: None if future.done() else future.set_result(position))
        return await future

    async def backup(self, consistency: int, *, deadline_ns: int | None) -> RunningScan[bytes]:
        """The bytes of a backup file (node/backup.py), of everything that was applied here when this was called.

        Raises Overloaded while another is under way: each keeps a read transaction open, and its pages from reuse.
        """
        if self._is_backup_begun or (self._backup is not None and not self._backup.is_closed):
            raise Overloaded("this node is giving a backup already: wait for it, or ask another node")
        self._is_backup_begun = True
        try:
            await self.read_barrier(consistency, deadline_ns=deadline_ns)
            await self.checkpoint()
            self._backup = self._begin_backup()
        finally:
            self._is_backup_begun = False
        return self._backup

    def _begin_backup(self) -> RunningScan[bytes]:
        reader = self._core.store.snapshot()
        header = backup_pb2.BackupHeader(
            cluster_id=self._core.me.cluster_id,
            index=reader.position.index,
            term=reader.position.term,
            time_unix_nano=self._core.clock.wall_ns(),
            version=self._core.me.version,
            node=self.name,
        )
        return RunningScan(
            encode_backup(header, reader), reader, self._workers, position=reader.position, at_once=1
        )

    def _deadline(self, deadline_ns: int | None) -> int:
        if deadline_ns is not None:
            return deadline_ns
        return self._core.clock.monotonic_ns() + self._core.options.default_deadline_ns


class RateMeter:
    """Readings applied per second, over the last samples."""

    SAMPLES_KEPT = 10

    def __init__(self, count: Callable[[], int], now_ns: Callable[[], int]) -> None:
        self._count, self._now_ns = count, now_ns
        self._samples: list[tuple[int, int]] = []

    def sample(self) -> None:
        self._samples = [*self._samples[-self.SAMPLES_KEPT :], (self._now_ns(), self._count())]

    def per_second(self) -> float:
        if not self._samples:
            return 0.0
        began_ns, began_count = self._samples[0]
        span_ns = self._now_ns() - began_ns
        return (self._count() - began_count) * SECOND_NS / span_ns if span_ns > 0 else 0.0
