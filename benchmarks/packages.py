"""Peers from Debian's packages, unpacked below build/: installing them would start services."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent / "build" / "peers"

PACKAGES: Final = {
    "etcd": ("etcd-server", "usr/bin/etcd"),
    "nats": ("nats-server", "usr/sbin/nats-server"),
    "influxdb": ("influxdb", "usr/bin/influxd"),
    "redis": ("redis-server", "usr/bin/redis-server"),
}
"""System -> Debian's package, its program."""


def program(system: str) -> Path:
    """Path of the program; its package must have been fetched."""
    return ROOT / PACKAGES[system][0] / PACKAGES[system][1]


def fetch(system: str) -> None:
    """Downloads and unpacks what is not there yet."""
    package, _ = PACKAGES[system]
    if program(system).exists():
        return
    folder = ROOT / package
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run(["apt-get", "-q", "download", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
    assert program(system).exists(), f"{package} has no {PACKAGES[system][1]}"
