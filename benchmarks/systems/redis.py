"""Three `redis-server`, each entry flushed (appendfsync always), and three Sentinels that replace a master.

A write is acknowledged to us when WAIT says that one replica has it; Redis 7.0 says so before a replica has flushed.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Final

from benchmarks import packages
from benchmarks.systems.processes import Processes
from tests.process.nodes import free_port, wait_for

DOWN_AFTER_MS: Final = 500
"""When Sentinels call a master down: as our election timeout; 30 s is their default."""


class Redis(Processes):
    """The leader is the master; endpoints and pids are those of the three servers."""

    name = "redis"
    protocol = "redis"

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.endpoints = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        self._sentinels = [free_port() for _ in range(3)]
        super().__init__(
            folder, [*(f"n{place}" for place in range(3)), *(f"sentinel{place}" for place in range(3))]
        )

    def start(self) -> None:
        for position in range(3):
            self._start_below(position, master=0)
        wait_for("both replicas to follow", lambda: "connected_slaves:2" in self._ask(0, "INFO replication"))
        for place, port in enumerate(self._sentinels):
            configuration = self.folder / f"sentinel{place}.conf"
            master = self.endpoints[0].replace(":", " ")
            configuration.write_text(
                f"port {port}\nsentinel monitor bench {master} 2\n"
                f"sentinel down-after-milliseconds bench {DOWN_AFTER_MS}\nsentinel failover-timeout bench 3000\n"
            )
            command = [str(packages.program("redis")), str(configuration), "--sentinel"]
            self.run(3 + place, command, libraries=packages.libraries("redis"))

    def start_one(self, position: int) -> None:
        """Again, below the master that there is then."""
        self._start_below(position, master=self.leader())

    def _start_below(self, position: int, *, master: int) -> None:
        data = self.folder / f"n{position}"
        data.mkdir(exist_ok=True)
        _, _, port = self.endpoints[position].rpartition(":")
        command = [
            *(str(packages.program("redis")), "--port", port, "--bind", "127.0.0.1", "--dir", str(data)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        ]
        if position != master:
            command += ["--replicaof", *self.endpoints[master].split(":")]
        self.run(position, command, libraries=packages.libraries("redis"))

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes[:3] if process is not None]

    def leader(self) -> int:
        return wait_for("redis to have a master", self._leader_or_none) - 1

    def _leader_or_none(self) -> int | None:
        """Its position + 1."""
        masters = [
            place
            for place in range(3)
            if self.processes[place] and "role:master" in self._ask(place, "INFO replication")
        ]
        return masters[0] + 1 if len(masters) == 1 else None

    def _ask(self, position: int, command: str) -> str:
        host, _, port = self.endpoints[position].rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(65536).decode("utf-8", "replace")
        except OSError:
            return ""
