"""Outcomes of writes on their way to their callers: what a cycle brought is told behind it, together.

Invariant: nobody is told inside a cycle: the next entry and the frames to the peers go before the answers. Each is told
once, in the order of the outcomes. A turn ends after TURN_NS, for whatever else waits. Loop thread only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from time import monotonic_ns
from typing import Final, TypeVar

from appliance.node.outcome import Tell, WriteOutcome, outcome_of
from appliance.node.proposals import Completion, Done

Result = TypeVar("Result")

TURN_NS: Final = 2_000_000

log = logging.getLogger(__name__)


class Answers:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Tell, WriteOutcome | Exception]] = deque()
        self._is_due = False

    def to(self, tell: Tell) -> Done:
        """What the core calls with the outcome."""
        return partial(self._put, tell)

    def _put(self, tell: Tell, completion: Completion) -> None:
        self._waiting.append((tell, completion.error or outcome_of(completion)))
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._tell_waiting)

    def _tell_waiting(self) -> None:
        ends_ns = monotonic_ns() + TURN_NS
        try:
            while self._waiting:
                tell, outcome = self._waiting.popleft()
                try:
                    tell(outcome)
                except Exception as error:
                    log.error("a caller was not told error=%r", error, exc_info=error)
                if monotonic_ns() >= ends_ns:
                    break
        finally:
            self._is_due = False
            self._go_on()


def settle(future: asyncio.Future[Result], outcome: Result | Exception) -> None:
    """For a caller who waits for a future, unless it has left."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
