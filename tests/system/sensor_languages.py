"""The programs of docs/sensors.md in Go, Node and MicroPython, built as the page says, against three secured nodes.

Run by script/test-sensors. A node is killed after the second reading of the Go program, which must go on elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import google.rpc

from tests.process.nodes import ROOT, free_port
from tests.process.secured import SecuredCluster
from tests.process.sensor_programs import READINGS, addressed, prepare, program, run_while_killing, stored

CHAPTER = "ESP32 and other microcontrollers"


def shell(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def go(cluster: SecuredCluster, folder: Path) -> None:
    environment = prepare(cluster, folder, "go")
    environment["GOOGLEAPIS"] = str(Path(next(iter(google.rpc.__path__))).parents[1])
    environment["GOCACHE"] = str(folder / "cache")
    (folder / "src" / "sensor").mkdir(parents=True)
    (folder / "proto").symlink_to(ROOT / "proto")
    shell(program("Go", "bash"), folder, environment)
    (folder / "src/sensor/main.go").write_text(addressed(program("Go", "go"), cluster))
    page = (ROOT / "docs" / "sensors.md").read_text("utf-8")
    shell(re.findall(r"^    (GO111MODULE=.*)$", page, re.MULTILINE)[0], folder, environment)
    victim = cluster.nodes[0]
    lines = run_while_killing(["./sensor"], folder, environment, victim)
    victim.start()
    print("\n".join(f"  {line}" for line in lines))
    assert stored(cluster.nodes[1], "greenhouse", "light") == [float(n) for n in range(1, READINGS + 1)]


def node(cluster: SecuredCluster, folder: Path) -> None:
    environment = prepare(cluster, folder, "node")
    (folder / "proto").symlink_to(ROOT / "proto")
    page = (ROOT / "docs" / "sensors.md").read_text("utf-8")
    shell(re.findall(r"^    (npm install .*)$", page, re.MULTILINE)[0], folder, environment)
    text = addressed(program("Node", "javascript"), cluster)
    (folder / "write.js").write_text(
        text.replace(cluster.nodes[0].client_address, cluster.nodes[1].client_address)
    )
    print(f"  {shell('node write.js', folder, environment).strip()}")
    assert stored(cluster.nodes[1], "greenhouse", "humidity") == [61.5]


def micropython(cluster: SecuredCluster, folder: Path, root: Path) -> None:
    """The device in MicroPython, the bridge in Python; the first bridge that the device knows is not there."""
    environment = prepare(cluster, folder, "micropython")
    host, port = cluster.nodes[1], free_port()
    bridge = program(CHAPTER, "python", 0).replace("unix:/run/raftberry/raftberry.sock", host.socket)
    (folder / "bridge.py").write_text(bridge.replace("8080", str(port)))
    device = program(CHAPTER, "python", 1).replace('("pi-1.local", 8080)', f'("127.0.0.1", {free_port()})')
    (root / "device.py").write_text(device.replace('("pi-2.local", 8080)', f'("127.0.0.1", {port})'))
    process = subprocess.Popen([sys.executable, "bridge.py"], cwd=folder, env=environment)
    try:
        time.sleep(2)
        version = shell(f"chroot {root} micropython -c 'import sys; print(sys.version)'", folder, environment)
        print(f"  {version.strip()}")
        print(
            "\n".join(
                f"  {each}"
                for each in shell(f"chroot {root} micropython /device.py", folder, environment).splitlines()
            )
        )
    finally:
        process.kill()
        process.wait()
    assert stored(host, "balcony", "temperature") == [21.75] * READINGS


def plain_http(cluster: SecuredCluster, folder: Path) -> None:
    """What a client port says to a device that speaks HTTP/1.1 to it."""
    address = cluster.nodes[1].client_address
    for scheme in ("http", "https"):
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--insecure", "--http1.1", "--max-time", "20", f"{scheme}://{address}/"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        print(f"  {scheme}: curl ended with {done.returncode}: {(done.stderr or done.stdout).strip()[:200]}")
        assert done.returncode != 0


def main(build: Path) -> None:
    root = build / "micropython"
    work = build / f"work-{os.getpid()}"
    with SecuredCluster(work / "cluster") as cluster:
        cluster.form()
        for name, step in {"node": node, "go": go, "plain_http": plain_http}.items():
            print(f"{name}:", flush=True)
            (work / name).mkdir(parents=True)
            step(cluster, work / name)
        print("micropython:", flush=True)
        (work / "micropython").mkdir()
        micropython(cluster, work / "micropython", root)
    shutil.rmtree(work)
    print("all of them wrote, and each reading is there once")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
