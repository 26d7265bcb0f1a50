"""Asks systemd for more time while something long goes on, as long as it does go on.

Invariant: time is asked for only if this process has worked since it last asked; one that hangs runs into systemd's
timeout. A thread, because what takes long (recovery of a large log) holds the loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from appliance.host.notify import Notifier

PERIOD_S: Final = 5.0
EXTENSION_US: Final = 30_000_000
"""Six periods: a stall of the card for some seconds is not the end."""

WORKED_NS_MIN: Final = 5_000_000
"""CPU time in a period that counts as work; a waiting process needs less."""


@contextmanager
def more_time(
    notifier: Notifier,
    what: str,
    *,
    period_s: float = PERIOD_S,
    worked_ns: Callable[[], int] = time.process_time_ns,
) -> Iterator[None]:
    """Extend the start or the stop while the body runs. what: for `systemctl status`."""
    if not notifier.is_active:
        yield
        return
    is_over = threading.Event()
    began = worked_ns()

    def ask() -> None:
        last = began
        while not is_over.wait(period_s):
            now = worked_ns()
            if now - last >= WORKED_NS_MIN:
                notifier.extend(EXTENSION_US, what)
            last = now

    thread = threading.Thread(target=ask, name="patience", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
