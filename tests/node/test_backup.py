"""Backup files: written, read back, damaged in every byte; and the data directory made of one."""

from __future__ import annotations

import io
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import CorruptData, DataDirectoryRefused
from appliance.model import ClusterId, Member, MemberId, Position
from appliance.node.backup import BackupReader, encode_backup
from appliance.node.restoring import NewNode, restore
from appliance.state import StateMachine, operations
from appliance.state.operations import encode_command
from appliance.storage.directory import DataDirectory
from appliance.storage.memory import MemoryDisk, MemoryStore
from appliance.storage.store import Record
from raftberry.internal.v1 import backup_pb2

OLD = Member(MemberId(7), "old", 1, "old:7441")
GOLDEN = Path(__file__).resolve().parents[1] / "data" / "backup-format-1.backup"


def a_state() -> tuple[StateMachine, MemoryStore]:
    """Three commands, checkpointed at index 4 in term 2."""
    state, store = StateMachine(), MemoryStore(MemoryDisk())
    columns = operations.encode_columns(
        "kitchen", "temperature", np.arange(100).tobytes(), (np.arange(100) / 4).tobytes(), integer=False
    )
    for index, operation in enumerate(
        [
            operations.found_cluster([OLD]),
            operations.write_readings([columns], producer_id="p", sequence=1),
            operations.put_key("mode", b"away"),
        ],
        start=2,
    ):
        state.apply(index, 2, encode_command([operation], time_unix_nano=index, elapsed_nano=index))
    work = state.capture_checkpoint()
    store.commit(work.batch(store.snapshot))
    state.checkpoint_done(work)
    return state, store


def a_header() -> backup_pb2.BackupHeader:
    return backup_pb2.BackupHeader(
        cluster_id=5, index=4, term=2, time_unix_nano=1_800_000_000_000_000_000, version="0.1.0", node="old"
    )


def a_backup(store: MemoryStore) -> bytes:
    with store.snapshot() as reader:
        return b"".join(encode_backup(a_header(), reader))


def read(data: bytes) -> list[Record]:
    return list(BackupReader(io.BytesIO(data)).records())


def a_node(name: str = "new") -> NewNode:
    return NewNode(name, "machine", "new:7441", lambda: 9, lambda member: ClusterId(member + 1))


def test_what_a_backup_holds_is_read_back_as_it_was() -> None:
    _, store = a_state()
    data = a_backup(store)
    reader = BackupReader(io.BytesIO(data))
    assert reader.header == a_header()
    with store.snapshot() as stored:
        assert list(reader.records()) == list(stored.records())


def test_no_damaged_byte_goes_unnoticed() -> None:
    data = a_backup(a_state()[1])
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x20
        with pytest.raises(CorruptData):
            read(bytes(damaged))


def test_a_backup_that_ends_early_or_late_is_refused() -> None:
    data = a_backup(a_state()[1])
    for length in range(len(data)):
        with pytest.raises(CorruptData):
            read(data[:length])
    with pytest.raises(CorruptData, match="something follows its end"):
        read(data + b"\0")


def test_a_later_format_is_refused_with_what_to_do() -> None:
    data = bytearray(a_backup(a_state()[1]))
    data[16:18] = b"\0\2"
    with pytest.raises(CorruptData, match="format 2, this version reads 1; restore it with the version"):
        BackupReader(io.BytesIO(bytes(data)))


def test_a_backup_of_format_1_is_restored_for_good(tmp_path: Path) -> None:
    """The file was made by the first version; it must stay restorable. Its bytes are golden."""
    data = GOLDEN.read_bytes()
    assert sha256(data).hexdigest() == "3a3521f18dff2d406bb8ea3880e808c1bdc756dea096b429a054f06c74570f20"
    restored = restore(BackupReader(io.BytesIO(data)), tmp_path / "data", a_node(), set_aside=None)
    assert (restored.series_count, restored.reading_count, restored.key_count) == (1, 100, 1)
    assert restored.position == Position(4, 2)


