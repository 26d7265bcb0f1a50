"""Places where a test or a drill lets a real node die or wait: RAFTBERRY_FAILPOINT=journal.before_commit:kill:0.01,...

POINT:kill:PROBABILITY ends the process. POINT:stall:FILE lets the committer sleep, each time it passes, the seconds
that stand in FILE while that exists: a slow card that can be made well again. For drills and tests, never for service.
Invariant: without the variable nothing here does anything. Points: `journal`, `store` and `install`, each with
`.before_commit` and `.after_commit` (durable, but nobody has been told). Committer's thread.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.errors import ConfigurationError

POINTS = tuple(
    f"{name}.{when}_commit" for name in ("journal", "store", "install") for when in ("before", "after")
)


STALL_S_MAX: Final = 10.0
"""Of one pass: a drill that ended without removing its file shall not stop a node for good."""


class Failpoints:
    def __init__(self, text: str, rng: random.Random, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """POINT:kill:PROBABILITY or POINT:stall:FILE, comma separated. Raises ConfigurationError."""
        self._rng, self._sleep = rng, sleep
        self._probability: dict[str, float] = {}
        self._stall: dict[str, Path] = {}
        for part in filter(None, text.split(",")):
            point, _, rest = part.partition(":")
            action, _, argument = rest.partition(":")
            if point not in POINTS or action not in ("kill", "stall") or (action == "stall" and not argument):
                known = ", ".join(POINTS)
                raise ConfigurationError(
                    f"RAFTBERRY_FAILPOINT: {part!r} is not POINT:kill:PROBABILITY or POINT:stall:FILE "
                    f"(points: {known})"
                )
            if action == "stall":
                self._stall[point] = Path(argument)
                continue
            try:
                self._probability[point] = float(argument or "1")
            except ValueError as error:
                raise ConfigurationError(f"RAFTBERRY_FAILPOINT: {argument!r} is no probability") from error

    def pass_by(self, point: str) -> None:
        probability = self._probability.get(point)
        if probability is not None and self._rng.random() < probability:
            os.kill(os.getpid(), signal.SIGKILL)
        if point in self._stall and (seconds := _seconds_in(self._stall[point])) > 0:
            self._sleep(seconds)


def _seconds_in(file: Path) -> float:
    """0 where there is no file, or nothing in it yet that is a number of seconds."""
    try:
        seconds = float(file.read_text())
    except (OSError, ValueError):
        return 0.0
    return min(seconds, STALL_S_MAX) if seconds > 0 else 0.0
