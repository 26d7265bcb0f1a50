"""Real systemd machines: containers with their own network namespaces on one bridge, PID 1 is systemd.

Works where this host's own PID 1 is not systemd. Needs root, systemd-nspawn, iproute2 and an unpacked Debian with
systemd (script/test-system makes it). Invariant: close() leaves no process, mount, cgroup or namespace behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

NETWORK: Final = "10.213.9"
BRIDGE_NAMESPACE: Final = "rbt-hub"
BOOT_TIMEOUT_S: Final = 600.0
CLEAN_ENVIRONMENT: Final = (
    "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
)  # fmt: skip

# PID 1 of a container needs its own cgroup: without it all containers share /system.slice/raftberry.service.
_BOOT: Final = """
set -eu
mkdir -p /run/systemd; mount -t tmpfs tmpfs /run/systemd
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"; echo $$ > "/sys/fs/cgroup/$1/cgroup.procs"
exec systemd-nspawn --quiet --boot --directory="$2" --machine="$1" --register=no --keep-unit --console=pipe \
  --network-namespace-path="/run/netns/$1" --resolv-conf=off --timezone=off --link-journal=no \
  --bind-ro="$3:/srv/repository" $4
"""


def run(*command: str, is_checked: bool = True, timeout_s: float = 600) -> str:
    """Output of a command of this host."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if is_checked and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_until(what: str, is_so: Callable[[], object], timeout_s: float = 300.0) -> float:
    """Seconds it took; AssertionError naming what after timeout_s."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


class Network:
    """A bridge, and one namespace a machine with an address on it."""

    def __init__(self, names: list[str], *, prefix: str = "") -> None:
        """prefix: of the namespaces' names, so that two of these can be on one host."""
        self._prefix = prefix
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=1)}
        run("ip", "netns", "add", f"{prefix}{BRIDGE_NAMESPACE}")
        self._hub("link", "set", "lo", "up")
        self._hub("link", "add", "hub", "type", "bridge")
        self._hub("addr", "add", f"{NETWORK}.254/24", "dev", "hub")
        self._hub("link", "set", "hub", "up")
        for name, address in self.addresses.items():
            namespace = f"{prefix}{name}"
            run("ip", "netns", "add", namespace)
            self._hub(
                "link", "add", self._port(name), "type", "veth", "peer", "name", "host0", "netns", namespace
            )
            self._hub("link", "set", self._port(name), "master", "hub", "up")
            for words in (("link", "set", "lo", "up"), ("addr", "add", f"{address}/24", "dev", "host0"),
                          ("link", "set", "host0", "up")):  # fmt: skip
                run("ip", "-n", namespace, *words)

    def cut(self, name: str) -> None:
        self._hub("link", "set", self._port(name), "down")

    def mend(self, name: str) -> None:
        self._hub("link", "set", self._port(name), "up")

    def close(self) -> None:
        for name in (*self.addresses, BRIDGE_NAMESPACE):
            run("ip", "netns", "del", f"{self._prefix}{name}", is_checked=False)

    @staticmethod
    def _port(name: str) -> str:
        return f"p-{name}"[:15]

    def _hub(self, *words: str) -> None:
        run("ip", "-n", f"{self._prefix}{BRIDGE_NAMESPACE}", *words)


class Machine:
    """One container. boot() and reboot() return when systemd says that it is running."""

    def __init__(
        self, name: str, base: Path, folder: Path, repository: Path, *, data_bytes: int = 0, prefix: str = ""
    ) -> None:
        """data_bytes: size of a file system of its own for /var/lib/raftberry; 0: the machine's.

        prefix: the network's.
        """
        self.name, self._repository = name, repository
        self._namespace = f"{prefix}{name}"
        self._folder = folder / name
        self.root = self._folder / "root"
        for part in ("up", "work", "root"):
            (self._folder / part).mkdir(parents=True)
        options = f"lowerdir={base},upperdir={self._folder / 'up'},workdir={self._folder / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", options, str(self.root))
        (self.root / "etc/hostname").write_text(f"{name}\n")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        (self.root / "etc/machine-id").write_text(f"{os.urandom(16).hex()}\n")
        self._more = ""
        if data_bytes:
            disk = self._folder / "disk"
            disk.mkdir()
            run("mount", "-t", "tmpfs", "-o", f"size={data_bytes},mode=0755", "tmpfs", str(disk))
            (disk / "raftberry").mkdir()
            self._more = f"--bind={disk}/raftberry:/var/lib/raftberry"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def write(self, path: str, text: str) -> None:
        file = self.root / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def boot(self) -> float:
        began = time.monotonic()
        console = (self._folder / "console").open("ab")
        self._nspawn = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "bash", "-c", _BOOT, "boot", self._namespace,
             str(self.root), str(self._repository), self._more],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console,
        )  # fmt: skip
        wait_until(f"{self.name}: systemd answers", self._has_systemd, BOOT_TIMEOUT_S)
        self.sh("systemctl", "is-system-running", "--wait", is_checked=False)
        return time.monotonic() - began

    def _has_systemd(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, (self._folder / "console").read_text(errors="replace")[-2_000:]
        process = self._nspawn.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
            if children:
                self.leader = int(children[0])
                enter = (
                    "nsenter",
                    "-t",
                    str(self.leader),
                    "-m",
                    "-p",
                    "/bin/test",
                    "-S",
                    "/run/systemd/private",
                )
                return subprocess.run(enter, capture_output=True, check=False).returncode == 0
        return False

    def sh(self, *command: str, is_checked: bool = True, timeout_s: float = 600) -> str:
        """Run as root inside."""
        return run(
            "nsenter", "-t", str(self.leader), "-a", *CLEAN_ENVIRONMENT, *command,
            is_checked=is_checked, timeout_s=timeout_s,
        )  # fmt: skip

    def status_of(self, command: str) -> int:
        """Exit status of a shell command."""
        words = ("nsenter", "-t", str(self.leader), "-a", *CLEAN_ENVIRONMENT, "sh", "-c", command)
        return subprocess.run(words, capture_output=True, timeout=600, check=False).returncode

    def unit(self, *names: str) -> dict[str, str]:
        """Properties of raftberry.service."""
        shown = self.sh("systemctl", "show", "raftberry", "-p", ",".join(names))
        return dict(line.split("=", 1) for line in shown.splitlines())

    def is_active(self) -> bool:
        return self.sh("systemctl", "is-active", "raftberry", is_checked=False).strip() == "active"

    def shut_down(self) -> None:
        """What the power button does."""
        if self._nspawn is None:
            return
        self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(120)
        except subprocess.TimeoutExpired:
            self.kill()
        self._nspawn = None

    def kill(self) -> None:
        """All of it ends at once."""
        if self._nspawn is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)
            self._nspawn.wait(120)
            self._nspawn = None

    def reboot(self) -> float:
        self.shut_down()
        return self.boot()

    def close(self) -> None:
        self.kill()
        run("umount", str(self.root), is_checked=False)
        if self._more:
            run("umount", str(self._folder / "disk"), is_checked=False)
        shutil.rmtree(self._folder, ignore_errors=True)
