"""Which roll-ups can't be written, and why: nobody waits for them, so an alarm has to say it.

Invariant: what the log refused is not proposed again before REST_NS have passed. Leader; loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.clock import Clock
from appliance.units import format_duration

REST_NS: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True, order=True)
class RollUpName:
    sensor: str
    metric: str
    width_ns: int

    def __str__(self) -> str:
        return f"{self.sensor}/{self.metric} to {format_duration(self.width_ns)}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    until_ns: int


class RollUpRefusals:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals: dict[RollUpName, _Refusal] = {}

    def foresee(self, name: RollUpName, obstacle: str) -> None:
        """obstacle: why it would be refused, as the state is now; empty: it would not."""
        if obstacle:
            self._refusals[name] = _Refusal(obstacle, 0)
        elif not self.is_resting(name):
            self._refusals.pop(name, None)

    def add(self, name: RollUpName, reason: str) -> None:
        """It was proposed, and refused."""
        self._refusals[name] = _Refusal(reason, self._clock.monotonic_ns() + REST_NS)

    def is_resting(self, name: RollUpName) -> bool:
        refusal = self._refusals.get(name)
        return refusal is not None and self._clock.monotonic_ns() < refusal.until_ns

    def holds(self, name: RollUpName) -> bool:
        return name in self._refusals

    def keep(self, is_wanted: Callable[[RollUpName], bool]) -> None:
        """Series and policies may be gone."""
        self._refusals = {name: refusal for name, refusal in self._refusals.items() if is_wanted(name)}

    def alarm(self) -> str:
        """Empty: nothing is refused."""
        if not self._refusals:
            return ""
        first = min(self._refusals)
        others = f" (and {len(self._refusals) - 1} more)" if len(self._refusals) > 1 else ""
        return (
            f"roll-up of {first}{others} is refused: {self._refusals[first].reason}; its readings are kept until it "
            "can be written, whatever the policy says"
        )
