"""The arm64 package on an emulated arm64 Debian: installed, started, written to, killed, and what it said.

Run by script/build-arm64. Emulation makes it some ten times slower than a Pi: its times say nothing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.system.machines import Machine, Network, wait_until


def main() -> None:
    repository = Path(os.environ["RAFTBERRY_REPOSITORY"])
    network = Network(["arm"])
    try:
        with tempfile.TemporaryDirectory(dir=repository.parent) as folder:
            machine = Machine("arm", Path(os.environ["RAFTBERRY_BASE"]), Path(folder), repository)
            try:
                print(f"booted in {machine.boot():.1f} s: {machine.sh('uname', '-m').strip()}", flush=True)
                use(machine, os.environ["RAFTBERRY_DEB"])
            finally:
                machine.close()
    finally:
        network.close()


def use(machine: Machine, package: str) -> None:
    print(machine.sh("apt-get", "install", "-y", "-q", package, timeout_s=600)[-400:], flush=True)
    wait_until("the service is active", machine.is_active, 120)
    wait_until("it takes a write", lambda: can_write(machine), 120)
    print(machine.sh("raftberry", "version"), machine.sh("raftberry", "latest"), flush=True)
    before = int(machine.unit("NRestarts")["NRestarts"])
    machine.sh("systemctl", "kill", "-s", "KILL", "raftberry")
    wait_until("systemd restarts it", lambda: int(machine.unit("NRestarts")["NRestarts"]) > before, 120)
    wait_until("it answers after it was killed", lambda: "21.5" in read(machine), 120)
    print("after SIGKILL:", read(machine), flush=True)
    print(machine.sh("systemctl", "status", "raftberry", "--no-pager"), flush=True)


def can_write(machine: Machine) -> bool:
    return machine.status_of("raftberry write greenhouse temperature 21.5 --timeout 60s") == 0


def read(machine: Machine) -> str:
    return machine.sh("raftberry", "latest", "--timeout", "60s", is_checked=False)


main()
