"""How long this node's work holds the loop: nothing else happens on the node meanwhile, no heartbeat and no answer.

Invariant: measuring a turn costs two looks at the clock; nothing is kept but figures. Kinds: `cycle` is the node's own,
`result` is what a thread brought back, `lag` is how late a timer was that is due ten times a second: it sees what no
other kind does, calls of clients among it, as often as not. Loop thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

LONG_TURN_NS: Final = 5_000_000
"""Longer ones are counted."""

PERIOD_NS: Final = 60_000_000_000
SECOND_NS: Final = 1_000_000_000
LAG_SAMPLE_NS: Final = 100_000_000

KINDS: Final = ("cycle", "result", "lag")


class Turns:
    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._period_began_ns = now_ns()
        self._longest: Counter[str] = Counter()
        self._longest_before: Counter[str] = Counter()
        self.long_counts: Counter[str] = Counter()
        """Turns longer than LONG_TURN_NS since the start, by kind."""

    def observe(self, kind: str, duration_ns: int) -> None:
        if duration_ns > self._longest[kind]:
            self._longest[kind] = duration_ns
        if duration_ns > LONG_TURN_NS:
            self.long_counts[kind] += 1

    async def sample_lag(self) -> None:
        while True:
            due_ns = self._now_ns() + LAG_SAMPLE_NS
            await asyncio.sleep(LAG_SAMPLE_NS / SECOND_NS)
            self.observe("lag", self._now_ns() - due_ns)
            self._roll()

    def longest_ns(self) -> dict[str, int]:
        """Of the last one to two minutes, by kind."""
        self._roll()
        return {kind: max(self._longest[kind], self._longest_before[kind]) for kind in KINDS}

    def _roll(self) -> None:
        now = self._now_ns()
        periods = (now - self._period_began_ns) // PERIOD_NS
        if periods:
            self._longest_before = self._longest if periods == 1 else Counter()
            self._longest = Counter()
            self._period_began_ns += periods * PERIOD_NS
