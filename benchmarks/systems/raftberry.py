"""Three `raftberry serve`."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from benchmarks.systems.links import Links
from tests.process.nodes import Cluster


class Raftberry:
    """Defaults but for --insecure: the peers run without TLS too."""

    name = "raftberry"
    protocol = "raftberry"

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.cluster = Cluster(folder)
        self.endpoints = self.cluster.endpoints
        self.links: Links | None = None

    def connect_by_links(self) -> None:
        nodes = self.cluster.nodes
        self.links = Links([node.peer_address for node in nodes], self._pid_of)
        members = ",".join(
            f"{node.name}={address}" for node, address in zip(nodes, self.links.addresses, strict=True)
        )
        for node in nodes:
            node.initial_members = members

    def start(self) -> None:
        self.cluster.start()

    def stop(self) -> None:
        self.cluster.close()
        if self.links is not None:
            self.links.close()

    def pids(self) -> list[int]:
        return [node.pid for node in self.cluster if node.is_running]

    def leader(self) -> int:
        return self.cluster.nodes.index(self.cluster.leader())

    def kill(self, position: int) -> None:
        self.cluster.nodes[position].kill()

    def start_one(self, position: int) -> None:
        self.cluster.nodes[position].start()

    def freeze(self, position: int) -> None:
        self.cluster.nodes[position].signal(signal.SIGSTOP)

    def thaw(self, position: int) -> None:
        self.cluster.nodes[position].signal(signal.SIGCONT)

    def data(self, position: int) -> Path:
        return self.cluster.nodes[position].data

    def _pid_of(self, position: int) -> int | None:
        node = self.cluster.nodes[position]
        return node.pid if node.is_running else None
