"""Consensus events for watchers: names instead of ids, bounded queues, a count of what was missed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance import consensus
from appliance.model import MemberId, hex_id

QUEUE_EVENTS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class NamedEvent:
    """The fields of raftberry.v1.ConsensusEvent."""

    node: str
    kind: str
    term: int
    index: int
    peer: str
    attributes: Mapping[str, str]
    time_unix_nano: int
    number: int


class EventSubscription:
    """Events from now on. Loop thread; aclose() ends it."""

    def __init__(self, node: str, log: consensus.EventLog, name_of: Callable[[MemberId], str]) -> None:
        self._node, self._log, self._name_of = node, log, name_of
        self._queue: deque[consensus.ConsensusEvent] = deque()
        self._arrived = asyncio.Event()
        self.missed_count = 0
        log.listeners.append(self._on_event)

    def __aiter__(self) -> AsyncIterator[Sequence[NamedEvent]]:
        return self._batches()

    async def aclose(self) -> None:
        if self._on_event in self._log.listeners:
            self._log.listeners.remove(self._on_event)

    async def _batches(self) -> AsyncIterator[Sequence[NamedEvent]]:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch = [self._named(event) for event in self._queue]
            self._queue.clear()
            yield batch

    def _on_event(self, event: consensus.ConsensusEvent) -> None:
        if len(self._queue) >= QUEUE_EVENTS_MAX:
            self._queue.popleft()
            self.missed_count += 1
        self._queue.append(event)
        self._arrived.set()

    def _named(self, event: consensus.ConsensusEvent) -> NamedEvent:
        return NamedEvent(
            node=self._node,
            kind=event.kind,
            term=event.term,
            index=event.index,
            peer="" if event.peer is None else self._name_of(event.peer) or hex_id(event.peer),
            attributes={key: str(value) for key, value in event.attributes},
            time_unix_nano=event.wall_ns,
            number=event.number,
        )
