"""Five nodes on a network, each with a small file system of its own: started, ended, filled up, freed.

Invariant: a node ends only when the run ends it, or while its disk is full; any other end fails the run.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

from tests.cluster.network import Network, is_mountable, run
from tests.process.nodes import Cluster, Node, wait_for

PATIENCE_S: Final = 180.0
"""For everything that must happen some time: this machine may be slow and busy."""

DISK_BYTES: Final = 192 << 20
KEEPERS: Final = 3
"""Nodes that keep their whole log, so that it can be told at the end; the others trim, and send snapshots."""

_KEEPS: Final = """
[storage]
checkpoint_bytes = "1MiB"
disk_free_min = "1MiB"
[journal]
size_max = "160MiB"
[watch]
keep_bytes = "64MiB"
"""

_TRIMS: Final = """
[storage]
checkpoint_bytes = "1MiB"
disk_free_min = "1MiB"
[journal]
size_max = "32MiB"
[watch]
keep_bytes = "64KiB"
"""


class Fleet(Cluster):
    """A Cluster of tests/process whose nodes live on a Network."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.network, self.folder = network, folder
        self.nodes = []
        self.full: dict[str, Path | None] = {}
        """Nodes whose disk is full, with the file that fills it (None: by a limit of the process)."""

        self.counts: Counter[str] = Counter()
        self._has_mounts = is_mountable(folder)
        self._configurations: dict[str, Path] = {}
        for number, name in enumerate(network.names):
            self._add(name, _KEEPS if number < KEEPERS else _TRIMS)

    def _add(self, name: str, configuration: str) -> None:
        home = self.folder / name
        home.mkdir(parents=True)
        if self._has_mounts:
            run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(home))
        file = self._configurations[name] = self.folder / f"{name}.toml"
        file.write_text(configuration)
        self.nodes.append(
            _FleetNode(
                name=name,
                data=home / "data",
                initial_members=self.network.members(),
                client_address=self.network.client_address(name),
                peer_address=self.network.peer_address(name),
                web_address=self.network.web_address(name),
                prefix=self.network.prefix(name),
            )
        )

    def start_node(self, node: Node) -> None:
        node.start(arguments=("--config", str(self._configurations[node.name])))

    def start(self) -> None:
        for node in self.nodes:
            if not node.is_running:
                self.start_node(node)
        for node in self.nodes:
            node.wait_serving(timeout_s=PATIENCE_S)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
            if self._has_mounts:
                subprocess.run(("umount", "-l", str(node.data.parent)), capture_output=True, check=False)

    # the disk --------------------------------------------------------------------------------------------

    def fill(self, node: Node) -> None:
        """No byte more fits: in the file system, or where there is none of its own, in a file of this process."""
        if self._has_mounts:
            filler = node.data.parent / "filler"
            with filler.open("wb") as file:
                _fill(file.fileno())
            self.full[node.name] = filler
        else:
            size = max((file.stat().st_size for file in node.data.rglob("data.mdb")), default=0)
            _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, hard))
            self.full[node.name] = None

    def free(self) -> None:
        for name, filler in self.full.items():
            node = self[name]
            if filler is not None:
                filler.unlink()
            elif node.is_running:
                _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (hard, hard))
        self.full = {}

    # supervision -----------------------------------------------------------------------------------------

    def watch_over(self) -> None:
        """What systemd would do: a node whose disk is full and that ended is started again."""
        for node in self.nodes:
            if node.name in self.full and not node.is_running:
                self.note_end(node)
                self.start_node(node)

    def note_end(self, node: Node) -> None:
        """It ended by itself, over its full disk."""
        if node.process is not None:
            status = node.wait_exit()
            assert status == 1, f"{node.name} ended with status {status}:\n{node.log[-4000:]}"
            self.counts["ended by a full disk"] += 1
            node.process = None

    def assert_running(self) -> None:
        for node in self.nodes:
            assert node.is_running, f"{node.name} ended by itself:\n{node.log[-4000:]}"

    def resume_all(self) -> None:
        """Every fault is over: all run, and all know a leader again."""
        self.network.mend()
        was_full = set(self.full)
        self.free()
        for node in self.nodes:
            if node.is_running:
                node.signal(signal.SIGCONT)
            elif node.name not in was_full:
                node.process = None
                self.start_node(node)
        wait_for("all nodes to serve", lambda: self._is_whole(was_full), timeout_s=PATIENCE_S)

    def _is_whole(self, was_full: set[str]) -> bool:
        """was_full: whose last commit may have failed the moment before its disk was freed."""
        for node in self.nodes:
            if not node.is_running and node.name in was_full:
                was_full.discard(node.name)
                self.note_end(node)
                self.start_node(node)
        self.assert_running()
        return all(node.health() for node in self.nodes)

    def lives(self) -> dict[str, tuple[str, int]]:
        return {node.client_address: (node.name, node.pid) for node in self.nodes if node.process is not None}

    def stop_all(self) -> None:
        """SIGTERM, one after the other: the graceful end."""
        for node in self.nodes:
            status = node.terminate(timeout_s=PATIENCE_S)
            assert status == 0, f"{node.name} ended with {status} after SIGTERM:\n{node.log[-4000:]}"

    def assert_quiet_logs(self) -> None:
        for node in self.nodes:
            assert "Traceback" not in node.log, (
                f"a traceback in {node.log_path}:\n{node.log[node.log.index('Traceback') - 1000 :][:4000]}"
            )


class _FleetNode(Node):
    @property
    def log_path(self) -> Path:
        """Beside the node's file system: a full disk shall not silence it."""
        return self.data.parent.with_name(f"{self.name}.log")


def _fill(descriptor: int) -> None:
    piece = 1 << 20
    block = bytes(piece)
    while piece:
        try:
            while True:
                if not os.write(descriptor, block[:piece]):
                    return
        except OSError:
            piece //= 2
