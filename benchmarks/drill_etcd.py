"""etcd under `raftberry drill`: the same load, the same faults, the same figures.

Invariant: what is etcd's here is how a node is started, how one write is sent and what a node says of itself; when
to write, when to go on to the next node, what to break and how to count are the product's own drill.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import etcd_kv_pb2  # made by script/benchmark-drill
import grpc
from google.protobuf.message import Message

from appliance.cli.drill.cluster import NodeEnded
from appliance.client.steady import ATTEMPT_S, LOOK_S, Look, SteadyLoad
from appliance.host.relay import Relay, holds_port
from benchmarks import packages
from benchmarks.slow_disk import Stall
from benchmarks.systems import Etcd
from raftberry.v1 import reading_pb2

Answer = TypeVar("Answer", bound=Message)


def etcd_version() -> str:
    """As it says itself: `3.4.23`."""
    done = subprocess.run([packages.program("etcd"), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].removeprefix("etcd Version: ")


class EtcdCluster:
    """Nodes n0, n1, ... with a relay between them: what faults do to a cluster."""

    def __init__(self, count: int, *, parent: Path, election_ms: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="etcd-drill-", dir=parent))
        self._etcd = Etcd(self._folder / "data", election_ms=election_ms, nodes=count)
        self.links = Relay(self._find_dialler)
        self._away: set[str] = set()
        self._stalls: dict[str, Stall] = {}

    @property
    def names(self) -> list[str]:
        return [f"n{position}" for position in range(len(self.endpoints))]

    @property
    def endpoints(self) -> list[str]:
        return self._etcd.endpoints

    def start(self) -> None:
        ports = [int(peer.rpartition(":")[2]) for peer in self._etcd.peers]
        self._etcd.known_peers = [self.links.listen(*each) for each in zip(self.names, ports, strict=True)]
        self._etcd.start()

    def kill(self, name: str) -> None:
        self._away.add(name)
        self._etcd.kill(self._position(name))

    def restart(self, name: str) -> None:
        self._etcd.start_one(self._position(name))
        self._away.discard(name)

    def freeze(self, name: str) -> None:
        os.kill(self._pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self._pid(name), signal.SIGCONT)

    def stall_disk(self, name: str, seconds: float) -> None:
        if seconds > 0:
            self._stalls[name] = Stall(self._pid(name), seconds)
        else:
            self._stalls.pop(name).end()

    def check(self) -> None:
        """Raises NodeEnded if a node ended by itself."""
        for name in self.names:
            process = self._etcd.processes[self._position(name)]
            if name not in self._away and process is not None and process.poll() is not None:
                raise NodeEnded(f"etcd {name} ended by itself with status {process.returncode}")

    def close(self) -> None:
        for stall in self._stalls.values():
            stall.end()
        self._etcd.stop()
        self.links.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def transfer(self, _target: str) -> None:
        """To the follower that comes first: etcd wants to be told to whom."""
        leader = self._etcd.leader()
        follower = next(place for place in range(len(self.endpoints)) if place != leader)
        with ExitStack() as channels:
            to_leader, to_follower = (
                channels.enter_context(grpc.insecure_channel(self.endpoints[place]))
                for place in (leader, follower)
            )
            status = _method(to_follower, "Maintenance/Status", etcd_kv_pb2.StatusResponse)(b"", timeout=5)
            request = etcd_kv_pb2.MoveLeaderRequest(targetID=status.header.member_id)
            move = _method(to_leader, "Maintenance/MoveLeader", etcd_kv_pb2.MoveLeaderResponse)
            move(request.SerializeToString(), timeout=10)

    def read_back(self, sensor: str, writer: str) -> list[int]:
        """Every sequence as often as its key was put. A linearizable read."""
        found: list[int] = []
        prefix = f"{sensor}/{writer}/".encode()
        key, end = prefix, prefix[:-1] + b"0"
        with grpc.insecure_channel(self.endpoints[0]) as channel:
            read = _method(channel, "KV/Range", etcd_kv_pb2.RangeResponse)
            while True:
                request = etcd_kv_pb2.RangeRequest(key=key, range_end=end, limit=10_000)
                page = read(request.SerializeToString(), timeout=60)
                for pair in page.kvs:
                    found += [struct.unpack(">Q", pair.key[len(prefix) :])[0]] * pair.version
                if not page.more:
                    return found
                key = page.kvs[-1].key + b"\0"

    def _position(self, name: str) -> int:
        return self.names.index(name)

    def _pid(self, name: str) -> int:
        process = self._etcd.processes[self._position(name)]
        assert process is not None
        return process.pid

    def _find_dialler(self, port: int) -> str:
        pairs = zip(self.names, self._etcd.processes, strict=True)
        return next((name for name, one in pairs if one is not None and holds_port(one.pid, port)), "")


def _method(
    channel: grpc.Channel, name: str, answer: type[Answer]
) -> grpc.UnaryUnaryMultiCallable[bytes, Answer]:
    return channel.unary_unary(f"/etcdserverpb.{name}", response_deserializer=answer.FromString)


class EtcdLoad(SteadyLoad):
    """The same writers; a write is a Put of its own key, so that one that is sent again overwrites itself."""

    def __init__(self, endpoints: Sequence[str], **options: Any) -> None:
        super().__init__(endpoints, **options)
        self._names: dict[int, str] = {}
        """By member id, as they told."""

    async def _is_written(self, writer, request: reading_pb2.WriteRequest) -> bool:  # type: ignore[no-untyped-def]
        put = self._channels[writer.position].unary_unary(
            "/etcdserverpb.KV/Put", response_deserializer=etcd_kv_pb2.PutResponse.FromString
        )
        key = f"{self.sensor}/{writer.name}/".encode() + struct.pack(">Q", request.sequence)
        value = struct.pack(">Q", request.sequence)
        message = etcd_kv_pb2.PutRequest(key=key, value=value).SerializeToString()
        try:
            await put(message, timeout=ATTEMPT_S)
        except grpc.aio.AioRpcError as error:
            self._judge(error, writer)
            return False
        return True

    async def _look(self, channel: grpc.aio.Channel) -> None:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, etcd_kv_pb2.StatusResponse] = channel.unary_unary(
            "/etcdserverpb.Maintenance/Status", response_deserializer=etcd_kv_pb2.StatusResponse.FromString
        )
        name = f"n{self._channels.index(channel)}"
        while True:
            with suppress(grpc.aio.AioRpcError):
                status = await ask(b"", timeout=ATTEMPT_S)
                self._names[status.header.member_id] = name
                self.looks.append(
                    Look(
                        at_s=time.monotonic(),
                        name=name,
                        is_leader=bool(status.leader) and status.leader == status.header.member_id,
                        term=status.raftTerm,
                        commit_index=status.raftIndex,
                        applied_index=status.raftAppliedIndex,
                        leader=self._names.get(status.leader, ""),
                    )
                )
            await asyncio.sleep(LOOK_S)
