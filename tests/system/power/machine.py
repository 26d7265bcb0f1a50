"""The machine that loses power: QEMU over a disk whose write cache nbdkit keeps.

Invariant: after cut() nothing more of the machine reaches the disk's file, and stop() leaves no process behind.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CLIENT_PORT: Final = 7_440
PEER_PORT: Final = 7_441
BOOT_S: Final = 600.0
"""Emulated, and beside other work; half a minute on a machine that does nothing else."""


class Machine:
    """One power-up. folder holds what make_machine.sh made and the saved memory."""

    def __init__(
        self, folder: Path, disk: Path, *, client_port: int, address: str, is_lying: bool = False
    ) -> None:
        self._folder, self._disk = folder, disk
        self._client_port, self._address = client_port, address
        self._is_lying = is_lying
        self._processes: list[subprocess.Popen[bytes]] = []
        self._command = folder / "disk.command"
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.console: subprocess.Popen[bytes] | None = None

    def save(self) -> None:
        """Boot once, to the point where the program waits for power, and keep the memory."""
        state, monitor = self._folder / "memory", self._folder / "monitor"
        monitor.unlink(missing_ok=True)
        self._start(["-monitor", f"unix:{monitor},server,nowait"])
        self.wait_for_line("GUEST loaded", BOOT_S)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(monitor))
            connection.sendall(f'migrate "exec:cat > {state}.new"\nquit\n'.encode())
            while connection.recv(4_096):
                pass
        assert self.console is not None
        self.console.wait(BOOT_S)
        Path(f"{state}.new").rename(state)
        self.stop()

    def power_up(self, environment: Mapping[str, str]) -> None:
        self._start(["-incoming", f"exec:cat {self._folder / 'memory'}"])
        assert self.console is not None
        assert self.console.stdin is not None
        words = [
            "power",
            str(time.time_ns()),
            secrets.token_hex(32),
            *(f"{k}={v}" for k, v in environment.items()),
        ]
        # The serial port may lose the first byte after the memory was restored.
        self.console.stdin.write(("\n\n" + " ".join(words) + "\n").encode())
        self.console.stdin.flush()

    def _start(self, more: list[str]) -> None:
        nbd = self._folder / "disk.nbd"
        for stale in (nbd, self._command):
            stale.unlink(missing_ok=True)
        self._processes.append(
            subprocess.Popen(
                ["nbdkit", "-f", "-U", str(nbd), "python", str(HERE / "volatile_disk.py"), f"img={self._disk}",
                 f"socket={self._command}", f"lie={int(self._is_lying)}"]
            )
        )  # fmt: skip
        wait_until(lambda: nbd.exists() and self._command.exists(), BOOT_S, "the disk does not start")
        forward = (
            f"hostfwd=tcp:127.0.0.1:{self._client_port}-:{CLIENT_PORT},"
            f"hostfwd=tcp:{self._address}:{PEER_PORT}-:{PEER_PORT}"
        )
        self.console = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1", "-m", "384",
             "-display", "none", "-no-reboot", "-serial", "stdio",
             "-kernel", str(self._folder / "vmlinuz"), "-initrd", str(self._folder / "initrd.gz"),
             "-drive", f"file={self._folder / 'root.img'},format=raw,if=virtio,readonly=on",
             "-drive", f"file=nbd+unix:///?socket={nbd},format=raw,if=virtio,cache=none",
             "-netdev", f"user,id=n0,{forward}", "-device", "virtio-net-pci,netdev=n0,romfile=",
             "-append", "console=ttyS0 quiet panic=-1 mitigations=off", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._processes.append(self.console)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.console is not None
        assert self.console.stdout is not None
        # The last power-up's, for whoever looks for what went wrong.
        with (self._folder / "console").open("wb") as kept:
            for line in self.console.stdout:
                kept.write(line)
                kept.flush()
                with self._changed:
                    self.lines.append(line.decode(errors="replace").rstrip())
                    self._changed.notify_all()

    def has_line(self, part: str, start: int = 0) -> bool:
        with self._changed:
            return any(part in line for line in self.lines[start:])

    def line_count(self) -> int:
        with self._changed:
            return len(self.lines)

    def wait_for_any(self, parts: Sequence[str], start: int, timeout_s: float) -> str:
        """The first of parts that stands in a line of the console from start on; empty: none came."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [part for line in self.lines[start:] for part in parts if part in line]
                if found or time.monotonic() > end:
                    return found[0] if found else ""
                self._changed.wait(0.5)

    def wait_for_line(self, part: str, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        with self._changed:
            while not any(part in line for line in self.lines):
                assert time.monotonic() < end, f"no {part!r} on the console: {self.lines[-20:]}"
                self._changed.wait(0.5)

    def cut(self, *, after: int, keep_percent: int, seed: int) -> str:
        """Cut the power after so many more writes and flushes; what the disk says of it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._command))
            connection.sendall(f"cut {after} {keep_percent} {seed}\n".encode())
            answer = connection.makefile().readline().strip()
        self.stop()
        return answer

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()


def wait_until(is_so: Callable[[], object], timeout_s: float, complaint: str) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, complaint
        time.sleep(0.05)


def copy_disk(source: Path, target: Path) -> None:
    """A fresh disk; holes stay holes."""
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", os.fspath(source), os.fspath(target)], check=True)
