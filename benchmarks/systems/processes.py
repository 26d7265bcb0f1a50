"""Nodes as processes: start, kill, freeze; what the peers have in common."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems.links import Links


class Processes:
    """One process for each name; output goes to files beside its data."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder.resolve()
        self.names = list(names)
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * len(self.names)
        self.links: Links | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, position: int, command: Sequence[str], *, libraries: str = "") -> None:
        """Returns at once."""
        environment = {**os.environ, **({"LD_LIBRARY_PATH": libraries} if libraries else {})}
        with (self.folder / f"{self.names[position]}.log").open("ab") as log:
            self.processes[position] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment
            )

    def stop(self) -> None:
        for position in range(len(self.names)):
            self.kill(position)
        if self.links is not None:
            self.links.close()

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes if process is not None]

    def kill(self, position: int) -> None:
        process = self.processes[position]
        if process is not None:
            process.kill()
            process.wait()
            self.processes[position] = None

    def freeze(self, position: int) -> None:
        self._signal(position, signal.SIGSTOP)

    def thaw(self, position: int) -> None:
        self._signal(position, signal.SIGCONT)

    def data(self, position: int) -> Path:
        return self.folder / self.names[position]

    def pid_of(self, position: int) -> int | None:
        process = self.processes[position]
        return process.pid if process is not None else None

    def connect_by_links(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} is not connected by links")

    def _signal(self, position: int, number: signal.Signals) -> None:
        process = self.processes[position]
        assert process is not None
        process.send_signal(number)
