"""Who may use a data directory, and what is said to everyone else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from appliance.errors import CorruptData, DataDirectoryRefused, InDoubt
from appliance.model import ClusterId, Configuration, Member, MemberId, Position
from appliance.storage.batch import Append
from appliance.storage.directory import (
    CURRENT_FILE,
    IDENTITY_FILE,
    JOURNAL_DIRECTORY,
    DataDirectory,
    StorageOptions,
    discard,
)
from appliance.storage.files import remove, write_file
from appliance.storage.identity import encode_identity
from appliance.storage.store import StoreBatch

OPTIONS = StorageOptions(journal_map_bytes=16 << 20, store_map_bytes=16 << 20)
FOUNDERS = ("pi-1", "pi-2", "pi-3")


def open_directory(path: Path, **changed: object) -> DataDirectory:
    arguments: dict[str, object] = {
        "name": "pi-1",
        "machine_id": "machine-a",
        "founders": FOUNDERS,
        "draw_member_id": lambda: 0xABC,
        "options": OPTIONS,
    }
    return DataDirectory.open(path, **(arguments | changed))  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "var" / "raftberry"
    open_directory(path).close()
    return path


def refusal(path: Path, **changed: object) -> str:
    with pytest.raises(DataDirectoryRefused) as raised:
        open_directory(path, **changed)
    return str(raised.value)


def test_first_start_creates_a_private_directory_with_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with open_directory(path, founders=("pi-3", "pi-1", "pi-2")) as directory:
        assert directory.identity.member_id == 0xABC
        assert (directory.identity.name, directory.identity.machine) == ("pi-1", "machine-a")
        assert directory.identity.founders == FOUNDERS
        assert (directory.identity.cluster_id, directory.identity.members) == (0, ())
        assert directory.journal.recover().last == Position(1, 0)
        assert directory.store.checkpoint() == Position(1, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert sorted(entry.name for entry in path.iterdir()) == [
        "CURRENT",
        "LOCK",
        "identity",
        "journal",
        "store.1",
    ]
    for entry in path.rglob("*"):
        assert stat.S_IMODE(entry.stat().st_mode) & 0o077 == 0, entry


def test_identity_is_drawn_once_and_data_stays(data: Path) -> None:
    numbers = count(1)
    with open_directory(data) as directory:
        directory.journal.commit([Append(((b"\1", 2, 1),))])
        directory.store.commit(StoreBatch(Position(2, 1)))
    with open_directory(data, draw_member_id=lambda: next(numbers)) as directory:
        assert directory.identity.member_id == 0xABC
        assert directory.journal.recover().last == Position(2, 1)
        assert directory.store.checkpoint() == Position(2, 1)
    assert next(numbers) == 1


def test_founding_result_is_durable_and_final(data: Path) -> None:
    members = (Member(MemberId(0xABC), "pi-1", 1, "a:1"), Member(MemberId(2), "pi-2", 2, "b:1", False))
    with open_directory(data) as directory:
        directory.set_cluster(ClusterId(77), members)
        directory.set_cluster(ClusterId(77), members)
    with open_directory(data) as directory:
        assert (directory.identity.cluster_id, directory.identity.members) == (77, members)
        with pytest.raises(
            DataDirectoryRefused, match=r"cluster 000000000000004d, the peers to .*58.*--initial-m"
        ):
            directory.set_cluster(ClusterId(88), members)


def test_an_installed_store_is_the_directorys_store(data: Path) -> None:
    with open_directory(data) as directory:
        directory.replace_store(directory.store.begin_install(Position(9, 1)).finish())
        assert directory.store.checkpoint() == Position(9, 1)
    with open_directory(data) as directory:
        assert directory.store.checkpoint() == Position(9, 1)


def test_founders_may_be_left_out(data: Path) -> None:
    with open_directory(data, founders=()) as directory:
        assert directory.identity.founders == FOUNDERS


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is a file, a directory is expected; name another with --data" in refusal(tmp_path / "file")


def test_a_directory_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be created: Not a directory" in refusal(tmp_path / "file" / "data")


def test_a_directory_that_cannot_be_written_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "LOCK").unlink()
    (data / "LOCK").mkdir()
    message = refusal(data)
    assert f"{data} is not writable for user id {os.geteuid()}" in message
    assert "chown" in message


def test_a_directory_in_use_is_refused_with_the_pid(data: Path) -> None:
    with open_directory(data):
        assert f"{data} is in use by process {os.getpid()}; stop that node first" in refusal(data)
    open_directory(data).close()


def test_another_node_is_refused(data: Path) -> None:
    assert "belongs to node 'pi-1', this is 'pi-2'; check --name" in refusal(data, name="pi-2")


def test_another_machine_is_refused(data: Path) -> None:
    message = refusal(data, machine_id="machine-b")
    assert "belongs to machine 'machine-a', this is 'machine-b': a cloned or moved card" in message
    assert "it takes no part, and what is there is kept; put the card back into its machine" in message


def test_another_cluster_is_refused(data: Path) -> None:
    message = refusal(data, founders=("pi-1", "pi-9"))
    assert "founded by pi-1, pi-2, pi-3, --initial-members names pi-1, pi-9: another cluster" in message


def test_a_newer_format_is_refused(data: Path) -> None:
    with open_directory(data) as directory:
        write_file(data / "identity", encode_identity(replace(directory.identity, format=2)))
    assert "has format 2, this version knows up to 1; start the version that wrote it" in refusal(data)


def test_a_corrupt_identity_is_refused(data: Path) -> None:
    content = bytearray((data / "identity").read_bytes())
    content[30] ^= 1
    (data / "identity").write_bytes(content)
    assert "identity: checksum" in refusal(data)
    (data / "identity").write_bytes(b"")
    assert "identity: record has 0 bytes" in refusal(data)


def test_an_identity_without_its_data_is_refused(data: Path) -> None:
    for part in ("journal", "CURRENT"):
        (data / part).rename(data.parent / part)
        assert f"has an identity but no {part}: it was partly wiped" in refusal(data)
        (data.parent / part).rename(data / part)
    open_directory(data).close()


@pytest.mark.parametrize(
    ("part", "open_part"),
    [
        ("journal/data.mdb", lambda directory: directory.journal),
        ("store.1/data.mdb", lambda directory: directory.store),
    ],
)
def test_an_environment_without_its_file_is_refused(
    data: Path, part: str, open_part: Callable[[DataDirectory], object]
) -> None:
    (data / part).unlink()
    with open_directory(data) as directory, pytest.raises(DataDirectoryRefused, match=f"{part} is missing"):
        open_part(directory)


def test_data_without_an_identity_is_refused(data: Path) -> None:
    (data / "identity").unlink()
    assert "no identity: it was partly wiped, and what is left cannot be trusted to vote" in refusal(data)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    assert "holds holiday.jpg, which is not Raftberry's; name an empty directory" in refusal(tmp_path)
    assert (tmp_path / "holiday.jpg").exists()


def test_lost_and_found_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    open_directory(tmp_path).close()
    open_directory(tmp_path).close()


def test_an_unfinished_first_start_is_done_again(data: Path) -> None:
    for left in ((), ("identity",), ("identity", "CURRENT"), ("identity", "CURRENT", "journal", "store.1")):
        write_file(data / "CREATING", b"")
        for part in left:
            remove(data / part)
        (data / "CREATING.tmp").write_bytes(b"")
        with open_directory(data, draw_member_id=lambda: 5) as directory:
            assert directory.identity.member_id == 5
            assert directory.store.checkpoint() == Position(1, 0)
        (data / "CREATING.tmp").unlink(missing_ok=True)
        assert not (data / "CREATING").exists()


def test_a_first_start_cut_off_at_its_first_file_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "CREATING.tmp").write_bytes(b"")
    open_directory(tmp_path).close()
    open_directory(tmp_path).close()


def test_identity_stays_readable_when_the_journal_is_damaged(data: Path) -> None:
    os.truncate(data / "journal" / "data.mdb", 5_000)
    with open_directory(data) as directory:
        assert directory.identity.member_id == 0xABC
        with pytest.raises(CorruptData, match=r"journal/data.mdb: .*cut short"):
            _ = directory.journal
        assert directory.store.checkpoint() == Position(1, 0)


def test_a_quarantine_outlives_the_process(data: Path) -> None:
    with open_directory(data) as directory:
        assert directory.quarantine_reason == ""
        directory.quarantine("it acknowledged more than it holds")
    with open_directory(data) as directory:
        assert directory.quarantine_reason == "it acknowledged more than it holds"


def test_a_removal_outlives_the_process(data: Path) -> None:
    with open_directory(data) as directory:
        assert directory.removed_reason == ""
        directory.mark_removed("removed from the cluster")
    with open_directory(data) as directory:
        assert directory.removed_reason == "removed from the cluster"


def test_a_new_directory_joins_a_cluster_once(data: Path) -> None:
    members = (Member(MemberId(2), "pi-2", 1, "b:1"), Member(MemberId(0xABC), "pi-1", 4, "a:1", False))
    with open_directory(data) as directory:
        directory.join(ClusterId(77), Configuration(5, members))
        directory.join(ClusterId(77), Configuration(5, members))
    with open_directory(data) as directory:
        identity = directory.identity
        assert (identity.cluster_id, identity.members, identity.members_version) == (77, members, 5)
        with pytest.raises(DataDirectoryRefused, match="belongs to cluster 000000000000004d"):
            directory.join(ClusterId(88), Configuration(9, members))


def test_the_newest_members_are_remembered(data: Path) -> None:
    newer = (Member(MemberId(3), "pi-3", 3, "c:1"),)
    with open_directory(data) as directory:
        directory.remember_members(newer, 7)
        directory.remember_members((), 6)
    with open_directory(data) as directory:
        assert (directory.identity.members, directory.identity.members_version) == (newer, 7)


def test_a_discarded_directory_is_a_new_node(data: Path) -> None:
    with open_directory(data) as directory:
        directory.mark_removed("removed from the cluster")
        with pytest.raises(DataDirectoryRefused, match="in use by process"):
            discard(data)
    discard(data)
    discard(data)
    with open_directory(data, draw_member_id=lambda: 0xDEF) as directory:
        assert directory.identity.member_id == 0xDEF
        assert directory.removed_reason == ""
        assert directory.store.checkpoint() == Position(1, 0)


@pytest.mark.parametrize("lost", [IDENTITY_FILE, JOURNAL_DIRECTORY, CURRENT_FILE])
def test_what_is_left_of_a_wiped_directory_can_be_discarded(data: Path, lost: str) -> None:
    remove(data / lost)
    with pytest.raises(InDoubt, match="restore the whole directory"):
        open_directory(data)
    discard(data)
    with open_directory(data, draw_member_id=lambda: 0xDEF) as directory:
        assert directory.identity.member_id == 0xDEF


def test_only_a_directory_of_ours_is_discarded(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DataDirectoryRefused, match="not Raftberry's"):
        discard(tmp_path)
