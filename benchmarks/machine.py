"""What Linux counts: memory, CPU and bytes written of processes, bytes written to a device."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the device."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process since it began."""

    cpu_s: float
    write_bytes: int
    rss_anon_bytes: int


def usage(pid: int) -> Usage:
    """From /proc: stat (user + system), io (bytes caused to be written to storage), status (RssAnon)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Usage(
        cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
        write_bytes=int(io["write_bytes"]),
        rss_anon_bytes=int(status["RssAnon"].split()[0]) * 1024,
    )


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
