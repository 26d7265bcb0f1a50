"""What clients did and heard, with the time of one clock; nothing is judged here.

Invariant: begun is taken before the first byte of the first attempt leaves, ended after the last byte of the answer
came. Any thread.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field

from tests.process.nodes import wait_for

APPLIED, NOT_APPLIED, UNKNOWN = "applied", "not_applied", "unknown"


@dataclass(frozen=True, slots=True)
class Done:
    """One operation over all its attempts."""

    identity: int
    kind: str
    key: str
    begun_ns: int
    ended_ns: int
    outcome: str
    index: int = 0
    is_duplicate: bool = False
    sequence: tuple[str, int] | None = None
    reading_count: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """One linearizable Get. value None: there is no such key at index."""

    key: str
    value: bytes | None
    mod_revision: int
    index: int
    begun_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class LocalRead:
    """life: the process that answered, (node, pid); reader: whose reads are in program order."""

    reader: str
    life: tuple[str, int]
    key: str
    value: bytes | None
    mod_revision: int
    index: int


@dataclass(slots=True)
class Watched:
    """What one watcher was told, over all the streams it resumed. events: (index, what the entry brought)."""

    name: str
    kind: str
    start_index: int = 0
    last_index: int = 0
    events: list[tuple[int, tuple[object, ...]]] = field(default_factory=list)
    stream_count: int = 0


class Recorder:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._identities = itertools.count(1)
        self.operations: list[Done] = []
        self.reads: list[Read] = []
        self.local_reads: list[LocalRead] = []
        self.watched: list[Watched] = []
        self.sequences: dict[tuple[str, int], int] = {}
        self.ack_times_ns: list[int] = []

    def new_identity(self) -> int:
        with self._lock:
            return next(self._identities)

    def names(self, identity: int, sequence: tuple[str, int]) -> None:
        """Before anything is sent: this sequence is that operation."""
        with self._lock:
            self.sequences[sequence] = identity

    def done(self, operation: Done) -> None:
        with self._lock:
            self.operations.append(operation)
            if operation.outcome == APPLIED:
                self.ack_times_ns.append(operation.ended_ns)

    def read(self, read: Read) -> None:
        with self._lock:
            self.reads.append(read)

    def local_read(self, read: LocalRead) -> None:
        with self._lock:
            self.local_reads.append(read)

    @property
    def acknowledged(self) -> int:
        return len(self.ack_times_ns)

    def wait_acknowledged(self, what: str, *, timeout_s: float) -> None:
        """Waits for one more than there are now."""
        before = self.acknowledged
        wait_for(what, lambda: self.acknowledged > before, timeout_s=timeout_s)

    def longest_gap_s(self, start_ns: int, end_ns: int) -> float:
        """The longest time without any acknowledgement."""
        times = sorted([start_ns, end_ns, *(t for t in self.ack_times_ns if start_ns <= t <= end_ns)])
        return max(later - earlier for earlier, later in itertools.pairwise(times)) / 1e9


def now_ns() -> int:
    return time.monotonic_ns()
