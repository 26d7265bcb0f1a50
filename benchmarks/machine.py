"""What Linux counts: memory and CPU of processes, bytes written to a device."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the device."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one node's process and its children since they began."""

    cpu_s: float
    rss_anon_bytes: int


def usage(pid: int) -> Usage:
    """From /proc: stat (user + system) and status (RssAnon)."""
    process = psutil.Process(pid)
    cpu_s, rss_anon_bytes = 0.0, 0
    assert process.status() != psutil.STATUS_ZOMBIE, f"process {pid} has ended"
    for one in (process, *process.children(recursive=True)):
        folder = Path(f"/proc/{one.pid}")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        # A child that has just ended has no memory any more.
        rss_anon_bytes += int(status.get("RssAnon", "0 kB").split()[0]) * 1024
    return Usage(cpu_s=cpu_s, rss_anon_bytes=rss_anon_bytes)


def usages(pids: Sequence[int]) -> list[Usage]:
    return [usage(pid) for pid in pids]


def device_bytes_written(folder: Path) -> int | None:
    """Bytes written to the device that holds folder since boot, by everyone; None if it has no such count."""
    device = folder.stat().st_dev
    number = (str(os.major(device)), str(os.minor(device)))
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (fields[0], fields[1]) == number:
            return int(fields[9]) * SECTOR_BYTES
    return None


def description() -> str:
    """One line that says where figures come from."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("model name", "Model"))
        ),
        platform.machine(),
    )
    memory = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    gib = int(memory.split()[1]) / (1 << 20)
    return f"{os.cpu_count()} x {model}, {gib:.1f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
