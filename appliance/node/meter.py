"""A histogram that counts and nothing else: what the metrics are made of.

Invariant: observe() costs less than a microsecond and never grows. Loop thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

_MS: Final = 1_000_000

COMMIT_BOUNDS_NS: Final = tuple(
    milliseconds * _MS
    for milliseconds in (1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1_000, 2_000, 5_000, 10_000)
)
"""An NVMe disk commits in one to four milliseconds, a good card in eight to sixty, a worn one in seconds."""


class Histogram:
    """bounds: upper, inclusive, ascending; what lies above the last counts too."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0
        """Sum of all that was observed."""

    def observe(self, value: int) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[int, int]]:
        """(bound, how many were at or below it), ascending."""
        below = 0
        for bound, count in zip(self._bounds, self._counts, strict=False):
            below += count
            yield bound, below
