"""How long a batch waits for company: not at all for a caller who is alone, a little where many write at once.

Invariant: nothing waits longer than the bound for the window, nor longer than the write budget's pace for the batch
before. An entry costs the same whether it holds one write or sixty, on every node and every card; so a batch waits
for nine tenths of those who were seen to write: the ones of the batch before, who have their answer and come again,
and the ones who came while it was on its way. The bound follows what a round takes here, from sending a batch until
it is committed: where slow cards or slow cores make rounds long, callers take long to come again as well.
"""

from __future__ import annotations

FORWARD_WINDOW_NS = 1_000_000
"""What a follower waits before it forwards: the leader waits for all, and a frame is cheap beside a commit."""

WINDOW_NS_MIN = 2_500_000
WINDOW_NS_MAX = 100_000_000
ROUNDS_PER_WINDOW = 4
ROUND_NS_MAX = WINDOW_NS_MAX // ROUNDS_PER_WINDOW
"""Longer ones say no more: one stall of a card must not have callers wait for rounds on end."""

ROUNDS_AVERAGED = 8
SHARE = 0.9


class Window:
    def __init__(self) -> None:
        self._target = 1.0
        self._bound_ns = FORWARD_WINDOW_NS
        self._round_ns = 0
        self._sent_ns: int | None = None
        self.pace_ns = 0
        """Least time between two batches."""

        self.ends_ns: int | None = None
        """When the batch that waits is sent whatever has come; None: none waits."""

    def expect_to_forward(self, company: int, now_ns: int) -> None:
        """So many callers wait on this follower."""
        self._target, self._bound_ns, self.pace_ns = SHARE * company, FORWARD_WINDOW_NS, 0
        if self.ends_ns is not None:
            self.ends_ns = min(self.ends_ns, now_ns + FORWARD_WINDOW_NS)

    def committed(self, now_ns: int, *, company: int) -> None:
        """The batch that this leader sent last is committed, and so many callers were seen to write."""
        assert self._sent_ns is not None, "what is committed was sent"
        took_ns = min(now_ns - self._sent_ns, ROUND_NS_MAX)
        share = ROUNDS_AVERAGED if self._round_ns else 1
        self._round_ns += (took_ns - self._round_ns) // share
        self._target = SHARE * company
        self._bound_ns = min(max(ROUNDS_PER_WINDOW * self._round_ns, WINDOW_NS_MIN), WINDOW_NS_MAX)

    def is_over(self, queued: int, now_ns: int) -> bool:
        """Whether the queued operations go now; begins a window if not."""
        if queued == 0:
            self.ends_ns = None
            return False
        if self.pace_ns and self._sent_ns is not None and now_ns < self._sent_ns + self.pace_ns:
            self.ends_ns = self._sent_ns + self.pace_ns
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
