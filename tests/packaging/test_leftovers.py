"""What a killed run of the one executable leaves in memory is removed by the next, and nothing else is."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
A_MINUTE_S = 60.0

_found = importlib.util.spec_from_file_location("leftovers", ROOT / "packaging/pyinstaller/leftovers.py")
assert _found is not None
assert _found.loader is not None
leftovers = importlib.util.module_from_spec(_found)
_found.loader.exec_module(leftovers)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A directory with what one run has unpacked."""
    (tmp_path / "shm/_MEIkilled/raftberry-0.1.0.dist-info").mkdir(parents=True)
    (tmp_path / "shm/_MEIkilled/libpython3.11.so.1.0").write_bytes(b"\x7fELF")
    (tmp_path / "proc").mkdir()
    return tmp_path / "shm"


def sweep(memory: Path, *, after_s: float = 2 * A_MINUTE_S) -> list[str]:
    processes = memory.parent / "proc"
    removed = leftovers.remove_leftovers(memory, processes=processes, now_s=time.time() + after_s)
    assert not any(one.exists() for one in removed)
    return [one.name for one in removed]


def start(memory: Path, number: int, *variables: str) -> None:
    """A process, as /proc shows it."""
    process = memory.parent / "proc" / str(number)
    process.mkdir()
    (process / "environ").write_bytes(b"".join(os.fsencode(one) + b"\0" for one in variables))


def test_what_no_process_uses_is_removed(memory: Path) -> None:
    start(memory, 1, "PATH=/usr/bin", "_PYI_APPLICATION_HOME_DIR=/dev/shm/_MEIother")
    assert sweep(memory) == ["_MEIkilled"]


def test_what_a_process_uses_stays(memory: Path) -> None:
    start(memory, 17, "PATH=/usr/bin", f"_PYI_APPLICATION_HOME_DIR={memory / '_MEIkilled'}")
    assert sweep(memory) == []


def test_what_may_still_be_unpacking_stays(memory: Path) -> None:
    assert sweep(memory, after_s=A_MINUTE_S / 2) == []


def test_what_another_program_unpacked_stays(memory: Path) -> None:
    (memory / "_MEIkilled/raftberry-0.1.0.dist-info").rename(memory / "_MEIkilled/other-1.0.dist-info")
    assert sweep(memory) == []


def test_what_another_user_unpacked_stays(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert sweep(memory) == []


def test_a_link_is_not_followed(memory: Path) -> None:
    (memory / "_MEIkilled").rename(memory.parent / "precious")
    (memory / "_MEIlink").symlink_to(memory.parent / "precious")
    assert sweep(memory) == []
    assert (memory.parent / "precious/raftberry-0.1.0.dist-info").is_dir()


def test_a_process_that_ended_meanwhile_is_no_error(memory: Path) -> None:
    (memory.parent / "proc/23").mkdir()
    (memory.parent / "proc/23/environ").symlink_to("gone")
    assert sweep(memory) == ["_MEIkilled"]
