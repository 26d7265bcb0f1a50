"""A `raftberry dev` cluster with real sensor data and a sensor that goes on, for the pages to show."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.process.nodes import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT / "tests" / "data" / "real-sensors"
WAIT_S: Final = 90.0

SERIES: Final = (
    ("ambient_temperature_system_failure.csv", "office", "temperature"),
    ("machine_temperature_system_failure.csv", "machine", "temperature"),
    ("occupancy_6005.csv", "road-6005", "occupancy"),
    ("speed_6005.csv", "road-6005", "speed"),
    ("speed_7578.csv", "road-7578", "speed"),
    ("TravelTime_387.csv", "road-387", "travel_time"),
)


@dataclass
class Dev:
    """The running cluster. base: the first node's client port."""

    base: int
    log: Path

    def web(self, number: int) -> str:
        return f"http://127.0.0.1:{self.base + 10 * (number - 1) + 2}"

    @property
    def endpoints(self) -> str:
        return ",".join(f"127.0.0.1:{self.base + 10 * number}" for number in range(3))

    def pid(self, name: str) -> int:
        """Of the node's last life."""
        found = re.findall(rf"^{name} +\| started as process (\d+)$", self.log.read_text(), re.MULTILINE)
        return int(found[-1])

    def leader(self) -> int:
        def find() -> int | None:
            for number in (1, 2, 3):
                try:
                    status = httpx.get(f"{self.web(number)}/api/v1/cluster", timeout=5).json()["status"]
                except httpx.TransportError:
                    continue
                if status["role"] == "leader" and status["has_quorum"]:
                    return number
            return None

        return wait_for("a leader", find)


def wait_for(what: str, probe: Callable[[], int | None]) -> int:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


def raftberry(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "appliance", *arguments]


def free_base() -> int:
    """Thirty ports in a row begin here; dev takes nine of them."""
    while True:
        base = free_port()
        if all(free_port() == base + place for place in range(1, 30)):
            return base


@contextmanager
def dev_cluster(folder: Path) -> Iterator[Dev]:
    """Three nodes, six real series, and this machine's own sensors four times a second."""
    folder.mkdir(parents=True, exist_ok=True)
    base = free_base()
    dev = Dev(base, folder / "dev.log")
    environment = {
        **os.environ,
        "RAFTBERRY_ENDPOINTS": dev.endpoints,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'generated'}",
    }
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> None:
        with dev.log.open("ab") as log:
            processes.append(
                subprocess.Popen(raftberry(*arguments), env=environment, cwd=ROOT, stdout=log, stderr=log)
            )

    try:
        start("dev", "--nodes", "3", "--data", str(folder / "data"), "--base-port", str(base))
        dev.leader()
        for file, sensor, metric in SERIES:
            command = raftberry("import", str(DATA / file), "--sensor", sensor, "--metric", metric)
            subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        start("sensor", "--name", "pi-1", "--interval", "250ms")
        yield dev
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)
