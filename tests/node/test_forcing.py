"""A new cluster out of one node's directory: cut off and done again, and where the store has no checkpoint yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.consensus import LogImage
from appliance.errors import DataDirectoryRefused
from appliance.model import NO_OP, ClusterId, Entry, HardState, Member, MemberId
from appliance.node import forcing
from appliance.node.batch import Batch
from appliance.state.operations import found_cluster, put_key
from appliance.storage.batch import Append, SetHardState
from appliance.storage.directory import DataDirectory
from raftberry.internal.v1 import command_pb2

FOUNDERS = tuple(
    Member(MemberId(10 + number), name, number, f"10.0.0.{number}:7441")
    for number, name in enumerate(("a", "b", "c"), 1)
)
OLD, HALF, NEW = ClusterId(77), ClusterId(88), ClusterId(99)
LAST = 9


class PowerCut(BaseException):
    pass


def open_directory(tmp_path: Path) -> DataDirectory:
    return DataDirectory.open(
        tmp_path / "data",
        name="a",
        machine_id="m1",
        founders=("a", "b", "c"),
        draw_member_id=lambda: FOUNDERS[0].member_id,
    )


def entry_of(operation: command_pb2.Operation) -> bytes:
    batch = Batch()
    batch.add(operation.SerializeToString())
    return batch.encode(time_unix_nano=1_800_000_000_000_000_000, elapsed_ns=1)


def make_founder(tmp_path: Path, *, has_log: bool = True) -> None:
    """Of three; its store never had a checkpoint."""
    entries: tuple[Entry, ...] = (
        (NO_OP, 2, 1),
        (entry_of(found_cluster(FOUNDERS)), 3, 1),
        *((entry_of(put_key(f"k{index}", b"v")), index, 1) for index in range(4, LAST + 1)),
    )
    with open_directory(tmp_path) as directory:
        directory.set_cluster(OLD, FOUNDERS)
        directory.journal.recover()
        directory.journal.begin_boot()
        if has_log:
            directory.journal.commit([Append(entries), SetHardState(HardState(1, None, LAST, LAST))])


def force(tmp_path: Path, cluster_id: ClusterId) -> forcing.Holding:
    with open_directory(tmp_path) as directory:
        return forcing.force_new_cluster(
            directory, draw_cluster_id=lambda: cluster_id, peer_address="10.0.0.1:7441"
        )


def names(holding: forcing.Holding) -> list[str]:
    return [member.name for member in holding.configuration.members]


def check_recovered(tmp_path: Path, removed: list[str]) -> None:
    with open_directory(tmp_path) as directory:
        assert directory.identity.cluster_id == NEW
        alone = forcing.examine(directory).configuration
    assert [member.name for member in alone.members] == ["a"]
    assert alone.members[0].is_voter
    assert alone.removed == tuple(member.member_id for member in FOUNDERS if member.name in removed)


@pytest.mark.parametrize(("has_log", "known"), [(True, ["a", "b", "c"]), (False, ["a"])])
def test_a_run_that_was_cut_off_behind_the_identity_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_log: bool, known: list[str]
) -> None:
    def cut_off(_: LogImage) -> None:
        raise PowerCut

    make_founder(tmp_path, has_log=has_log)
    with monkeypatch.context() as patched:
        patched.setattr(LogImage, "take_batch", cut_off)
        with pytest.raises(PowerCut):
            force(tmp_path, HALF)
    with open_directory(tmp_path) as directory:
        assert directory.identity.cluster_id == HALF
    holding = force(tmp_path, NEW)
    assert names(holding) == known
    assert holding.last.index == (LAST if has_log else 1)
    check_recovered(tmp_path, known[1:])
    with open_directory(tmp_path) as directory:
        assert directory.identity.superseded == (OLD, HALF)


def test_a_founder_that_heard_of_a_later_configuration_than_its_log_holds_is_recovered(
    tmp_path: Path,
) -> None:
    make_founder(tmp_path)
    with open_directory(tmp_path) as directory:
        directory.remember_members(FOUNDERS, 2)
    assert names(force(tmp_path, NEW)) == ["a", "b", "c"]
    check_recovered(tmp_path, ["b", "c"])


def test_a_directory_that_was_never_told_of_a_cluster_is_refused_before_anything_is_said(
    tmp_path: Path,
) -> None:
    with (
        open_directory(tmp_path) as directory,
        pytest.raises(DataDirectoryRefused, match="it holds nothing that could be recovered"),
    ):
        forcing.examine(directory)
