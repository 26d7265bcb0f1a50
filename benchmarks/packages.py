"""Peers from Debian's packages, unpacked below build/: installing them would start services."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent / "build" / "peers"

PROGRAMS: Final = {
    "etcd": (("etcd-server",), "usr/bin/etcd"),
    "nats": (("nats-server",), "usr/sbin/nats-server"),
    "influxdb": (("influxdb",), "usr/bin/influxd"),
    "redis": (("redis-server", "redis-tools", "libjemalloc2", "liblzf1"), "usr/bin/redis-server"),
}
"""System -> Debian's packages (the first has the program's name), its program."""


def folder(system: str) -> Path:
    """Where its packages are unpacked."""
    return ROOT / system


def program(system: str) -> Path:
    """Path of the program; its package must have been fetched."""
    return folder(system) / PROGRAMS[system][1]


def fetch(system: str) -> None:
    """Downloads and unpacks what is not there yet."""
    if program(system).exists():
        return
    place = folder(system)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    names, _ = PROGRAMS[system]
    subprocess.run(["apt-get", "-q", "download", *names], cwd=place, check=True, stdout=subprocess.DEVNULL)
    for archive in sorted(place.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", archive, place], check=True)
        archive.unlink()
    assert program(system).exists(), f"{names} have no {program(system)}"


def libraries(system: str) -> str:
    """For LD_LIBRARY_PATH: shared libraries that came with the packages."""
    return os.pathsep.join(sorted({str(path.parent) for path in folder(system).glob("usr/lib/**/*.so.*")}))


def version(system: str) -> str:
    """Debian's version of the package that has the program."""
    name = PROGRAMS[system][0][0]
    done = subprocess.run(["apt-cache", "policy", name], capture_output=True, text=True, check=True)
    return next(line.split()[1] for line in done.stdout.splitlines() if "Candidate:" in line)
