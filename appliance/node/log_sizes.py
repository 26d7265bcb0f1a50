"""How many bytes of log lie between two indexes, roughly: enough to decide what to keep.

One mark each MARK_BYTES, so that a year of log costs a few kilobytes of memory.
"""

from __future__ import annotations

from collections import deque

from appliance.limits import KIB

MARK_BYTES = 256 * KIB
ENTRY_OVERHEAD = 64
"""Key, checksum and page overhead of an entry."""


class LogSizes:
    def __init__(self, *, first_index: int, last_index: int, size_bytes: int) -> None:
        """What the log held at start, spread evenly over its entries."""
        self._marks: deque[tuple[int, int]] = deque()
        self._open_bytes = 0
        self._counted_to = last_index
        self.total_bytes = 0
        count = last_index - first_index + 1
        if count > 0:
            steps = max(1, min(count, size_bytes // MARK_BYTES))
            for step in range(1, steps + 1):
                self._marks.append((first_index - 1 + count * step // steps, size_bytes // steps))
            self.total_bytes = size_bytes

    def added(self, index: int, size: int) -> None:
        """An entry of the log was applied; what lay there at start was counted then."""
        if index <= self._counted_to:
            return
        self._open_bytes += size + ENTRY_OVERHEAD
        self.total_bytes += size + ENTRY_OVERHEAD
        if self._open_bytes >= MARK_BYTES:
            self._marks.append((index, self._open_bytes))
            self._open_bytes = 0

    def index_to_trim_to(self, keep_bytes: int) -> int:
        """Highest index that may go while keep_bytes stay; 0: none."""
        over, index = self.total_bytes - keep_bytes, 0
        for mark_index, size in self._marks:
            if size > over:
                break
            over -= size
            index = mark_index
        return index

    def trimmed_to(self, index: int) -> None:
        while self._marks and self._marks[0][0] <= index:
            self.total_bytes -= self._marks.popleft()[1]
