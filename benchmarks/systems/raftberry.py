"""Three `raftberry serve`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.process.nodes import Cluster


class Raftberry:
    """Defaults but for --insecure: the peers run without TLS too."""

    name = "raftberry"
    protocol = "raftberry"

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._cluster = Cluster(folder)
        self.endpoints = self._cluster.endpoints

    def start(self) -> None:
        self._cluster.start()

    def stop(self) -> None:
        self._cluster.close()

    def pids(self) -> list[int]:
        return [node.pid for node in self._cluster if node.is_running]

    def leader(self) -> int:
        return self._cluster.nodes.index(self._cluster.leader())

    def kill(self, position: int) -> None:
        self._cluster.nodes[position].kill()

    def restart(self, position: int) -> None:
        self._cluster.nodes[position].start()
        self._cluster.wait_following(self._cluster.nodes[position])
