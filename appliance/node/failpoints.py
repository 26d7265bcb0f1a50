"""Places where a test lets a real node die: RAFTBERRY_FAILPOINT=journal.before_commit:kill:0.01,...

Invariant: without the variable nothing here does anything. Points: `journal`, `store` and `install`, each with
`.before_commit` and `.after_commit` (durable, but nobody has been told). Committer's thread.
"""

from __future__ import annotations

import os
import random
import signal

from appliance.errors import ConfigurationError

POINTS = tuple(
    f"{name}.{when}_commit" for name in ("journal", "store", "install") for when in ("before", "after")
)


class Failpoints:
    def __init__(self, text: str, rng: random.Random) -> None:
        """POINT:kill:PROBABILITY, comma separated. Raises ConfigurationError."""
        self._rng = rng
        self._probability: dict[str, float] = {}
        for part in filter(None, text.split(",")):
            point, _, rest = part.partition(":")
            action, _, probability = rest.partition(":")
            if point not in POINTS or action != "kill":
                known = ", ".join(POINTS)
                raise ConfigurationError(
                    f"RAFTBERRY_FAILPOINT: {part!r} is not POINT:kill:PROBABILITY (points: {known})"
                )
            try:
                self._probability[point] = float(probability or "1")
            except ValueError as error:
                raise ConfigurationError(f"RAFTBERRY_FAILPOINT: {probability!r} is no probability") from error

    def pass_by(self, point: str) -> None:
        probability = self._probability.get(point)
        if probability is not None and self._rng.random() < probability:
            os.kill(os.getpid(), signal.SIGKILL)
