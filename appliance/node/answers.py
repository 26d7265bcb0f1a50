"""Outcomes of writes on their way to their callers: what a cycle brought is told behind it, in one turn of the loop.

Invariant: nobody is told inside a cycle: the next entry and the frames to the peers go before the answers. Each is told
once, in the order of the outcomes. A turn ends after TURN_NS, for whatever else waits. Loop thread only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from time import monotonic_ns
from typing import Final

from appliance.node.outcome import Tell, WriteOutcome, outcome_of
from appliance.node.proposals import Completion, Done

TURN_NS: Final = 2_000_000

log = logging.getLogger(__name__)


class Answers:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Tell, Completion]] = deque()

    def to(self, tell: Tell) -> Done:
        """What the core calls with the outcome."""
        return partial(self._put, tell)

    def _put(self, tell: Tell, completion: Completion) -> None:
        if not self._waiting:
            self._loop.call_soon(self._tell_waiting)
        self._waiting.append((tell, completion))

    def _tell_waiting(self) -> None:
        ends_ns = monotonic_ns() + TURN_NS
        while self._waiting:
            tell, completion = self._waiting.popleft()
            try:
                tell(completion.error or outcome_of(completion))
            except Exception as error:
                log.error("a caller was not told error=%r", error, exc_info=error)
            if self._waiting and monotonic_ns() >= ends_ns:
                self._loop.call_soon(self._tell_waiting)
                return


def settle(future: asyncio.Future[WriteOutcome], outcome: WriteOutcome | Exception) -> None:
    """For a caller who waits for a future, unless it has left."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
