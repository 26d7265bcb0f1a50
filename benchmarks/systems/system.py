"""What every system under measurement is to the benchmark.

Invariant: the same directory, addresses on loopback, and after stop() no process is left.
"""

from __future__ import annotations

from typing import Protocol


class System(Protocol):
    """Three nodes that run."""

    name: str
    protocol: str
    """What the load client calls it."""

    endpoints: list[str]

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def pids(self) -> list[int]: ...

    def leader(self) -> int:
        """Position of the leader in endpoints."""

    def kill(self, position: int) -> None: ...

    def restart(self, position: int) -> None:
        """Starts a killed node and waits until it is part of the cluster again."""
