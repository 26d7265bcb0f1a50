"""What consensus decided, one event a decision: for the journal's log line, the trace and WatchEvents.

Invariant: the same decision gives the same text in a simulation and on a real node. Loop thread only.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.limits import EVENTS_KEPT
from appliance.model import MemberId, hex_id


@dataclass(frozen=True, slots=True)
class ConsensusEvent:
    """One decision. str() is the line that is logged and compared."""

    number: int
    kind: str
    term: int
    index: int
    peer: MemberId | None
    attributes: tuple[tuple[str, int | str], ...]
    wall_ns: int

    def __str__(self) -> str:
        parts = [self.kind, f"term={self.term}", f"index={self.index}"]
        if self.peer is not None:
            parts.append(f"peer={hex_id(self.peer)}")
        parts.extend(f"{key}={value}" for key, value in self.attributes)
        return " ".join(parts)


class EventLog:
    """Keeps the last EVENTS_KEPT events and tells listeners of each as it happens."""

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns
        self._kept: deque[ConsensusEvent] = deque(maxlen=EVENTS_KEPT)
        self._count = 0
        self.counts: Counter[str] = Counter()
        """Events since the start, by kind."""

        self.listeners: list[Callable[[ConsensusEvent], None]] = []

    def record(
        self, kind: str, term: int, index: int, peer: MemberId | None = None, **attributes: int | str
    ) -> None:
        self._count += 1
        self.counts[kind] += 1
        event = ConsensusEvent(
            self._count, kind, term, index, peer, tuple(attributes.items()), self._wall_ns()
        )
        self._kept.append(event)
        for listener in self.listeners:
            listener(event)

    @property
    def count(self) -> int:
        """Number of the latest event; numbers start at 1."""
        return self._count

    def since(self, number: int) -> list[ConsensusEvent]:
        """Kept events with a higher number, oldest first; a gap at the start means some were missed."""
        missing = min(self._count - number, len(self._kept))
        return [self._kept[position] for position in range(len(self._kept) - missing, len(self._kept))]
