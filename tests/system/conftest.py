"""Three machines and a sensor for the system test. Nothing here is collected unless script/test-system names it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.process.nodes import ROOT
from tests.system.machines import Machine, Network

FULL_DISK_BYTES = 640 << 20
"""Above storage.disk_free_min, below which a node takes no writes."""
NAMES = ("pi-1", "pi-2", "pi-3")


class Sensor:
    """tests/system/sensor.py in a namespace."""

    def __init__(self, arguments: list[str], *, namespace: str = "sensor") -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", "tests.system.sensor", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'generated'}"},
        )  # fmt: skip

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass(slots=True)
class Site:
    """All of it: machines by name, their network, the sensor once it writes, and what was seen for the report."""

    network: Network
    machines: dict[str, Machine]
    folder: Path
    sensor: Sensor | None = None
    seen: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.seen.append(text)
        print(text, flush=True)

    def endpoint(self, name: str) -> str:
        return f"{self.network.addresses[name]}:7440"

    def writes(self, seconds: float = 0.0) -> dict[str, Any]:
        """What the sensor had acknowledged since it was last asked; seconds to wait first."""
        assert self.sensor is not None
        time.sleep(seconds)
        return self.sensor.ask("counts")

    def leader(self) -> str:
        for name, machine in self.machines.items():
            if "leader of" in machine.unit("StatusText").get("StatusText", ""):
                return name
        return ""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base, repository = Path(os.environ["RAFTBERRY_BASE"]), Path(os.environ["RAFTBERRY_REPOSITORY"])
    folder = tmp_path_factory.mktemp("machines")
    network = Network([*NAMES, "sensor"])
    machines: dict[str, Machine] = {}
    made: Site | None = None
    try:
        for name in NAMES:
            machines[name] = Machine(
                name, base, folder, repository, data_bytes=FULL_DISK_BYTES if name == "pi-3" else 0
            )
        made = Site(network, machines, folder)
        yield made
    finally:
        if made is not None:
            if made.sensor is not None:
                made.sensor.close()
            Path(os.environ["RAFTBERRY_REPORT"]).write_text("\n".join(made.seen) + "\n")
        for machine in machines.values():
            machine.close()
        network.close()
