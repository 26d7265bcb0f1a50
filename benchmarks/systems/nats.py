"""Three `nats-server` with JetStream: stream READINGS with three replicas in files.

JetStream acknowledges before its files are flushed (sync_interval of 2 minutes is its default).
"""

from __future__ import annotations

import json
import shutil
import socket
import urllib.request
from pathlib import Path
from typing import Any, Final

from benchmarks import packages
from benchmarks.systems.links import Links
from benchmarks.systems.processes import Processes
from tests.process.nodes import free_port, wait_for

STREAM: Final = "READINGS"


class Nats(Processes):
    """The leader is that of the stream."""

    name = "nats"
    protocol = "nats"

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.endpoints = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        self.peers = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        self.known_peers = self.peers
        self._web = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        super().__init__(folder, [f"n{position}" for position in range(3)])

    def connect_by_links(self) -> None:
        self.links = Links(self.peers, self.pid_of)
        self.known_peers = self.links.addresses

    def start(self) -> None:
        for position in range(3):
            self.start_one(position)
        wait_for("JetStream to have a leader", self._has_created_stream)
        self.leader()

    def start_one(self, position: int) -> None:
        name = f"n{position}"
        routes = ", ".join(
            f'"nats://{peer}"' for other, peer in enumerate(self.known_peers) if other != position
        )
        configuration = self.folder / f"{name}.conf"
        configuration.write_text(
            f"server_name: {name}\nlisten: {self.endpoints[position]}\nhttp: {self._web[position]}\n"
            f'jetstream {{ store_dir: "{self.folder / name}" }}\n'
            f"cluster {{ name: bench, listen: {self.peers[position]}, no_advertise: true, routes: [{routes}] }}\n"
        )
        self.run(position, [str(packages.program("nats")), "-c", str(configuration)])

    def leader(self) -> int:
        return wait_for("the stream to have a leader", self._leader_or_none) - 1

    def _leader_or_none(self) -> int | None:
        """Its position + 1: whom most servers name, itself among them. One that was deposed may still name itself."""
        named = [self._leader_of(position) for position in range(3)]
        for place in range(3):
            if named[place] == place and named.count(place) >= 2:
                return place + 1
        return None

    def _leader_of(self, position: int) -> int | None:
        """The stream's leader as this server sees it."""
        if self.processes[position] is None:
            return None
        try:
            with urllib.request.urlopen(
                f"http://{self._web[position]}/jsz?accounts=true&streams=true", timeout=1
            ) as response:
                state: dict[str, Any] = json.load(response)
        except OSError:
            return None
        for account in state.get("account_details") or []:
            for stream in account.get("stream_detail") or []:
                if stream["name"] == STREAM and (leader := (stream.get("cluster") or {}).get("leader")):
                    return int(leader.removeprefix("n"))
        return None

    def _has_created_stream(self) -> bool:
        answer = _request(
            self.endpoints[0],
            f"$JS.API.STREAM.CREATE.{STREAM}",
            {"name": STREAM, "subjects": ["s.>"], "num_replicas": 3, "storage": "file"},
        )
        return b'"config"' in answer


def _request(endpoint: str, subject: str, request: dict[str, Any]) -> bytes:
    """The answer's first bytes; empty if there is none within three seconds."""
    host, _, port = endpoint.rpartition(":")
    payload = json.dumps(request).encode()
    received = b""
    try:
        with socket.create_connection((host, int(port)), timeout=3) as connection:
            connection.sendall(
                b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB reply 1\r\n'
                + f"PUB {subject} reply {len(payload)}\r\n".encode()
                + payload
                + b"\r\n"
            )
            while b"MSG reply" not in received or not received.endswith(b"}\r\n"):
                part = connection.recv(65536)
                if not part:
                    break
                received += part
    except OSError:
        pass
    return received.partition(b"MSG reply")[2]
