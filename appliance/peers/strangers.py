"""What the peer port bears of whoever comes: how many handshakes of TLS in a second, and how often it says the same.

Invariant: bounded memory, whatever addresses come. Loop thread only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final

HANDSHAKES_PER_S: Final = 20.0
"""From one address. A Pi takes some milliseconds for each, on the loop; a peer that is refused dials twice a second."""

HANDSHAKES_AT_ONCE: Final = 100.0
"""What an address may have saved up: nodes on one machine that all start."""

ADDRESSES_MAX: Final = 1_000
REMARKS_MAX: Final = 100
REMARKS_OF_HOST_MAX: Final = 5
REMARK_S: Final = 3_600.0

_NUMBER: Final = re.compile(r"[0-9]+")

log = logging.getLogger(__name__)


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
    """What was said of strangers in the last hour: of a host each thing once, and not ever new ones."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._said: dict[tuple[str, str], float] = {}
        self._is_full = False

    def is_new(self, host: str, what: str) -> bool:
        """Numbers make no difference."""
        now_s, key = self._now_s(), (host, _NUMBER.sub("#", what))
        self._said = {said: then_s for said, then_s in self._said.items() if now_s - then_s < REMARK_S}
        if key in self._said or sum(said[0] == host for said in self._said) >= REMARKS_OF_HOST_MAX:
            return False
        was_full, self._is_full = self._is_full, len(self._said) >= REMARKS_MAX
        if self._is_full:
            if not was_full:
                log.warning("many hosts that are no peers: what they do is not told for an hour")
            return False
        self._said[key] = now_s
        return True
