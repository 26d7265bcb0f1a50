"""Real node processes on loopback: start, wait until ready, kill, stop, continue, restart.

Invariant: whatever a test does, close() leaves no process behind. Also used by the benchmarks.
Synchronous on purpose: a test reads from top to bottom, and its clients run in threads.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raftberry.v1 import cluster_pb2, cluster_pb2_grpc, maintenance_pb2, maintenance_pb2_grpc

ROOT: Final = Path(__file__).resolve().parents[2]

READY_TIMEOUT_S: Final = 120.0
"""Python's start and an election take two seconds; a loaded CI machine many more."""

CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)

Value = TypeVar("Value")
_ports: dict[str, int] = {"next": int(os.environ.get("RAFTBERRY_TEST_BASE_PORT", "17800"))}


def free_port() -> int:
    """A port of loopback that nothing listens on now; rising, so that no two nodes of a run share one."""
    while True:
        port = _ports["next"]
        _ports["next"] += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_for(what: str, probe: Callable[[], Value | None], *, timeout_s: float = READY_TIMEOUT_S) -> Value:
    """The first value of probe that is neither None nor False; AssertionError naming what after timeout_s."""
    end = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < end, f"waited {timeout_s:.0f} s for: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Program:
    """What a node runs: a version of Raftberry. root: of its tree, with what is generated."""

    name: str = "this tree"
    root: Path = ROOT
    command: tuple[str, ...] = (sys.executable, "-m", "appliance")

    @property
    def environment(self) -> dict[str, str]:
        """Without what the shell of whoever runs the tests says to Raftberry."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAFTBERRY_")}
        return kept | {"PYTHONPATH": os.pathsep.join([str(self.root), str(self.root / "generated")])}


@dataclass
class Node:
    """One node: its addresses, its directory and, while it runs, its process."""

    name: str
    data: Path
    initial_members: str = ""
    client_address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    peer_address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    web_address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    prefix: tuple[str, ...] = ()
    """What runs the command line: `nsenter` and its options, for a node in a namespace of its own."""

    program: Program = field(default_factory=Program)
    flags: tuple[str, ...] = ("--insecure",)
    rebuild_after: str = "0s"
    """cluster.rebuild_after; 0s: a node in doubt waits."""

    settings: dict[str, str] = field(default_factory=dict)
    """Variables of the environment, RAFTBERRY_SECTION__KEY, from the next start on."""

    process: subprocess.Popen[bytes] | None = None
    _channel: grpc.Channel | None = None

    @property
    def log_path(self) -> Path:
        return self.data.with_name(f"{self.name}.log")

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.client_address, options=CHANNEL_OPTIONS)
        return self._channel

    def start(self, *, failpoint: str = "", arguments: Sequence[str] = ()) -> None:
        """Starts the process; returns at once. failpoint: `journal.before_commit:kill:0.01` and the like."""
        assert not self.is_running, f"{self.name} runs already"
        environment = self.program.environment
        environment["PYTHONUNBUFFERED"] = "1"
        environment["RAFTBERRY_CLUSTER__REBUILD_AFTER"] = self.rebuild_after
        environment |= self.settings
        if failpoint:
            environment["RAFTBERRY_FAILPOINT"] = failpoint
        command = [
            *self.prefix,
            *(*self.program.command, "serve"),
            *("--name", self.name, "--data", str(self.data), *self.flags),
            *("--client-address", self.client_address, "--peer-address", self.peer_address),
            *("--web-address", self.web_address),
            *(("--initial-members", self.initial_members) if self.initial_members else ()),
            *arguments,
        ]
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            log.write(f"--- start {time.time():.3f} {self.program.name} {failpoint}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command,
                cwd=self.program.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait_exit(self, *, timeout_s: float = READY_TIMEOUT_S) -> int:
        """Waits for the process to end; its exit status (negative: the signal)."""
        assert self.process is not None
        status = self.process.wait(timeout_s)
        self._forget_channel()
        return status

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        if self.is_running:
            self.signal(signal.SIGKILL)
        if self.process is not None:
            self.wait_exit()

    def terminate(self, *, timeout_s: float = READY_TIMEOUT_S) -> int:
        """SIGTERM, and waits for the graceful end; its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout_s=timeout_s)

    def health(self, service: str = "raftberry.v1.ReadingService") -> bool:
        """Whether the health service says SERVING."""
        try:
            answer = health_pb2_grpc.HealthStub(self.channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=0.5
            )
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def status(self, *, timeout_s: float = 0.5) -> cluster_pb2.GetStatusResponse | None:
        """What the node says of itself; None if it does not answer in time."""
        try:
            stub = cluster_pb2_grpc.ClusterServiceStub(self.channel)
            answer: cluster_pb2.GetStatusResponse = stub.GetStatus(
                cluster_pb2.GetStatusRequest(), timeout=timeout_s
            )
        except grpc.RpcError:
            return None
        return answer

    def verify(self) -> maintenance_pb2.VerifyResponse:
        """The hash of this node's state."""
        stub = maintenance_pb2_grpc.MaintenanceServiceStub(self.channel)
        answer: maintenance_pb2.VerifyResponse = stub.Verify(
            maintenance_pb2.VerifyRequest(local=True), timeout=READY_TIMEOUT_S
        )
        return answer

    def request_checkpoint(self) -> None:
        """Asks for a checkpoint; no answer is no matter (a failpoint may end the node over it)."""
        try:
            stub = maintenance_pb2_grpc.MaintenanceServiceStub(self.channel)
            stub.Checkpoint(maintenance_pb2.CheckpointRequest(), timeout=1)
        except grpc.RpcError:
            pass

    def wait_serving(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits until linearizable requests are served through this node."""

        def is_serving() -> bool:
            assert self.is_running, (
                f"{self.name} ended with {self.process and self.process.poll()}:\n{self.log[-4000:]}"
            )
            return self.health()

        wait_for(f"{self.name} to serve; log: {self.log_path}", is_serving, timeout_s=timeout_s)

    def _forget_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class Cluster:
    """Founders of one cluster, each a Node with its directory under one folder."""

    def __init__(self, folder: Path, *, size: int = 3) -> None:
        self.nodes = [Node(name=f"n{number}", data=folder / f"n{number}") for number in range(1, size + 1)]
        members = ",".join(f"{node.name}={node.peer_address}" for node in self.nodes)
        for node in self.nodes:
            node.initial_members = members

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @property
    def endpoints(self) -> list[str]:
        return [node.client_address for node in self.nodes]

    def start(self) -> None:
        """Starts all nodes that do not run and waits until all serve."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        for node in self.nodes:
            node.wait_serving()

    def close(self) -> None:
        """Ends every process, stopped ones included."""
        for node in self.nodes:
            node.kill()

    def kill_all(self) -> None:
        """kill -9 of all nodes at once."""
        for node in self.nodes:
            if node.is_running:
                node.signal(signal.SIGKILL)
        for node in self.nodes:
            node.kill()

    def leader(self, *, timeout_s: float = READY_TIMEOUT_S) -> Node:
        """The node that says it leads, in the highest term that any says."""

        def find() -> Node | None:
            known = [(node, status) for node in self.nodes if node.is_running and (status := node.status())]
            leading = [
                (status.term, node) for node, status in known if status.role == cluster_pb2.ROLE_LEADER
            ]
            highest = max((status.term for _, status in known), default=0)
            return next((node for term, node in leading if term == highest), None)

        return wait_for("a leader", find, timeout_s=timeout_s)

    def followers(self) -> list[Node]:
        """All but the leader."""
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def wait_following(self, node: Node, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits until the node follows the present leader and has caught up with where that stood at the call."""
        leader = self.leader(timeout_s=timeout_s)
        at_leader = leader.status()
        goal = at_leader.commit_index if at_leader else 0

        def is_following() -> bool:
            assert node.is_running, f"{node.name} ended:\n{node.log[-4000:]}"
            status = node.status()
            return bool(
                status
                and status.role in (cluster_pb2.ROLE_FOLLOWER, cluster_pb2.ROLE_LEADER)
                and status.leader
                and status.applied_index >= goal
            )

        wait_for(f"{node.name} to follow", is_following, timeout_s=timeout_s)

    def wait_equal_state(self, *, timeout_s: float = READY_TIMEOUT_S) -> bytes:
        """Waits until all nodes stand at one index, asserts that their states are the same there; the hash."""

        def hashes() -> set[bytes] | None:
            answers = [node.verify() for node in self.nodes]
            return (
                {answer.hash for answer in answers}
                if len({answer.index for answer in answers}) == 1
                else None
            )

        found = wait_for("all nodes at one index", hashes, timeout_s=timeout_s)
        assert len(found) == 1, "nodes at the same index hold different states"
        return found.pop()
