"""A node that does not take part: it waits for the other founders, or is in doubt about its own data.

Invariant: it answers for its status and refuses everything else with the reason; it holds no journal and no vote.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

from appliance.consensus import EventLog
from appliance.errors import NoLeader, Quarantined
from appliance.model import Configuration, Position, Role
from appliance.node.comparison import Comparison
from appliance.node.events import EventSubscription
from appliance.node.figures import Figures
from appliance.node.live import Watcher
from appliance.node.outcome import Tell, WriteOutcome
from appliance.node.scan import RunningScan, Share
from appliance.node.status import NodeStatus
from appliance.state import QueryChunk, QuerySpec, StateMachine
from appliance.state.membership import Change
from raftberry.internal.v1 import command_pb2


class StandbyNode:
    """The port of floor 5 without a node behind it."""

    def __init__(self, status: NodeStatus) -> None:
        assert status.role in (Role.FOUNDING, Role.QUARANTINED, Role.REMOVED, Role.JOINING)
        self._status = status
        self.state = StateMachine()
        self.on_serving_change: list[Callable[[bool], None]] = []

    @property
    def name(self) -> str:
        return self._status.name

    def status(self) -> NodeStatus:
        return self._status

    def figures(self) -> Figures:
        return Figures()

    def is_serving(self) -> bool:
        return False

    def retention_doubt(self) -> str:
        return ""

    def wall_ns(self) -> int:
        return time.time_ns()

    def events(self) -> EventSubscription:
        return EventSubscription(self.name, EventLog(self.wall_ns), lambda _: "")

    def submit(self, operation: command_pb2.Operation, tell: Tell, *, deadline_ns: int | None) -> None:
        self._refuse()

    def write(
        self, operation: command_pb2.Operation, *, deadline_ns: int | None
    ) -> asyncio.Future[WriteOutcome]:
        self._refuse()

    async def read_barrier(self, consistency: int, *, deadline_ns: int | None) -> Position:
        self._refuse()

    async def query(self, spec: QuerySpec) -> RunningScan[QueryChunk]:
        self._refuse()

    async def room_to_list(self, sensor: str, metric: str) -> Share:
        self._refuse()

    async def serve_watch(self, *, after_index: int, watcher: Watcher) -> None:
        self._refuse()

    async def transfer_leadership(self, target: str, *, deadline_ns: int | None) -> tuple[str, int]:
        self._refuse()

    @property
    def configuration(self) -> Configuration:
        return Configuration()

    async def change_members(self, change: Change, *, deadline_ns: int | None) -> Configuration:
        self._refuse()

    async def checkpoint(self) -> Position:
        self._refuse()

    async def backup(self, consistency: int, *, deadline_ns: int | None) -> RunningScan[bytes]:
        self._refuse()

    async def verify(self, *, deadline_ns: int | None) -> Comparison:
        self._refuse()

    async def state_hash(self) -> tuple[Position, bytes]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        reason = "; ".join(self._status.alarms)
        raise NoLeader(reason) if self._status.role in (Role.FOUNDING, Role.JOINING) else Quarantined(reason)
