"""What each shape of the executable costs: python -m tests.system.shapes EXECUTABLE...

Prints a Markdown table; run by script/build --measure. One that unpacks itself does so in /dev/shm or in TMPDIR.
Cold: the kernel has dropped the pages of the executable and of what lies beside it, as after a boot.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.process.nodes import free_port

RUNS = 7
READY_TIMEOUT_S = 120.0
REST_S = 5.0
MEMORY = Path("/dev/shm")
BLOCK_BYTES = 512
"""The unit of ru_inblock."""


def main() -> None:
    print(
        "| | size, MB | `version`, s | the first time after a boot, s | reads for that from the card, MB "
        "| unpacks, MB | READY, s | RssAnon, MB | memory that cannot be given back, MB | SIGKILL leaves, MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for executable in map(Path, sys.argv[1:]):
        print(row(executable), flush=True)


def row(executable: Path) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "TMPDIR": str(folder), "LANG": "C.UTF-8"}
        cold_s, cold_read_bytes = cold_version(executable, environment)
        warm_s = statistics.median(version(executable, environment) for _ in range(RUNS))
        ready_s, anonymous_bytes, unpacked_bytes, left_bytes = served(executable, folder, environment)
    size_bytes = sum(file.stat().st_size for file in files_of(executable))
    sizes = (cold_read_bytes, unpacked_bytes, anonymous_bytes, anonymous_bytes + unpacked_bytes, left_bytes)
    read, copied, anonymous, kept, left = (f"{one / 1e6:.0f}" for one in sizes)
    return (
        f"| {executable.parent.name}/{executable.name} | {size_bytes / 1e6:.0f} | {warm_s:.2f} | {cold_s:.2f} | {read} "
        f"| {copied} | {ready_s:.2f} | {anonymous} | {kept} | {left} |"
    )


def files_of(executable: Path) -> list[Path]:
    """The executable, and what is unpacked beside it."""
    library = executable.parent / "lib"
    return [executable, *(file for file in library.rglob("*") if file.is_file() and not file.is_symlink())]


def cold_version(executable: Path, environment: dict[str, str]) -> tuple[float, int]:
    os.sync()
    for file in files_of(executable):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
    took_s = version(executable, environment)
    return took_s, (resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - before) * BLOCK_BYTES


def version(executable: Path, environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run([executable, "version"], env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def served(executable: Path, folder: Path, environment: dict[str, str]) -> tuple[float, int, int, int]:
    """(seconds to READY=1, RssAnon of all processes at rest, bytes unpacked, bytes left after SIGKILL)."""
    before = set(unpacked(folder))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        notify.settimeout(READY_TIMEOUT_S)
        began = time.monotonic()
        process = subprocess.Popen(
            [executable, "serve", "--name", "shape", "--data", folder / "data",
             "--client-address", f"127.0.0.1:{free_port()}", "--peer-address", f"127.0.0.1:{free_port()}"],
            env={**environment, "NOTIFY_SOCKET": str(folder / "notify")}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while b"READY=1" not in notify.recv(4_096):
                pass
            ready_s = time.monotonic() - began
            time.sleep(REST_S)
            anonymous_bytes = sum(map(rss_anon, group(process.pid)))
            mine = set(unpacked(folder)) - before
            unpacked_bytes = sum(map(size_of, mine))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    left_bytes = sum(map(size_of, mine))
    for leftover in mine:
        shutil.rmtree(leftover, ignore_errors=True)
    return ready_s, anonymous_bytes, unpacked_bytes, left_bytes


def group(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[3]) == leader:
                found.append(int(entry.name))
    return found


def rss_anon(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1_024
    return 0


def unpacked(folder: Path) -> list[Path]:
    return [*folder.glob("_MEI*"), *MEMORY.glob("_MEI*")]


def size_of(directory: Path) -> int:
    return sum(file.lstat().st_blocks * BLOCK_BYTES for file in directory.rglob("*"))


main()
