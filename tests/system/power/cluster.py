"""The nodes of a power-cut test: one in the machine that loses power, the others as processes of this machine.

Invariant: what was acknowledged to the writers is compared with what the machine itself holds, node-local.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import grpc

from raftberry.v1 import cluster_pb2, cluster_pb2_grpc, maintenance_pb2, maintenance_pb2_grpc
from tests.process.client import readings_of, write_request
from tests.process.nodes import CHANNEL_OPTIONS
from tests.process.writers import FIRST_TIME, TimedWriter, UntimedWriter, Writer

CUT: Final = "cut"
CLIENT_PORT: Final = 18_460
PEER_PORT: Final = 7_441
HOST: Final = "10.0.2.2"
GUEST: Final = "10.0.2.15"
OTHERS: Final = {"a": (18_440, 18_441, 18_442), "b": (18_450, 18_451, 18_452)}
"""Ports for clients, peers and the web, below those that the kernel gives to connections."""

CALL_S: Final = 300.0
"""The machine is emulated, and the host may be busy."""

DOWN_S: Final = 1_800.0
"""How long a writer goes on trying while the machine is without power or starts."""

GUEST_ENVIRONMENT: Final = {
    "RAFTBERRY_NODE__NAME": CUT,
    "RAFTBERRY_CLIENT__ADDRESS": "0.0.0.0:7440",
    "RAFTBERRY_PEER__ADDRESS": "0.0.0.0:7441",
    "RAFTBERRY_WEB__ADDRESS": "127.0.0.1:7442",
    "RAFTBERRY_SECURITY__INSECURE": "true",
    # Every checkpoint is followed by a trim.
    "RAFTBERRY_WATCH__KEEP_BYTES": "1KiB",
    "RAFTBERRY_STORAGE__CHECKPOINT_BYTES": "1MiB",
    # The disk is small: with the default of 256 MiB the node would take no writes.
    "RAFTBERRY_STORAGE__DISK_FREE_MIN": "16MiB",
    # Emulated, the machine is twenty times slower than the others.
    "RAFTBERRY_CLUSTER__ELECTION_TIMEOUT_MIN": "1s",
    "RAFTBERRY_CLUSTER__ELECTION_TIMEOUT_MAX": "2s",
}


class Node:
    """The client side of one node."""

    def __init__(self, client_port: int) -> None:
        self.endpoint = f"127.0.0.1:{client_port}"
        self.channel = grpc.insecure_channel(self.endpoint, options=CHANNEL_OPTIONS)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)
        self.maintenance = maintenance_pb2_grpc.MaintenanceServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def status(self, timeout_s: float = 2.0) -> cluster_pb2.GetStatusResponse | None:
        """None: no answer."""
        try:
            answer: cluster_pb2.GetStatusResponse = self.cluster.GetStatus(
                cluster_pb2.GetStatusRequest(), timeout=timeout_s
            )
        except grpc.RpcError:
            return None
        return answer

    def checkpoint(self) -> grpc.Future:
        return self.maintenance.Checkpoint.future(maintenance_pb2.CheckpointRequest(), timeout=CALL_S)

    def transfer(self, target: str) -> grpc.Future:
        return self.cluster.TransferLeadership.future(
            cluster_pb2.TransferLeadershipRequest(target=target), timeout=CALL_S
        )

    def serving(self, timeout_s: float) -> cluster_pb2.GetStatusResponse:
        """Its status as soon as it has a leader; AssertionError when it is quarantined or late."""
        end = time.monotonic() + timeout_s
        found = None
        while time.monotonic() < end:
            found = self.status()
            if found is not None:
                assert found.role != cluster_pb2.ROLE_QUARANTINED, f"quarantined: {list(found.alarms)}"
                if found.has_quorum:
                    return found
            time.sleep(0.1)
        raise AssertionError(f"{self.endpoint} did not come back within {timeout_s} s: {found}")


class Others:
    """Two founders on loopback, beside the machine. program: the libraries and raftberry that the machine has; the
    working tree may change under a run of an hour. Logs go on in FOLDER/NAME.log of the campaign."""

    def __init__(self, folder: Path, program: Path, logs: Path) -> None:
        self._folder, self._program, self._logs = folder, program, logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.nodes = {name: Node(client) for name, (client, _, _) in OTHERS.items()}

    def start(self) -> None:
        for name, (client, peer, web) in OTHERS.items():
            environment = {
                key: value
                for key, value in GUEST_ENVIRONMENT.items()
                if "ADDRESS" not in key and "NAME" not in key
            }
            log = (self._logs / f"{name}.log").open("ab")
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "appliance", "serve", "--name", name, "--data", str(self._folder / name),
                 "--client-address", f"127.0.0.1:{client}", "--peer-address", f"0.0.0.0:{peer}",
                 "--web-address", f"127.0.0.1:{web}", "--initial-members", members()],
                stdout=log, stderr=log, cwd=self._folder,
                env={**os.environ, **environment, "PYTHONPATH": str(self._program)},
            )  # fmt: skip

    def leader(self) -> str:
        """Its name; empty while the machine leads or nobody does."""
        for name, node in self.nodes.items():
            found = node.status()
            if found is not None and found.role == cluster_pb2.ROLE_LEADER:
                return name
        return ""

    def pause(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """At once: what they hold is not looked at any more."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        for node in self.nodes.values():
            node.close()


