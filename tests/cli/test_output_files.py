"""export and backup: what becomes of the FILE that is there, and whose name errors say."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from appliance.client.connection import Connection
from raftberry.v1 import maintenance_pb2
from tests.cli.conftest import Raftberry, Result
from tests.cli.fake_server import FakeNode

SERIES: Final = ("--sensor", "machine", "--metric", "temperature")
BACKUP: Final = next(
    Path(__file__).parent.parent.joinpath("data").rglob("backup-format-1.backup")
).read_bytes()
CSV: Final = b"timestamp,value\n1970-01-01 00:00:00.000000001,2.5\n"

COMMANDS: Final = {"export": (("export",), SERIES, CSV), "backup": (("backup",), (), BACKUP)}


@pytest.fixture(params=list(COMMANDS))
def kind(request: pytest.FixtureRequest, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch) -> str:
    """export or backup, each with something to write."""
    nodes[0].memory.series["machine", "temperature"] = {1: 2.5}
    if request.param == "backup":

        def stream(*_: object) -> Iterator[maintenance_pb2.BackupResponse]:
            yield maintenance_pb2.BackupResponse(data=BACKUP)

        monkeypatch.setattr(Connection, "stream", stream)
    return str(request.param)


def save(raftberry: Raftberry, kind: str, file: Path) -> Result:
    command, options, _ = COMMANDS[kind]
    return raftberry(*command, str(file), *options)


def test_what_a_symlink_names_is_replaced_and_the_link_stays(
    raftberry: Raftberry, kind: str, tmp_path: Path
) -> None:
    disk, here = tmp_path / "disk", tmp_path / "here"
    disk.mkdir()
    here.mkdir()
    link = here / "link"
    link.symlink_to("../disk/file")
    for _ in range(2):
        assert save(raftberry, kind, link).status == 0
        assert link.is_symlink()
        assert (disk / "file").read_bytes() == COMMANDS[kind][2]
    assert [one.name for one in (*disk.iterdir(), *here.iterdir())] == ["file", "link"]


def test_a_fifo_is_written_into(raftberry: Raftberry, kind: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert save(raftberry, kind, fifo).status == 0
        assert os.read(reading, 1 << 16) == COMMANDS[kind][2]
    finally:
        os.close(reading)
    assert [one.name for one in tmp_path.iterdir()] == ["fifo"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_reader_that_leaves_is_an_error(raftberry: Raftberry, kind: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = save(raftberry, kind, Path(f"/proc/self/fd/{writing}"))
    finally:
        os.close(writing)
    assert result.status == 1
    assert f"/proc/self/fd/{writing}: its reader has gone" in result.err


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o027, 0o640)])
def test_the_umask_decides_who_may_read_a_new_file(
    raftberry: Raftberry, kind: str, tmp_path: Path, mask: int, mode: int
) -> None:
    file = tmp_path / "file"
    before = os.umask(mask)
    try:
        assert save(raftberry, kind, file).status == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert file.read_bytes() == COMMANDS[kind][2]


def test_an_error_names_the_file_that_was_typed(raftberry: Raftberry, kind: str, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nope" / "file")
    for file, why in {
        tmp_path / "nope" / "file": "No such file or directory",
        link: "No such file or directory",
        tmp_path / "plain" / "file": "Not a directory",
    }.items():
        result = save(raftberry, kind, file)
        assert (result.status, result.err) == (1, f"raftberry: {file}: {why}\n")


def test_a_full_disk_names_the_file_and_leaves_nothing(
    raftberry: Raftberry, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("appliance.cli.files.os.fsync", full)
    result = save(raftberry, kind, tmp_path / "file")
    assert (result.status, result.err) == (1, f"raftberry: {tmp_path / 'file'}: No space left on device\n")
    assert list(tmp_path.iterdir()) == []