def test_the_hash_of_a_state_is_the_same_in_every_version() -> None:
    """`raftberry verify` compares it between nodes of neighbouring versions: another one there is a node in doubt."""
    backup = BackupReader(io.BytesIO(GOLDEN.read_bytes()))
    installer = MemoryStore(MemoryDisk()).begin_install(Position(backup.header.index, backup.header.term))
    installer.add(backup.records())
    store = installer.finish()
    state = StateMachine.restore(store.snapshot())
    golden = "b4c2c1dc706c2635ae1e22d8e3d823bdfd56c43b169533d8b7476e216e727b6f"
    assert state.hash(store.snapshot()).hex() == golden


def test_a_restored_directory_is_a_new_cluster_of_one_with_the_old_content(tmp_path: Path) -> None:
    state, store = a_state()
    restored = restore(BackupReader(io.BytesIO(a_backup(store))), tmp_path / "data", a_node(), set_aside=None)
    assert restored.cluster_id == 10
    with DataDirectory.open(
        tmp_path / "data", name="new", machine_id="machine", founders=[], draw_member_id=lambda: 1
    ) as directory:
        assert (directory.identity.member_id, directory.identity.cluster_id) == (9, 10)
        with directory.store.snapshot() as reader:
            again = StateMachine.restore(reader)
            assert again.position == state.position
            assert [member.name for member in again.members()] == ["new"]
            assert again.key("mode") == state.key("mode")
            assert again.producer_highest("p") == 1
            assert list(again.latest("", "")) == list(state.latest("", ""))


def test_a_directory_in_use_is_left_alone_unless_it_may_be_set_aside(tmp_path: Path) -> None:
    data = a_backup(a_state()[1])
    occupied = tmp_path / "data"
    occupied.mkdir()
    (occupied / "precious").write_bytes(b"1")
    with pytest.raises(DataDirectoryRefused, match="nothing was changed"):
        restore(BackupReader(io.BytesIO(data)), occupied, a_node(), set_aside=None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
    restore(BackupReader(io.BytesIO(data)), occupied, a_node(), set_aside=tmp_path / "aside")
    assert (tmp_path / "aside" / "precious").read_bytes() == b"1"
    assert (occupied / "identity").exists()


def test_the_directory_of_a_running_node_is_not_set_aside(tmp_path: Path) -> None:
    data, place = a_backup(a_state()[1]), tmp_path / "data"
    running = DataDirectory.open(
        place, name="old", machine_id="machine", founders=[], draw_member_id=lambda: 7
    )
    with (
        running,
        pytest.raises(DataDirectoryRefused, match=r"is in use by process \d+; stop that node first"),
    ):
        restore(BackupReader(io.BytesIO(data)), place, a_node(), set_aside=tmp_path / "aside")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
    restore(BackupReader(io.BytesIO(data)), place, a_node(), set_aside=tmp_path / "aside")
    assert (tmp_path / "aside" / "identity").exists()


def test_no_node_starts_in_a_directory_that_is_about_to_be_set_aside(tmp_path: Path) -> None:
    place = tmp_path / "data"
    DataDirectory.open(place, name="old", machine_id="machine", founders=[], draw_member_id=lambda: 7).close()
    refusals: list[str] = []

    def draw_member_id() -> int:
        with pytest.raises(DataDirectoryRefused) as refused:
            DataDirectory.open(place, name="old", machine_id="machine", founders=[], draw_member_id=lambda: 7)
        refusals.append(str(refused.value))
        return 9

    node = replace(a_node(), draw_member_id=draw_member_id)
    restore(BackupReader(io.BytesIO(a_backup(a_state()[1]))), place, node, set_aside=tmp_path / "aside")
    assert "is in use by process" in refusals[0]


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_a_damaged_backup_leaves_no_directory(tmp_path: Path, is_cut_off: bool) -> None:
    data = bytearray(a_backup(a_state()[1]))
    data[-1] ^= 1
    damaged = bytes(data[: len(data) // 2] if is_cut_off else data)
    with pytest.raises(CorruptData):
        restore(BackupReader(io.BytesIO(damaged)), tmp_path / "data", a_node(), set_aside=None)
    assert list(tmp_path.iterdir()) == []
    restore(BackupReader(io.BytesIO(a_backup(a_state()[1]))), tmp_path / "data", a_node(), set_aside=None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
