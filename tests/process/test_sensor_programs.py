"""What docs/sensors.md shows in Python runs, and each of its writes counts once though a node dies meanwhile."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.process.nodes import free_port, wait_for
from tests.process.secured import SecuredCluster
from tests.process.sensor_programs import READINGS, addressed, prepare, program, run_while_killing, stored

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    with SecuredCluster(tmp_path_factory.mktemp("sensors")) as made:
        made.form()
        yield made


def test_the_python_sensor_goes_on_through_the_next_node(cluster: SecuredCluster, tmp_path: Path) -> None:
    victim = cluster.nodes[0]
    (tmp_path / "sensor.py").write_text(addressed(program("Python", "python"), cluster))
    environment = prepare(cluster, tmp_path, "python")
    try:
        lines = run_while_killing([sys.executable, "sensor.py"], tmp_path, environment, victim)
    finally:
        if not victim.is_running:
            victim.start()
    assert len([line for line in lines if line.isdigit()]) == READINGS, lines
    assert stored(cluster.nodes[1], "greenhouse", "soil") == [41.0, 42.0, 43.0, 44.0, 45.0]


def test_the_bridge_takes_what_a_small_device_sends_and_counts_it_once(
    cluster: SecuredCluster, tmp_path: Path
) -> None:
    node, port = cluster.nodes[1], free_port()
    chapter = "ESP32 and other microcontrollers"
    bridge = program(chapter, "python", 0).replace("unix:/run/raftberry/raftberry.sock", node.socket)
    (tmp_path / "bridge.py").write_text(bridge.replace("8080", str(port)))
    device = program(chapter, "python", 1).replace('("pi-2.local", 8080)', f'("127.0.0.1", {port})')
    # The first bridge is not there: nothing listens on that port.
    (tmp_path / "device.py").write_text(
        device.replace('("pi-1.local", 8080)', f'("127.0.0.1", {free_port()})')
    )
    environment = prepare(cluster, tmp_path, "bridge")
    process = subprocess.Popen([sys.executable, "bridge.py"], cwd=tmp_path, env=environment)
    try:
        wait_for("the bridge", lambda: _listens(port))
        done = subprocess.run(
            [sys.executable, "device.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        url = f"http://127.0.0.1:{port}/balcony/temperature"
        again = {"Producer": "balcony-x", "Sequence": "1"}
        codes = [httpx.post(url, content="22.5", headers=again, timeout=60).status_code for _ in range(2)]
        wrong = httpx.post(url, content="abc", timeout=60).status_code
    finally:
        process.kill()
        process.wait()
    sent = [line.split() for line in done.stdout.splitlines()]
    assert sent == [["1", "0"], *([str(number), "204"] for number in range(1, READINGS + 1))]
    assert (codes, wrong) == ([204, 204], 400)
    assert stored(node, "balcony", "temperature") == [21.75] * READINGS + [22.5]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
