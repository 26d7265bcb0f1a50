"""What the peer port bears of whoever comes: how many handshakes of TLS in a second, and how often it says the same.

Invariant: bounded memory, whatever addresses come. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

HANDSHAKES_PER_S: Final = 20.0
"""From one address. A Pi takes some milliseconds for each, on the loop; a peer dials twice a second at most."""

HANDSHAKES_AT_ONCE: Final = 100.0
"""What an address may have saved up: nodes on one machine that all start."""

ADDRESSES_MAX: Final = 1_000
REMARKS_MAX: Final = 100
REMARK_S: Final = 3_600.0


class HandshakeBudget:
    """Token buckets, one for each address."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._left: dict[str, tuple[float, float]] = {}
        """Address -> (tokens, when)."""

    def take(self, address: str) -> bool:
        """Whether a handshake may begin."""
        now_s = self._now_s()
        tokens, then_s = self._left.get(address, (HANDSHAKES_AT_ONCE, now_s))
        tokens = min(HANDSHAKES_AT_ONCE, tokens + HANDSHAKES_PER_S * (now_s - then_s))
        if tokens < 1.0:
            return False
        if len(self._left) >= ADDRESSES_MAX and address not in self._left:
            self._left.pop(next(iter(self._left)))
        self._left[address] = (tokens - 1.0, now_s)
        return True


class Remarks:
    """What was said: a stranger can make a node say each thing once in REMARK_S, and not ever new ones."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._said: dict[tuple[str, ...], float] = {}

    def is_new(self, *what: str) -> bool:
        now_s = self._now_s()
        self._said = {said: then_s for said, then_s in self._said.items() if now_s - then_s < REMARK_S}
        if what in self._said or len(self._said) >= REMARKS_MAX:
            return False
        self._said[what] = now_s
        return True
