"""The cluster of a drill: real nodes on this machine that can be killed, stopped, cut off and slowed.

Invariant: whatever ends the drill, close() leaves no process and no file; and if close() was never reached, the kernel
ends the nodes with the drill (setpriv --pdeathsig, which is why nodes are started from the main thread only). Not by
Python code between fork and exec: gRPC's threads of this process come to life there, and end the child (SIGABRT).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.addresses import split_address
from appliance.cli.supervisor import NodePlan, dying_with_us, node_arguments, own_executable
from appliance.errors import RaftberryError
from appliance.host.relay import Relay, holds_port

STOP_TIMEOUT_S: Final = 10.0
LOG_TAIL_BYTES: Final = 2_000


class NodeEnded(RaftberryError):
    """A node ended that nobody had ended."""


class DrillCluster:
    """count nodes below a directory of their own, which goes with them."""

    def __init__(self, count: int, *, parent: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="raftberry-drill-", dir=parent))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._away: set[str] = set()
        self.links = Relay(self._find_dialler)
        ports = iter(free_ports(3 * count))
        self._plans: dict[str, NodePlan] = {}
        for number in range(1, count + 1):
            name = f"node-{number}"
            client, peer, web = (f"127.0.0.1:{next(ports)}" for _ in range(3))
            self._plans[name] = NodePlan(name, client, peer, web, self._folder / name)
        self._told: list[NodePlan] = []
        """The plans with the addresses that the nodes know: those of the relay."""

    @property
    def names(self) -> list[str]:
        return list(self._plans)

    @property
    def endpoints(self) -> list[str]:
        return [plan.client_address for plan in self._plans.values()]

    def start(self) -> None:
        """Returns at once; what the nodes do then is seen by who looks at them."""
        (self._folder / "empty.toml").touch()
        for name, plan in self._plans.items():
            _, port = split_address(plan.peer_address, what="peer address")
            self._told.append(replace(plan, peer_address=self.links.listen(name, port)))
        for name in self.names:
            self.restart(name)

    def restart(self, name: str) -> None:
        """The process of this node, again or for the first time."""
        plan = self._plans[name]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAFTBERRY_")}
        environment["RAFTBERRY_FAILPOINT"] = f"journal.before_commit:stall:{self._stall_file(name)}"
        command = [
            *dying_with_us(),
            *own_executable(),
            *node_arguments(plan, self._told),
            *("--config", str(self._folder / "empty.toml")),
        ]
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C is for the drill; and the node with all its processes is one group.
                start_new_session=True,
            )
        self._away.discard(name)

    def kill(self, name: str) -> None:
        """kill -9, with all it started."""
        self._away.add(name)
        self._signal(name, signal.SIGKILL)
        self._processes[name].wait(STOP_TIMEOUT_S)

    def freeze(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def stall_disk(self, name: str, seconds: float) -> None:
        """Every commit of the node's log takes that much longer; 0: no more."""
        if seconds > 0:
            self._stall_file(name).write_text(f"{seconds:g}")
        else:
            self._stall_file(name).unlink(missing_ok=True)

    def check(self) -> None:
        """Raises NodeEnded, with the end of its log, if a node ended by itself."""
        for name, process in self._processes.items():
            if name not in self._away and (status := process.poll()) is not None:
                tail = self._log(name).read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
                raise NodeEnded(
                    f"{name} ended by itself with status {status}; the drill stopped. Its log ends:\n{tail}"
                )

    def close(self) -> None:
        """Ends every process, stopped ones included, and removes the directory."""
        for name in self._processes:
            self._signal(name, signal.SIGKILL)
        for process in self._processes.values():
            process.wait(STOP_TIMEOUT_S)
        self.links.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, name: str, number: signal.Signals) -> None:
        # Not by Popen.send_signal: the executable may be a loader with the node as its child.
        if self._processes[name].poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._processes[name].pid, number)

    def _stall_file(self, name: str) -> Path:
        return self._folder / f"{name}.stall"

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _find_dialler(self, port: int) -> str:
        return next((name for name, one in self._processes.items() if holds_port(one.pid, port)), "")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on now, all different."""
    with ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    return ports
