"""How long a batch waits for company: not at all for a caller who is alone, a little where many write at once.

Invariant: nothing waits longer than WINDOW_NS for the window. An entry costs the same whether it holds one write or
forty, on every node and every card; so a batch waits for three quarters of those who were seen to write: the ones
of the batch before, who have their answer and come again, and the ones who came while it was on its way.
"""

from __future__ import annotations

WINDOW_NS = 5_000_000
"""Below what a commit takes on a card."""

SHARE = 0.75


class Window:
    def __init__(self) -> None:
        self._target = 1.0
        self.ends_ns: int | None = None
        """When the batch that waits is sent whatever has come; None: none waits."""

    def expect(self, company: int) -> None:
        """So many callers were seen to write."""
        self._target = SHARE * company

    def is_over(self, queued: int, now_ns: int) -> bool:
        """Whether the queued operations go now; begins a window if not."""
        if queued == 0:
            self.ends_ns = None
            return False
        if queued >= self._target or (self.ends_ns is not None and now_ns >= self.ends_ns):
            self.ends_ns = None
            return True
        if self.ends_ns is None:
            self.ends_ns = now_ns + WINDOW_NS
        return False

    def concerns(self, queued: int) -> bool:
        """One more was queued: it completes the batch, or is the first that waits."""
        return self.ends_ns is None or queued >= self._target
