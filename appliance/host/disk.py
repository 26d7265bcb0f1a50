"""What this machine's disk takes for the one thing that matters here: making a small write durable.

Invariant: the file it writes is its own, in the directory named, and gone when it returns.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 4096


def sync_latencies_s(directory: Path, *, count: int) -> list[float]:
    """Seconds of each of count writes of 4 KiB with fdatasync, appended to a file in directory. OSError."""
    found: list[float] = []
    with tempfile.TemporaryFile(dir=directory) as file:
        block = os.urandom(BLOCK_BYTES)
        for _ in range(count):
            began_s = time.perf_counter()
            os.write(file.fileno(), block)
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - began_s)
    return found
