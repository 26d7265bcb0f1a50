"""What gRPC's core has finished, brought to the asyncio loop.

Invariant: completions are handled on the loop thread, in the order in which the core queued them. At any moment either
the thread waits for the next one, in the core and without the interpreter's lock, or the loop is taking them: the
thread wakes it once for all that is there, so that a burst of calls costs one change of threads.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from time import monotonic_ns
from typing import Any, Final

from appliance.rpc import core

TURN_NS: Final = 2_000_000
"""Completions are handled for so long, then everything else on the loop has its turn: opening a thousand watches at
once would hold it for 50 ms (measured)."""

log = logging.getLogger(__name__)


class Completions:
    """A completion queue whose tags are functions: each is called with its event."""

    def __init__(self) -> None:
        self.queue = core.CompletionQueue()
        self._loop = asyncio.get_running_loop()
        self._found: deque[Any] = deque()
        self._is_all_taken = threading.Lock()
        self._is_all_taken.acquire()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._wait, name="grpc-completions", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Handles what is still under way, then ends the thread. Nothing may be begun on the queue after this."""
        self.queue.shutdown()
        await self._ended.wait()
        self._thread.join()

    def _wait(self) -> None:
        """The thread."""
        while True:
            event = self.queue.poll()
            if event.completion_type == core.SHUT_DOWN:
                break
            self._found.append(event)
            # An event holds its call alive, and the core waits for calls to be gone.
            del event
            if not self._call_loop(self._take):
                return
            self._is_all_taken.acquire()
        self._call_loop(self._ended.set)

    def _call_loop(self, function: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop was closed: the process ends
            return False
        return True

    def _take(self) -> None:
        found, poll = self._found, self.queue.poll
        ends_ns = monotonic_ns() + TURN_NS
        while monotonic_ns() < ends_ns:
            event = found.popleft() if found else poll(0)
            if event.completion_type in (core.FOUND_NOTHING, core.SHUT_DOWN):
                self._is_all_taken.release()
                return
            try:
                event.tag(event)
            except Exception as error:
                log.error("call failed error=%r", error, exc_info=error)
        self._loop.call_soon(self._take)
