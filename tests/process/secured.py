"""Secured clusters of real nodes on loopback: formed by invite and join, as a user would.

Nodes are given explicit loopback ports and are told the host by which others find them, 127.0.0.1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from appliance.client.credentials import ClientCredentials
from appliance.security.keyring import Keyring
from tests.process.nodes import CHANNEL_OPTIONS, ROOT, Node, wait_for

HOST = "127.0.0.1"
SEND_MAX = "grpc.max_send_message_length"


def raftberry(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """A command as a user types it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAFTBERRY_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "generated")])
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@dataclass
class SecuredNode(Node):
    """A node that was not told to be insecure; spoken to through its local socket."""

    flags: tuple[str, ...] = ()
    _local: grpc.Channel | None = field(default=None)

    @property
    def socket(self) -> str:
        return f"unix:{self.data}/raftberry.sock"

    @property
    def keyring(self) -> Keyring:
        return Keyring(self.data)

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            options = [*CHANNEL_OPTIONS, ("grpc.default_authority", "localhost")]
            self._channel = grpc.insecure_channel(self.socket, options=options)
        return self._channel

    def remote(self, *, send_bytes_max: int = 64 << 20) -> grpc.Channel:
        """As another machine would: TLS against the cluster's CA."""
        authority = self.keyring.authority
        assert authority is not None
        credentials = ClientCredentials(authority_pem=authority.pem)
        options = [one for one in CHANNEL_OPTIONS if one[0] != SEND_MAX] + [(SEND_MAX, send_bytes_max)]
        return credentials.channel(self.client_address, options)

    def command(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return raftberry(*arguments, "--endpoint", self.socket, timeout_s=timeout_s)

    def invite(self, *arguments: str) -> str:
        """The token of a fresh invite."""
        done = self.command("invite", "--host", HOST, "--timeout", "60s", *arguments)
        assert done.returncode == 0, done.stderr
        words = done.stdout.split()
        assert words[:3] == ["sudo", "raftberry", "join"], done.stdout
        assert words[3] == self.client_address
        return words[4]

    def join(self, member: SecuredNode, invite: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        wait = ("--wait", "90s", "--timeout", "60s")
        return self.command("join", member.client_address, invite, "--advertise", HOST, *wait, *arguments)

    def is_voter_of(self, size: int) -> bool:
        status = self.status()
        return status is not None and status.has_quorum and len([p for p in status.peers if p.voter]) == size


class SecuredCluster:
    """Nodes n1, n2, ...: n1 founds, the others join."""

    def __init__(self, folder: Path, *, size: int = 3) -> None:
        self.invite = ""
        self.nodes = [
            SecuredNode(name=f"n{number}", data=folder / f"n{number}") for number in range(1, size + 1)
        ]

    def __enter__(self) -> SecuredCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def form(self) -> None:
        """Start all, and let all join the first."""
        first, *others = self.nodes
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_serving()
        self.invite = first.invite("--uses", str(len(others) or 1))
        for node in others:
            done = node.join(first, self.invite)
            assert done.returncode == 0, f"{done.stderr}\n{node.log[-3000:]}"
        for node in self.nodes:
            wait_for(
                f"{node.name} in a cluster", lambda node=node: node.is_voter_of(len(self.nodes)), timeout_s=60
            )

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


def token_of(node: SecuredNode, name: str, *rights: str) -> str:
    """The text of a new token."""
    done = node.command("token", "create", name, *rights, "-o", "jsonl")
    assert done.returncode == 0, done.stderr
    text = done.stdout.split('"token": "')[1].partition('"')[0]
    assert text.startswith("rbt1_")
    return text
