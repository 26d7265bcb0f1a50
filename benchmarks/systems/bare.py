"""Three nodes of nothing but the parts that are given (benchmarks/bare.py)."""

from __future__ import annotations

import shutil
import socket
import sys
from functools import partial
from pathlib import Path

from benchmarks.systems.processes import Processes
from tests.process.nodes import free_port, wait_for


class Bare(Processes):
    """It keeps nothing that can be read: writes only, which are not read back."""

    protocol = "raftberry"

    def __init__(self, folder: Path, *, is_grpc: bool = False) -> None:
        self.name, self._is_grpc = "bare-grpc" if is_grpc else "bare", is_grpc
        shutil.rmtree(folder, ignore_errors=True)
        super().__init__(folder, ["n0", "n1", "n2"])
        self.endpoints = [f"127.0.0.1:{free_port()}" for _ in self.names]
        self._peers = [f"127.0.0.1:{free_port()}" for _ in self.names]

    def start(self) -> None:
        for position in range(len(self.names)):
            self.start_one(position)
        for endpoint in self.endpoints:
            wait_for(f"a node at {endpoint}", partial(_is_listening, endpoint))

    def start_one(self, position: int) -> None:
        self.run(
            position,
            [
                *(sys.executable, "-m", "benchmarks.bare", "--me", str(position)),
                *("--clients", self.endpoints[position], "--peers", ",".join(self._peers)),
                *("--folder", str(self.data(position)), *(("--grpc",) if self._is_grpc else ())),
            ],
        )

    def leader(self) -> int:
        return 0


def _is_listening(endpoint: str) -> bool:
    host, port = endpoint.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
