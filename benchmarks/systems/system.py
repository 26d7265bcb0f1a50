"""What every system under measurement is to the benchmark.

Invariant: the same directory, addresses on loopback, and after stop() no process is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from benchmarks.systems.links import Links


class System(Protocol):
    """Its nodes, by position."""

    @property
    def name(self) -> str: ...

    @property
    def protocol(self) -> str:
        """What the load client calls it."""

    endpoints: list[str]
    links: Links | None
    """Set by connect_by_links."""

    def connect_by_links(self) -> None:
        """Before start(): nodes reach each other by links that can be cut."""

    def start(self) -> None:
        """All nodes; returns when they serve."""

    def stop(self) -> None: ...

    def pids(self) -> list[int]: ...

    def leader(self) -> int:
        """Position of the leader in endpoints; waits until there is one."""

    def kill(self, position: int) -> None: ...

    def start_one(self, position: int) -> None:
        """Starts a node that was killed; returns at once."""

    def freeze(self, position: int) -> None: ...

    def thaw(self, position: int) -> None: ...

    def data(self, position: int) -> Path:
        """The directory of a node's data."""
