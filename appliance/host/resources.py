"""What this process and its machine use: memory, bytes written, room on the disk, the state of the clock.

Invariant: a figure that cannot be had is None, never a guess. Reads a few small files of /proc; calls nothing that
waits for a disk but statvfs(2).
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_TIMEX_BYTES: Final = 512
"""struct timex has 208 bytes today; the kernel writes what it knows."""

_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised. Reading needs no privilege."""


@dataclass(frozen=True, slots=True)
class Resources:
    """written_bytes: what this process has sent to disks since it started."""

    memory_bytes: int | None
    written_bytes: int | None
    disk_free_bytes: int | None
    disk_size_bytes: int | None
    cpu_seconds: float
    load_1m: float | None
    clock_synchronized: bool | None


def read_resources(data: Path, *, proc: Path = Path("/proc")) -> Resources:
    """data: a directory on the disk that is meant."""
    times = os.times()
    free, size = _disk(data)
    return Resources(
        memory_bytes=_figure(proc / "self/status", "RssAnon:", unit=1024),
        written_bytes=_figure(proc / "self/io", "write_bytes:"),
        disk_free_bytes=free,
        disk_size_bytes=size,
        cpu_seconds=times.user + times.system,
        load_1m=_load(proc / "loadavg"),
        clock_synchronized=is_clock_synchronized(),
    )


def card_life_used_percent(data: Path, *, sys: Path = Path("/sys")) -> int | None:
    """Of the eMMC or SD card that holds data, as the card estimates it (JESD84: 0x01 is up to 10%, 0x0b exceeded)."""
    try:
        device = data.stat().st_dev
        link = sys / "dev/block" / f"{os.major(device)}:{os.minor(device)}"
        for folder in (link, link / ".."):
            file = folder / "device/life_time"
            if file.exists():
                return max(int(step, 16) for step in file.read_text("ascii").split()) * 10
    except (OSError, ValueError):
        return None
    return None


def is_clock_synchronized() -> bool | None:
    """Whether the kernel was told by a time service that the clock is right."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state: int = _LIBC.adjtimex(buffer)
    return None if state < 0 else state != _TIME_ERROR


def _figure(path: Path, label: str, *, unit: int = 1) -> int | None:
    try:
        for line in path.read_text("ascii", "replace").splitlines():
            if line.startswith(label):
                return int(line.split()[1]) * unit
    except (OSError, ValueError, IndexError):
        return None
    return None


def _disk(data: Path) -> tuple[int | None, int | None]:
    try:
        found = os.statvfs(data)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _load(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
