"""Who this machine is: what ties a data directory to it.

Invariant: the identity is the same at every boot of this machine and differs on a clone of its card in another
board, where the board has a serial number.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

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
