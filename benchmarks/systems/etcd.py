"""Three `etcd`, with the defaults of Debian's 3.4 or with another election timeout."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import packages
from benchmarks.systems.links import Links
from benchmarks.systems.processes import Processes
from tests.process.nodes import free_port


class Etcd(Processes):
    """`etcd`, three or more; election_ms 1000 and heartbeat 100 are its defaults."""

    protocol = "etcd"

    def __init__(self, folder: Path, *, election_ms: int = 1_000, nodes: int = 3) -> None:
        self.name = "etcd" if election_ms == 1_000 else f"etcd-{election_ms}ms"
        shutil.rmtree(folder, ignore_errors=True)
        super().__init__(folder, [f"n{position}" for position in range(nodes)])
        self._election_ms = election_ms
        self.endpoints = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
        self.peers = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
        self.known_peers = self.peers
        """Where the others look for each: a relay, if there is one between them."""

    def connect_by_links(self) -> None:
        self.links = Links(self.peers, self.pid_of)
        self.known_peers = self.links.addresses

    def start(self) -> None:
        for position in range(len(self.endpoints)):
            self.start_one(position)
        self.leader()

    def start_one(self, position: int) -> None:
        """Returns at once."""
        name = f"n{position}"
        members = ",".join(f"n{number}=http://{peer}" for number, peer in enumerate(self.known_peers))
        client = f"http://{self.endpoints[position]}"
        peer, known_peer = f"http://{self.peers[position]}", f"http://{self.known_peers[position]}"
        command = [
            *(str(packages.program("etcd")), "--name", name, "--data-dir", str(self.folder / name)),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", known_peer),
            *("--initial-cluster", members, "--quota-backend-bytes", str(8 << 30)),
            *(("--election-timeout", str(self._election_ms)) if self._election_ms != 1_000 else ()),
        ]
        self.run(position, command)

    def leader(self) -> int:
        end = time.monotonic() + 30
        while (position := self._leader_or_none()) is None:
            assert time.monotonic() < end, "etcd has no leader"
            time.sleep(0.02)
        return position

    def _leader_or_none(self) -> int | None:
        for position, endpoint in enumerate(self.endpoints):
            if self.processes[position] is None:
                continue
            try:
                status = _call(endpoint, "/v3/maintenance/status")
            except OSError:
                continue
            if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                return position
        return None


def _call(endpoint: str, path: str) -> dict[str, Any]:
    """By etcd's gateway from JSON."""
    with urllib.request.urlopen(f"http://{endpoint}{path}", data=b"{}", timeout=1) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
