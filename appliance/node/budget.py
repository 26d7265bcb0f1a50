"""What this node writes to its card: measured, projected to a day, and kept within a budget by waiting.

Bytes are those of /proc/self/io (write_bytes): what this process caused to be sent to disks, journal, store and all.
Invariant: without a budget nothing ever waits for it; with one, commits are at most PACE_MAX_NS apart, so that a budget
that is too small costs latency and shows in the status, and never stops a write. Loop thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from appliance.clock import Clock

SECOND_NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * SECOND_NS
PACE_MAX_NS: Final = SECOND_NS
BURST_NS: Final = 3_600 * SECOND_NS
"""What was not written in the last hour may be written at once."""

SAMPLE_EVERY_NS: Final = 60 * SECOND_NS
SAMPLES_KEPT: Final = 60
RATE_SPAN_NS_MIN: Final = (SAMPLES_KEPT - 1) * SAMPLE_EVERY_NS
"""A minute's burst says nothing of a day."""

COMMIT_BYTES_FIRST: Final = 16_384
"""Of a small commit on a card, until it is measured."""


class WriteBudget:
    def __init__(self, clock: Clock, budget_bytes: Callable[[], int]) -> None:
        """budget_bytes: of a day, as it is now; 0: none."""
        self._clock, self._budget_bytes = clock, budget_bytes
        self._saved_bytes = budget_bytes() * BURST_NS / DAY_NS
        self._observed_ns = clock.monotonic_ns()
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES_KEPT)
        self._commit_bytes = float(COMMIT_BYTES_FIRST)
        self._commit_count = 0
        self.written_bytes = 0
        self.card_life_used_percent = 0
        """As the card says itself, the upper end of its step of ten; 0: it says nothing."""

    @property
    def budget_bytes(self) -> int:
        return self._budget_bytes()

    def observe(self, written_bytes: int, commit_count: int) -> None:
        """Both since the process began; called every few seconds."""
        now = self._clock.monotonic_ns()
        written, commits = written_bytes - self.written_bytes, commit_count - self._commit_count
        gained = (now - self._observed_ns) * self.budget_bytes / DAY_NS
        most = self.budget_bytes * BURST_NS / DAY_NS
        self._saved_bytes = max(min(self._saved_bytes + gained, most) - written, -most)
        if commits > 0:
            self._commit_bytes += 0.2 * (written / commits - self._commit_bytes)
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_EVERY_NS:
            self._samples.append((now, written_bytes))
        self.written_bytes, self._commit_count, self._observed_ns = written_bytes, commit_count, now

    def per_day_bytes(self) -> int:
        """At the rate of the last hour; before the start nothing was written."""
        if not self._samples:
            return 0
        since_ns, before = self._samples[0]
        span_ns = max(self._observed_ns - since_ns, RATE_SPAN_NS_MIN)
        return (self.written_bytes - before) * DAY_NS // span_ns

    def pace_ns(self) -> int:
        """The least time between two commits now. It grows as what was saved is used up."""
        if not self.budget_bytes:
            return 0
        most = self.budget_bytes * BURST_NS / DAY_NS
        used = min(max(1 - 2 * self._saved_bytes / most, 0.0), 2.0)
        return min(int(used * self._commit_bytes * DAY_NS / self.budget_bytes), PACE_MAX_NS)

    def alarm(self) -> str:
        """Empty: within the budget, or there is none."""
        if not self.budget_bytes or self._saved_bytes > 0:
            return ""
        now, budget = f"{self.per_day_bytes() // 1_000_000:,}", f"{self.budget_bytes // 1_000_000:,}"
        waits = f"commits wait up to {PACE_MAX_NS // 1_000_000} ms for each other"
        if self.per_day_bytes() > self.budget_bytes:
            return f"writing {now} MB a day, more than storage.write_budget_per_day ({budget} MB): {waits}"
        return (
            f"writing {now} MB a day, but an earlier burst beyond storage.write_budget_per_day ({budget} MB) is being "
            f"made up for: {waits}"
        )
