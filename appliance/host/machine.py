"""Who this machine is: what ties a data directory to it.

Invariant: the identity is the same at every boot of this machine and differs on a clone of its card in another
board, where the board has a serial number.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import platform
import socket
import struct
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

_SIOCGIFCONF: Final = 0x8912
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 1
_IFREQ_BYTES: Final = 40
_INTERFACES_MAX: Final = 64

_MACHINE_ID_FILES: Final = ("etc/machine-id", "var/lib/dbus/machine-id")
_SERIAL_FILES: Final = ("proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number")


def machine_id(root: Path = ROOT) -> str:
    """32 hex digits from /etc/machine-id and the board's serial number; empty if the machine has neither.

    Hashed, because machine-id(5) asks not to publish it.
    """
    parts = [_first_text(root, _MACHINE_ID_FILES), board_serial(root)]
    if not any(parts):
        return ""
    return hashlib.sha256(b"raftberry\0" + "\0".join(parts).encode()).hexdigest()[:32]


def describe_machine(root: Path = ROOT) -> str:
    """One line that says where a figure was measured: processors, memory, kernel."""
    fields = (line.partition(":") for line in _text(root / "proc/cpuinfo").splitlines())
    model = next((value.strip() for name, _, value in fields if name.strip() in ("model name", "Model")), "")
    memory = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    gib = int(memory.get("MemTotal", "0 kB").split()[0]) / (1 << 20)
    return f"{os.cpu_count()} x {model or platform.machine()}, {gib:.1f} GiB, Linux {platform.release()}"


def primary_address() -> str:
    """The address that this machine is reached by from its network; empty without one. Nothing is sent.

    Without a way out (an island of Pis has no gateway): the first of its interfaces by name.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # A documentation address (RFC 5737): what the routing table would send from.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            found = [address for _, address in sorted(_interfaces(probe)) if not address.startswith("127.")]
            return found[0] if found else ""
        address: str = probe.getsockname()[0]
        return address


def _interfaces(probe: socket.socket) -> list[tuple[str, str]]:
    """(name, IPv4 address) of those that are up. By netdevice(7): the service sees neither /proc/net nor netlink."""
    buffer = array.array("B", bytes(_IFREQ_BYTES * _INTERFACES_MAX))
    begin, _ = buffer.buffer_info()
    answer = fcntl.ioctl(probe, _SIOCGIFCONF, struct.pack("iL", len(buffer), begin))
    (used,) = struct.unpack_from("i", answer)
    found = []
    for offset in range(0, used, _IFREQ_BYTES):
        name, family, octets = struct.unpack_from("=16sH2x4s", buffer, offset)
        flags = struct.unpack_from(
            "=16sH", fcntl.ioctl(probe, _SIOCGIFFLAGS, name.ljust(_IFREQ_BYTES, b"\0"))
        )[1]
        if family == socket.AF_INET and flags & _IFF_UP:
            found.append((name.rstrip(b"\0").decode("ascii", "replace"), socket.inet_ntoa(octets)))
    return found


def advertised_host() -> str:
    """HOSTNAME.local where that means this machine (it survives a new DHCP lease), else its address. Blocks."""
    address = primary_address()
    name = f"{socket.gethostname().partition('.')[0]}.local"
    try:
        found = {str(item[4][0]) for item in socket.getaddrinfo(name, None, family=socket.AF_INET)}
    except OSError:
        found = set()
    return name if address and address in found else address


def board_serial(root: Path = ROOT) -> str:
    """Serial number of the board, as a Raspberry Pi has one; empty elsewhere."""
    return _first_text(root, _SERIAL_FILES)


def _first_text(root: Path, names: tuple[str, ...]) -> str:
    """The first file that has something in it. Device tree strings end with a zero byte."""
    for name in names:
        try:
            text = (root / name).read_bytes().decode("ascii", "replace").strip("\0 \n")
        except OSError:
            continue
        if text and text != "uninitialized":
            return text
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
