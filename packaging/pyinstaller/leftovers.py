"""Runs when the frozen program starts: removes what killed runs of it have left unpacked in memory.

PyInstaller's bootloader unpacks the executable beside others' `_MEI*` directories and removes its own when the
program ends, but not after SIGKILL, or when a signal comes while it unpacks.
Invariant: nothing is removed that a process uses, that another user or another program made, or that is younger than
a minute.
"""

import os
import shutil
import sys
import time
from pathlib import Path

YOUNG_S = 60.0
"""An unpacking under way has no process to show for it yet; it takes seconds on the slowest machine."""

OURS = "raftberry-*.dist-info"
"""Unpacked with every version of this program. One that was killed before it came to that stays."""


def remove_leftovers(
    folder: Path, *, processes: Path = Path("/proc"), now_s: float | None = None
) -> list[Path]:
    """The directories in folder that were removed."""
    now_s = time.time() if now_s is None else now_s
    candidates = [one for one in folder.glob("_MEI*") if _is_old_and_ours(one, now_s)]
    if not candidates:
        return []
    used = _directories_in_use(processes)
    removed = [one for one in candidates if os.fsencode(one) not in used]
    for one in removed:
        shutil.rmtree(one, ignore_errors=True)
    return removed


def _is_old_and_ours(directory: Path, now_s: float) -> bool:
    try:
        found = directory.lstat()
        return (
            found.st_uid == os.geteuid()
            and now_s - found.st_mtime > YOUNG_S
            and directory.is_dir()
            and not directory.is_symlink()
            and any(directory.glob(OURS))
        )
    except OSError:
        # Another run was quicker.
        return False


def _directories_in_use(processes: Path) -> set[bytes]:
    """What the bootloader says to each process where it has unpacked."""
    name = b"_PYI_APPLICATION_HOME_DIR="
    used = set()
    for environment in processes.glob("[0-9]*/environ"):
        try:
            content = environment.read_bytes()
        except OSError:
            # It ended, or it is another user's, and so is its directory.
            continue
        used.update(one.removeprefix(name) for one in content.split(b"\0") if one.startswith(name))
    return used


if hasattr(sys, "_MEIPASS"):
    remove_leftovers(Path(sys._MEIPASS).parent)