def members() -> str:
    """The founders by addresses that are the same on both sides: the machine's own in its network, and the one by
    which its network knows this host. script/test-power-cut gives both to the loopback of a network of its own."""
    others = ",".join(f"{name}={HOST}:{peer}" for name, (_, peer, _) in OTHERS.items())
    return f"{others},{CUT}={GUEST}:{PEER_PORT}"


class Patient(Writer):
    """A writer that waits for as long as the machine may be down."""

    def deadline(self) -> float:
        return min(self._end, time.monotonic() + DOWN_S)


class PatientTimed(Patient, TimedWriter):
    pass


class PatientUntimed(Patient, UntimedWriter):
    pass


class Writers:
    """Two series that are written all the time; each write is repeated until it is acknowledged."""

    def __init__(self, endpoints: list[str], life: int) -> None:
        self._timed = PatientTimed(f"timed-{life}", endpoints, first=0)
        self._untimed = PatientUntimed(f"untimed-{life}", endpoints, first=len(endpoints) - 1)
        self.all = (self._timed, self._untimed)
        for writer in self.all:
            writer.start()

    def counts(self) -> tuple[int, int]:
        for writer in self.all:
            assert writer.failure is None, f"{writer.name}: {writer.failure}"
        return self._timed.acknowledged, self._untimed.acknowledged

    def abandon(self) -> None:
        """The node they wrote to is gone for good."""
        for writer in self.all:
            writer._stopping.set()
            writer._end = 0.0

    def missing(self, node: Node, counts: tuple[int, int]) -> list[str]:
        """What was acknowledged up to counts and is not there, or is there twice. Empty: all is well."""
        timed = dict(readings_of(node.channel, "faults", self._timed.name, is_local=True))
        untimed = Counter(
            value for _, value in readings_of(node.channel, "faults", self._untimed.name, is_local=True)
        )
        return [
            *(f"timed {n}" for n in range(1, counts[0] + 1) if timed.get(FIRST_TIME + n) != float(n)),
            *(f"untimed {n}" for n in range(1, counts[1] + 1) if untimed[float(n)] == 0),
            *(f"twice {value}" for value, count in untimed.items() if count > 1),
        ]


def write_ballast(node: Node, rng: random.Random, *, number: int, readings: int) -> None:
    """Readings that do not compress: a snapshot that takes a while."""
    first = FIRST_TIME + number * 10_000_000
    for part in range(0, readings, 20_000):
        count = min(20_000, readings - part)
        times = [first + part + n for n in range(count)]
        request = write_request("faults", "ballast", times, [rng.random() for _ in range(count)])
        stub = node.channel.unary_unary(
            "/raftberry.v1.ReadingService/Write",
            request_serializer=type(request).SerializeToString,
            response_deserializer=lambda data: data,
        )
        stub(request, timeout=CALL_S)
