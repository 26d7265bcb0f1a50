"""Runs the nodes of `raftberry dev`: real processes, watched and restarted.

Invariant: when the supervisor is gone, whatever ended it, no node is left: it stops them, and the kernel kills
them if it could not (dying_with_us). Everything runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PORTS_PER_NODE: Final = 10
STOP_TIMEOUT_S: Final = 10.0
"""From SIGTERM to SIGKILL."""

RESTART_PAUSE_S_MIN: Final = 0.5
RESTART_PAUSE_S_MAX: Final = 10.0
STEADY_S: Final = 10.0
"""A node that ran this long is restarted without the growing pause."""

LINE_BYTES_MAX: Final = 64 * 1024
"""Of a node's output; what is longer is shown in pieces."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: its name, ports and directory."""

    name: str
    client_address: str
    peer_address: str
    web_address: str
    data: Path


def plan_nodes(count: int, *, base_port: int, data: Path) -> list[NodePlan]:
    """node-1, node-2, ...: node i on base + 10 * i, + 1 and + 2, i from 0."""
    plans = []
    for i in range(count):
        client, peer, web = (f"127.0.0.1:{base_port + PORTS_PER_NODE * i + k}" for k in range(3))
        name = f"node-{i + 1}"
        plans.append(NodePlan(name, client, peer, web, data / name))
    return plans


def node_arguments(plan: NodePlan, founders: Sequence[NodePlan]) -> list[str]:
    """What follows the executable to run this node."""
    members = ",".join(f"{founder.name}={founder.peer_address}" for founder in founders)
    return [
        "serve",
        *("--name", plan.name),
        *("--data", str(plan.data)),
        *("--client-address", plan.client_address),
        *("--peer-address", plan.peer_address),
        *("--web-address", plan.web_address),
        *("--initial-members", members),
    ]


def own_executable() -> list[str]:
    """How to start this program again: the frozen executable, or Python with our package."""
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "appliance"]


def dying_with_us() -> list[str]:
    """Before a command line: the kernel kills it when the thread that started it ends, even by SIGKILL.

    Not by a preexec_fn, which runs Python between fork and exec, where another thread of ours may hold a lock for
    ever. util-linux has setpriv, and every Debian that; without it a killed parent leaves its nodes.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    # sh: the parent may have ended before the kernel was told.
    is_child = 'test "$PPID" = "$0" && exec "$@"'
    return [setpriv, "--pdeathsig", "KILL", "sh", "-c", is_child, str(os.getpid())]


def describe_exit(status: int) -> str:
    """`exited with status 1` or `was killed by SIGKILL`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


class Supervisor:
    """Keeps one process for each command alive until stop() is called."""

    def __init__(self, commands: dict[str, list[str]], *, show: Callable[[str], None]) -> None:
        """commands: node name to command line; show: takes each line of output and each event."""
        self._commands = commands
        self._show = show
        self._width = max(map(len, commands))
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin to end everything; run() returns when it is done."""
        self._stopping.set()

    async def run(self) -> None:
        """Start all, restart what dies, return after stop()."""
        async with asyncio.TaskGroup() as nodes:
            for name, command in self._commands.items():
                nodes.create_task(self._keep(name, command))

    async def _keep(self, name: str, command: list[str]) -> None:
        pause_s = RESTART_PAUSE_S_MIN
        while not self._stopping.is_set():
            started_s = time.monotonic()
            status = await self._run_once(name, command)
            if self._stopping.is_set():
                self._say(name, f"stopped ({describe_exit(status)})")
                return
            if time.monotonic() - started_s >= STEADY_S:
                pause_s = RESTART_PAUSE_S_MIN
            self._say(name, f"{describe_exit(status)}; restarting in {pause_s:g} s")
            await self._wait_stopping(pause_s)
            pause_s = min(RESTART_PAUSE_S_MAX, pause_s * 2)

    async def _run_once(self, name: str, command: list[str]) -> int:
        process = await asyncio.create_subprocess_exec(
            *dying_with_us(),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            limit=LINE_BYTES_MAX,
            # Ctrl-C at the terminal is for us alone: nodes are stopped in order, by SIGTERM.
            start_new_session=True,
        )
        self._say(name, f"started as process {process.pid}")
        assert process.stdout is not None
        output = asyncio.create_task(self._pump(name, process.stdout))
        stopper = asyncio.create_task(self._stop_process(name, process))
        try:
            return await process.wait()
        finally:
            stopper.cancel()
            await output

    async def _stop_process(self, name: str, process: asyncio.subprocess.Process) -> None:
        await self._stopping.wait()
        _signal(process, signal.SIGTERM)
        # A node that was stopped by SIGSTOP would never see the SIGTERM.
        _signal(process, signal.SIGCONT)
        await asyncio.sleep(STOP_TIMEOUT_S)
        self._say(name, f"did not stop within {STOP_TIMEOUT_S:g} s: killing it")
        _signal(process, signal.SIGKILL)

    async def _pump(self, name: str, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readuntil()
            except asyncio.IncompleteReadError as rest:
                line = rest.partial
            except asyncio.LimitOverrunError as overrun:
                line = await stream.readexactly(overrun.consumed)
            if not line:
                return
            self._say(name, line.decode("utf-8", "replace").rstrip("\n"))

    async def _wait_stopping(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), timeout_s)
        except TimeoutError:
            # The pause is over; nothing asked us to stop.
            return

    def _say(self, name: str, text: str) -> None:
        self._show(f"{name:<{self._width}} | {text}")


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Not by the process's own methods: they poll it first, and who reaps it so takes its status from wait()."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
