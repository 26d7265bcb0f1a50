"""How long a batch waits for company: not at all for a caller who is alone, a little where many write at once.

Invariant: nothing waits longer than the bound for the window, nor longer than the write budget's pace for the commit
before. An entry costs the same whether it holds one write or forty, on every node and every card; so a batch waits
for three quarters of those who were seen to write: the ones of the batch before, who have their answer and come
again, and the ones who came while it was on its way. The bound follows what commits take here: a card that needs 20
ms for one is worth waiting for, a fast disk is not.
"""

from __future__ import annotations

WINDOW_NS = 5_000_000
"""Until commits were measured."""

WINDOW_NS_MIN = 2_500_000
WINDOW_NS_MAX = 25_000_000
COMMITS_PER_WINDOW = 2
SHARE = 0.75


class Window:
    def __init__(self) -> None:
        self._target = 1.0
        self._bound_ns = WINDOW_NS
        self._pace_ns = 0
        self._sent_ns: int | None = None
        self.ends_ns: int | None = None
        """When the batch that waits is sent whatever has come; None: none waits."""

    def expect(self, company: int) -> None:
        """So many callers were seen to write."""
        self._target = SHARE * company

    def adapt(self, *, commit_ns: int, pace_ns: int) -> None:
        """commit_ns: what a commit takes here, 0: not known. pace_ns: least time between two batches."""
        if commit_ns:
            self._bound_ns = min(max(COMMITS_PER_WINDOW * commit_ns, WINDOW_NS_MIN), WINDOW_NS_MAX)
        self._pace_ns = pace_ns

    def is_over(self, queued: int, now_ns: int) -> bool:
        """Whether the queued operations go now; begins a window if not."""
        if queued == 0:
            self.ends_ns = None
            return False
        if self._pace_ns and self._sent_ns is not None and now_ns < self._sent_ns + self._pace_ns:
            self.ends_ns = self._sent_ns + self._pace_ns
            return False
        if queued >= self._target or (self.ends_ns is not None and now_ns >= self.ends_ns):
            self.ends_ns, self._sent_ns = None, now_ns
            return True
        if self.ends_ns is None:
            self.ends_ns = now_ns + self._bound_ns
        return False

    def concerns(self, queued: int) -> bool:
        """One more was queued: it completes the batch, or is the first that waits."""
        return self.ends_ns is None or queued >= self._target
