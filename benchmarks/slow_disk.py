"""A slow disk for one process, whatever it is written in: strace holds each fsync and fdatasync back when it returns.

Invariant: only while a Stall stands; its end leaves the process as it was. All system calls pay for being traced
meanwhile, some microseconds each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

ATTACH_TIMEOUT_S: Final = 10.0


def is_available() -> bool:
    return shutil.which("strace") is not None


class Stall:
    """From construction to end(): each flush of this process takes that much longer."""

    def __init__(self, pid: int, seconds: float) -> None:
        calls = "fsync,fdatasync,msync"
        self._tracer = subprocess.Popen(
            [
                *("strace", "--quiet=all", "--follow-forks", "--output=/dev/null", f"--attach={pid}"),
                *(f"--trace={calls}", f"--inject={calls}:delay_exit={round(seconds * 1e6)}"),
            ],
            stdin=subprocess.DEVNULL,
        )
        end_s = time.monotonic() + ATTACH_TIMEOUT_S
        while not all(_tracer_of(thread) == self._tracer.pid for thread in _threads(pid)):
            assert self._tracer.poll() is None, (
                "strace ended: this needs root, and nobody else tracing the process"
            )
            assert time.monotonic() < end_s, f"strace did not attach to {pid} within {ATTACH_TIMEOUT_S:g} s"
            time.sleep(0.005)

    def end(self) -> None:
        self._tracer.terminate()
        self._tracer.wait()


def _threads(pid: int) -> list[Path]:
    return [Path(f"/proc/{pid}/task/{thread}") for thread in os.listdir(f"/proc/{pid}/task")]


def _tracer_of(thread: Path) -> int:
    """Its process id; 0: nobody; -1: the thread has just ended."""
    try:
        lines = (thread / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return next(int(line.split()[1]) for line in lines if line.startswith("TracerPid:"))
