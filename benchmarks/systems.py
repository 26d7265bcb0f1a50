"""The two systems as three real processes each, with one face for the benchmark.

Invariant: the same directory, addresses on loopback and number of nodes; etcd runs with its defaults unless a
row says otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, Protocol

import etcd_kv_pb2  # made by script/benchmark
import grpc

from tests.process.nodes import CHANNEL_OPTIONS, Cluster, free_port

ETCD: Final = "BENCHMARK_ETCD"
"""Environment variable with the path of the etcd executable; script/benchmark sets it."""


class System(Protocol):
    """Three nodes that run."""

    name: str
    endpoints: list[str]

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def pids(self) -> list[int]: ...

    def leader(self) -> int:
        """Position of the leader in endpoints."""

    def kill(self, position: int) -> None: ...

    def restart(self, position: int) -> None:
        """Starts a killed node and waits until it is part of the cluster again."""


class Raftberry:
    """Three `raftberry serve`."""

    name = "raftberry"

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


class Etcd:
    """`etcd`, three or more; election_ms 1000 and heartbeat 100 are its defaults."""

    name = "etcd"

    def __init__(self, folder: Path, *, election_ms: int = 1_000, nodes: int = 3) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._election_ms = election_ms
        self.endpoints = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
        self.peers = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
        self.known_peers = self.peers
        """Where the others look for each: a relay, if there is one between them."""
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * nodes

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
            *(os.environ[ETCD], "--name", name, "--data-dir", str(self._folder / name)),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", known_peer),
            *("--initial-cluster", members, "--quota-backend-bytes", str(8 << 30)),
            *(("--election-timeout", str(self._election_ms)) if self._election_ms != 1_000 else ()),
        ]
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[position] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> None:
        for position in range(len(self.endpoints)):
            self.kill(position)

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes if process is not None]

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
            with grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS) as channel:
                call: grpc.UnaryUnaryMultiCallable[bytes, etcd_kv_pb2.StatusResponse] = channel.unary_unary(
                    "/etcdserverpb.Maintenance/Status",
                    response_deserializer=etcd_kv_pb2.StatusResponse.FromString,
                )
                try:
                    status = call(b"", timeout=1)
                except grpc.RpcError:
                    continue
            if status.leader and status.leader == status.header.member_id:
                return position
        return None

    def kill(self, position: int) -> None:
        process = self.processes[position]
        if process is not None:
            process.kill()
            process.wait()
            self.processes[position] = None

    def restart(self, position: int) -> None:
        self.start_one(position)
        time.sleep(2.0)


def make(name: str, folder: Path) -> System:
    """A fresh cluster: raftberry, etcd (its defaults), etcd-500ms (election timeout as ours)."""
    if name == "raftberry":
        return Raftberry(folder)
    return Etcd(folder, election_ms=500 if name == "etcd-500ms" else 1_000)
