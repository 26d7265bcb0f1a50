"""What it costs to keep readings: idle nodes, memory, bytes at rest, start-up, and a node that lost its data."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from appliance.storage.directory import QUARANTINE_FILE
from benchmarks import machine
from benchmarks.figures import Figures
from benchmarks.systems import System
from benchmarks.systems.raftberry import Raftberry
from benchmarks.writing import WriteLoad, measure
from tests.process.nodes import Node, wait_for

SERIES: Final = 100
MILLION: Final = 1_000_000


def measure_rest(figures: Figures, system: System, folder: Path, *, seconds: float) -> None:
    """A cluster that nobody calls. What its start left in the kernel's cache is written before."""
    time.sleep(3)
    os.sync()
    before, device, began = (
        machine.usages(system.pids()),
        machine.device_bytes_written(folder),
        time.monotonic(),
    )
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    after, device_after = machine.usages(system.pids()), machine.device_bytes_written(folder)
    busy = max(late.cpu_s - early.cpu_s for early, late in zip(before, after, strict=True)) / elapsed
    title = "idle cluster"
    figures.note("idle", title, "busy", system.name, busy * 100)
    figures.note("idle", title, "rss", system.name, _worst_rss_mib(system))
    if device is not None and device_after is not None:
        figures.note("idle", title, "idle-device", system.name, (device_after - device) / elapsed)


def measure_kept(figures: Figures, system: System, folder: Path, *, readings: int) -> None:
    """Fills an empty cluster; then looks at what is kept, starts a node again, and lets one be rebuilt."""
    title = f"{readings / MILLION:g} million readings in {SERIES} series"
    load = WriteLoad(f"kept-{readings}", title, 1, 8, 1000, SERIES, 1, True, True)
    measure(figures, system, folder, load, ["--readings", readings], first_series=0)
    figures.note(load.key, title, "rss", system.name, _worst_rss_mib(system))
    if isinstance(system, Raftberry):
        for node in system.cluster:
            node.request_checkpoint()
    time.sleep(2)
    os.sync()
    sizes = [_allocated_bytes(system.data(position)) for position in range(len(system.endpoints))]
    figures.note(load.key, title, "rest", system.name, max(sizes) / readings)
    if isinstance(system, Raftberry):
        _measure_start(figures, system, f"start-{readings}", f"start-up after {title}")
        _measure_catch_up(
            figures, system, f"catch-up-{readings}", f"a node without its data is rebuilt: {title}"
        )


def _measure_start(figures: Figures, system: Raftberry, key: str, title: str) -> None:
    """From kill -9 of a follower: its process, until it serves linearizable requests."""
    node = system.cluster.followers()[0]
    node.kill()
    began = time.monotonic()
    node.start()
    node.wait_serving(timeout_s=300)
    figures.note(key, title, "seconds", system.name, time.monotonic() - began)


def _measure_catch_up(figures: Figures, system: Raftberry, key: str, title: str) -> None:
    """A follower that lost its data: it is in doubt, is taken in anew after 1 s, and gets everything from its peers."""
    node = system.cluster.followers()[0]
    status = node.status()
    assert status is not None
    node.kill()
    (node.data / QUARANTINE_FILE).write_text("what it had acknowledged is gone\n")
    node.rebuild_after = "1s"
    began = time.monotonic()
    node.start()
    wait_for("the node to be a voter again", lambda: _is_voter_again(node, status.member_id), timeout_s=300)
    system.cluster.wait_following(node, timeout_s=300)
    figures.note(key, title, "seconds", system.name, time.monotonic() - began)


def _is_voter_again(node: Node, old_id: str) -> bool:
    """As another member: the old one is gone for good."""
    status = node.status(timeout_s=2)
    if status is None or status.member_id in ("", old_id):
        return False
    return sum(peer.voter for peer in status.peers) == 3


def _worst_rss_mib(system: System) -> float:
    return max(usage.rss_anon_bytes for usage in machine.usages(system.pids())) / (1 << 20)


def _allocated_bytes(folder: Path) -> int:
    """As the file system counts them: files reserved ahead weigh what they weigh."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
