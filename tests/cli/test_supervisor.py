"""The supervisor of `raftberry dev`, with small real processes in place of nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli import supervisor
from appliance.cli.supervisor import Supervisor, describe_exit, node_arguments, plan_nodes

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


class Screen:
    """What the supervisor showed, and a way to wait for a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    def show(self, line: str) -> None:
        self.lines.append(line)
        self._changed.set()

    async def line_with(self, text: str, *, count: int = 1) -> str:
        while len(found := [line for line in self.lines if text in line]) < count:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 60)
        return found[count - 1]


def process_of(line: str) -> int:
    return int(line.rpartition(" ")[2])


def test_nodes_are_named_and_numbered_as_documented() -> None:
    plans = plan_nodes(3, base_port=17_700, data=Path("/data"))
    assert [(plan.name, plan.client_address, plan.peer_address, plan.web_address) for plan in plans] == [
        ("node-1", "127.0.0.1:17700", "127.0.0.1:17701", "127.0.0.1:17702"),
        ("node-2", "127.0.0.1:17710", "127.0.0.1:17711", "127.0.0.1:17712"),
        ("node-3", "127.0.0.1:17720", "127.0.0.1:17721", "127.0.0.1:17722"),
    ]
    arguments = " ".join(node_arguments(plans[1], plans))
    assert arguments.startswith("serve --name node-2 --data /data/node-2 --client-address 127.0.0.1:17710 ")
    assert arguments.endswith("node-1=127.0.0.1:17701,node-2=127.0.0.1:17711,node-3=127.0.0.1:17721")


def test_an_exit_is_said_in_words() -> None:
    assert [describe_exit(status) for status in (0, 3, -9)] == [
        "exited with status 0",
        "exited with status 3",
        "was killed by SIGKILL",
    ]


async def test_a_node_that_is_killed_is_reported_and_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_PAUSE_S_MIN", 0.01)
    screen = Screen()
    nodes = Supervisor({"node-1": SLEEPER, "node-2": SLEEPER}, show=screen.show)
    running = asyncio.create_task(nodes.run())
    first = process_of(await screen.line_with("node-1 | started as process"))
    await screen.line_with("node-1 | up")
    os.kill(first, signal.SIGKILL)
    assert "restarting" in await screen.line_with("node-1 | was killed by SIGKILL")
    second = process_of(await screen.line_with("node-1 | started as process", count=2))
    assert second != first
    nodes.stop()
    await asyncio.wait_for(running, 60)
    assert len([line for line in screen.lines if "stopped (was killed by SIGTERM)" in line]) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


async def test_only_the_loop_reaps_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    # Popen.poll() reaps as well: when it comes first, the loop's own wait finds no child and reports status 255.
    screen = Screen()
    nodes = Supervisor({"node-1": SLEEPER}, show=screen.show)
    running = asyncio.create_task(nodes.run())
    await screen.line_with("| up")
    polled: list[int] = []
    monkeypatch.setattr(subprocess.Popen, "poll", lambda process: polled.append(process.pid))
    nodes.stop()
    await asyncio.wait_for(running, 60)
    assert polled == []
    assert "stopped (was killed by SIGTERM)" in screen.lines[-1]


async def test_a_node_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_S", 0.05)
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    screen = Screen()
    nodes = Supervisor({"node-1": [sys.executable, "-c", stubborn]}, show=screen.show)
    running = asyncio.create_task(nodes.run())
    await screen.line_with("| up")
    nodes.stop()
    await asyncio.wait_for(running, 60)
    assert "stopped (was killed by SIGKILL)" in screen.lines[-1]


async def test_long_and_unfinished_lines_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LINE_BYTES_MAX", 1_000)
    script = (
        "import sys; sys.stdout.write('x' * 5000 + '\\nend'); sys.stdout.flush(); import time; time.sleep(60)"
    )
    screen = Screen()
    nodes = Supervisor({"node-1": [sys.executable, "-c", script]}, show=screen.show)
    running = asyncio.create_task(nodes.run())
    await screen.line_with("xxx")
    nodes.stop()
    await asyncio.wait_for(running, 60)
    assert (
        sum(line.count("x") for line in screen.lines if "process" not in line and "exit" not in line) == 5_000
    )
    assert "node-1 | end" in screen.lines


def test_no_node_outlives_a_supervisor_that_is_killed() -> None:
    script = (
        "import asyncio, sys\n"
        "from appliance.cli.supervisor import Supervisor\n"
        f"command = {SLEEPER!r}\n"
        "show = lambda line: print(line, flush=True)\n"
        "asyncio.run(Supervisor({'node-1': command}, show=show).run())\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        node = process_of(parent.stdout.readline().decode().strip())
        assert b"up" in parent.stdout.readline()
        parent.kill()
        # The node holds the writing end of its own pipe only; it is gone when its /proc entry is, or a zombie.
        parent.wait()
    handle = Path(f"/proc/{node}/stat")
    for _ in range(200):
        if not handle.exists() or handle.read_text().rpartition(")")[2].split()[0] in "ZX":
            return
        subprocess.run(["sleep", "0.05"], check=True)
    pytest.fail(f"process {node} outlived its supervisor")
