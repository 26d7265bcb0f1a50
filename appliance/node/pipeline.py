"""The commit pipeline: what is queued in the log goes to the disk as one transaction, and what waited is released.

Invariant: at most one journal commit is under way; all that is queued meanwhile is in the next one (group
commit). Checkpoints use the same committer, so journal, checkpoint and trim reach the disk in that order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from appliance.clock import Clock
from appliance.consensus import Engine, LogImage
from appliance.node.meter import COMMIT_BOUNDS_NS, Histogram
from appliance.node.workers import Workers
from appliance.storage.journal import Journal

_LATENCIES_KEPT = 256


class CommitPipeline:
    def __init__(
        self,
        engine: Engine,
        log: LogImage,
        journal: Journal,
        workers: Workers,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._engine, self._log, self._journal = engine, log, journal
        self._workers, self._clock, self._wake = workers, clock, wake
        self._began_ns: int | None = None
        self.on_committed: Callable[[], None] = lambda: None
        """Releases what waits for a commit beside the consensus."""

        self.latencies_ns: deque[int] = deque(maxlen=_LATENCIES_KEPT)
        self.durations = Histogram(COMMIT_BOUNDS_NS)

    @property
    def is_committing(self) -> bool:
        return self._began_ns is not None

    def busy_ns(self) -> int:
        """How long the commit under way has taken so far; 0: none."""
        return 0 if self._began_ns is None else self._clock.monotonic_ns() - self._began_ns

    def flush(self) -> None:
        """Give what is queued to the committer, unless it is still at work: then it goes with the next commit."""
        if self._began_ns is not None or not self._log.has_queued:
            return
        sequence, operations = self._log.take_batch()
        self._began_ns = self._clock.monotonic_ns()
        self._engine.commit_began()
        self._workers.write(
            "journal", lambda: self._journal.commit(operations), lambda _: self._committed(sequence)
        )

    def _committed(self, sequence: int) -> None:
        assert self._began_ns is not None
        took_ns = self._clock.monotonic_ns() - self._began_ns
        self.latencies_ns.append(took_ns)
        self.durations.observe(took_ns)
        self._began_ns = None
        has_news = self._engine.commit_finished(sequence)
        self.on_committed()
        if has_news or self._log.has_queued:
            self._wake()
