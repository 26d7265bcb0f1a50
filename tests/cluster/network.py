"""Where the nodes live and what can be done to the links between them.

Two forms with one interface. Namespaces: a bridge in this process's own network namespace, one namespace a node; a
link is set down, and one direction of one pair is cut by a neighbour entry that nobody answers to. Loopback: where no
namespaces can be made, every node is reached through the proxy, which stalls streams instead; coarser, for it can't
tell who dials.
Some nodes are behind the proxy in both forms, for delay, throttling, stalls and resets.
"""

from __future__ import annotations

import os
import random
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Final

from tests.cluster.proxy import Path, Proxy

SUBNET: Final = "10.77.0"
HUB_ADDRESS: Final = f"{SUBNET}.254"
ANYBODY: Final = "anybody"
NOBODY: Final = "02:00:00:00:00:fe"
"""A hardware address that no interface has: what is sent there is lost without a word."""

PROXIED: Final = 3
"""Nodes of five that the others reach through the proxy."""


def run(*command: str, is_checked: bool = True) -> str:
    """Output of a command."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if is_checked and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Network(ABC):
    """Names are node names. `block` is one way; everything is undone by `mend`."""

    form: str
    proxy: Proxy

    @abstractmethod
    def client_address(self, name: str) -> str: ...

    @abstractmethod
    def peer_address(self, name: str) -> str: ...

    @abstractmethod
    def web_address(self, name: str) -> str: ...

    @abstractmethod
    def prefix(self, name: str) -> tuple[str, ...]: ...

    @abstractmethod
    def block(self, source: str, target: str) -> None: ...

    @abstractmethod
    def link_down(self, name: str) -> None: ...

    @abstractmethod
    def mend(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def __init__(self, names: Sequence[str], rng: random.Random) -> None:
        self.names = list(names)
        self._rng = rng
        self._dialled: dict[str, str] = {}
        """Where nodes behind the proxy are dialled: what the cluster knows as their address."""

    def members(self) -> str:
        """--initial-members, the same for all."""
        return ",".join(f"{name}={self._dialled.get(name, self.peer_address(name))}" for name in self.names)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every ordered pair."""
        return ((one, other) for one in self.names for other in self.names if one != other)

    def proxied_pairs(self) -> list[tuple[str, str]]:
        return [(one, other) for one, other in self.pairs() if other in self._dialled]

    def path(self, source: str, target: str) -> Path:
        """What happens to bytes on their way through the proxy."""
        return self.proxy.path(source, target)

    def cut(self, pairs: Sequence[tuple[str, str]]) -> int:
        """Break the connections of these pairs; how many."""
        return self.proxy.cut(pairs)

    def partition(self, *groups: Sequence[str]) -> None:
        """Nothing passes between two groups."""
        group_of = {name: number for number, group in enumerate(groups) for name in group}
        for one, other in self.pairs():
            if group_of[one] != group_of[other]:
                self.block(one, other)

    def _dial_through_proxy(self, name: str) -> None:
        host, _, port = self.peer_address(name).rpartition(":")
        self._dialled[name] = self.proxy.listen(name, (host, int(port)))


class NamespaceNetwork(Network):
    """Needs a network and a mount namespace of this process's own (sandbox.py)."""

    form = "namespaces"

    def __init__(self, names: Sequence[str], rng: random.Random) -> None:
        super().__init__(names, rng)
        self._number = {name: number for number, name in enumerate(names, start=1)}
        self._poisoned: set[tuple[str, str]] = set()
        self._down: set[str] = set()
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "hub0", "type", "bridge")
        run("ip", "addr", "add", f"{HUB_ADDRESS}/24", "dev", "hub0")
        run("ip", "link", "set", "hub0", "up")
        for name in names:
            self._add(name)
        names_by_host = {self._host(name): name for name in names}
        self.proxy = Proxy(HUB_ADDRESS, random.Random(rng.random()), names_by_host.__getitem__)
        for name in rng.sample(list(names), PROXIED):
            self._dial_through_proxy(name)

    def _add(self, name: str) -> None:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"port-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"port-{name}", "master", "hub0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "addr", "add", f"{self._host(name)}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")

    def _host(self, name: str) -> str:
        return f"{SUBNET}.{self._number[name]}"

    def client_address(self, name: str) -> str:
        return f"{self._host(name)}:7440"

    def peer_address(self, name: str) -> str:
        return f"{self._host(name)}:7441"

    def web_address(self, name: str) -> str:
        return f"{self._host(name)}:7442"

    def prefix(self, name: str) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{name}", "--")

    def block(self, source: str, target: str) -> None:
        self.proxy.path(source, target).is_blocked = True
        self._poisoned.add((source, target))
        run(
            *("ip", "-n", source, "neigh", "replace", self._host(target)),
            *("lladdr", NOBODY, "dev", "eth0", "nud", "permanent"),
        )

    def link_down(self, name: str) -> None:
        self._down.add(name)
        run("ip", "link", "set", f"port-{name}", "down")

    def mend(self) -> None:
        for name in sorted(self._down):
            run("ip", "link", "set", f"port-{name}", "up")
        for source, target in sorted(self._poisoned):
            run("ip", "-n", source, "neigh", "del", self._host(target), "dev", "eth0", is_checked=False)
        self._down, self._poisoned = set(), set()
        self.proxy.mend()

    def close(self) -> None:
        self.proxy.close()


class LoopbackNetwork(Network):
    """Every pair through the proxy; for machines where this process may not make namespaces."""

    form = "loopback"

    def __init__(self, names: Sequence[str], rng: random.Random) -> None:
        super().__init__(names, rng)
        # All of 127/8 is loopback: addresses of this run's own, so that no other process takes a port of ours.
        run_id = os.getpid()
        subnet = f"127.{1 + run_id // 250 % 250}.{1 + run_id % 250}"
        self._hosts = {name: f"{subnet}.{number}" for number, name in enumerate(names, start=1)}
        # Nobody can tell who dials: a path is that of all others, and a cut pair costs its second node all its links.
        self.proxy = Proxy("127.0.0.1", random.Random(rng.random()), lambda _: ANYBODY)
        for name in names:
            self._dial_through_proxy(name)

    def client_address(self, name: str) -> str:
        return f"{self._hosts[name]}:7440"

    def peer_address(self, name: str) -> str:
        return f"{self._hosts[name]}:7441"

    def web_address(self, name: str) -> str:
        return f"{self._hosts[name]}:7442"

    def prefix(self, name: str) -> tuple[str, ...]:
        return ()

    def block(self, source: str, target: str) -> None:
        self.path(source, target).is_blocked = True

    def path(self, source: str, target: str) -> Path:
        return self.proxy.path(ANYBODY, target)

    def cut(self, pairs: Sequence[tuple[str, str]]) -> int:
        return self.proxy.cut([(ANYBODY, target) for _, target in pairs])

    def link_down(self, name: str) -> None:
        """Its clients still reach it: only the links to the other nodes are cut."""
        self.block(ANYBODY, name)

    def mend(self) -> None:
        self.proxy.mend()

    def close(self) -> None:
        self.proxy.close()


def make_network(form: str, names: Sequence[str], rng: random.Random) -> Network:
    return NamespaceNetwork(names, rng) if form == "namespaces" else LoopbackNetwork(names, rng)


def is_mountable(folder: FilePath) -> bool:
    """Whether a tmpfs can be mounted here."""
    probe = folder / "mount-probe"
    probe.mkdir(parents=True, exist_ok=True)
    command = ("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(probe))
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return False
    run("umount", str(probe))
    return True
