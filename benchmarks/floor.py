"""What can be had without any system: flushes of the disk, calls to an empty echo, nodes of the given parts alone."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import reading, writing
from benchmarks.client import PROGRAM, Load
from benchmarks.figures import Figures
from benchmarks.systems import make
from tests.process.nodes import free_port

FLUSHES: Final = 200
DISK: Final = "disk"
ECHO: Final = "echo"
PARTS: Final = "bare"
PARTS_TITLE: Final = "nothing but the given parts: "
PARTS_LOADS: Final = tuple(
    load for load in (*writing.UNARY, *writing.STREAM) if load.key in ("unary-1", "unary-64", "stream-1-deep")
)


def measure_disk(figures: Figures, folder: Path) -> None:
    """write and fdatasync, one after the other, at the end of a growing file."""
    path = folder / "floor"
    for kib in (4, 16):
        block, times = os.urandom(kib << 10), []
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for _ in range(FLUSHES):
                began = time.perf_counter()
                os.write(descriptor, block)
                os.fdatasync(descriptor)
                times.append((time.perf_counter() - began) * 1000)
        finally:
            os.close(descriptor)
            path.unlink()
        figures.note(
            f"flush-{kib}", f"write and fdatasync of {kib} KiB", "p50", DISK, statistics.median(times)
        )
        figures.note(
            f"flush-{kib}",
            f"write and fdatasync of {kib} KiB",
            "p99",
            DISK,
            statistics.quantiles(times, n=100)[98],
        )


def measure_echo(figures: Figures, *, seconds: float) -> None:
    """The client's own limit: beyond its rates it measures itself."""
    endpoint = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen([str(PROGRAM), "echo", "--endpoint", endpoint])
    try:
        time.sleep(0.3)
        for key, title, options in (
            ("echo-1", "empty echo, unary, 1 client", ("--clients", 1)),
            ("echo-64", "empty echo, unary, 64 clients", ("--clients", 64, "--series", 64)),
            ("echo-stream", "empty echo, 64 streams", ("--clients", 64, "--series", 64, "--streams")),
            (
                "echo-bulk",
                "empty echo, 1,000 a message, 8 in flight",
                ("--clients", 1, "--in-flight", 8, "--batch", 1000, "--series", 8, "--streams"),
            ),
        ):
            result = Load("echo", "write", [endpoint], *options, "--seconds", seconds).result()
            figures.note(key, title, "rate", ECHO, result["per_second"])
            figures.note(key, title, "p50", ECHO, result["p50_ms"])
            figures.note(key, title, "client", ECHO, result["client_cpu_share"] * 100)
    finally:
        server.kill()
        server.wait()


def measure_parts(figures: Figures, folder: Path, *, seconds: float, events: int) -> None:
    """What no design can do better that is made of these parts (bare.py). Nothing can be read back."""
    system = make(PARTS, folder / PARTS)
    system.start()
    try:
        for number, load in enumerate(PARTS_LOADS):
            alone = replace(load, key=f"parts-{load.key}", title=f"{PARTS_TITLE}{load.title}")
            extent = ("--seconds", seconds, "--skip-read-back")
            writing.measure(
                figures, system, folder, alone, extent, first_series=number * writing.SERIES_APART
            )
        reading.measure_watchers(figures, system, events=events, key="parts-", title=PARTS_TITLE)
    finally:
        system.stop()
        shutil.rmtree(folder / PARTS, ignore_errors=True)
