"""recover, as root types it: what it writes belongs to the service's user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.cli.main import run
from appliance.host.machine import machine_id
from appliance.model import ClusterId, Member, MemberId
from appliance.storage.directory import DataDirectory, discard

CLUSTER, MEMBER = ClusterId(7), MemberId(5)


def test_what_root_recovers_is_given_to_the_owner_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "data"
    with DataDirectory.open(
        place, name="n1", machine_id=machine_id(), founders=(), draw_member_id=lambda: MEMBER
    ) as directory:
        directory.set_cluster(CLUSTER, (Member(MEMBER, "n1", 1, "127.0.0.1:7441", is_voter=True),), 1)
    owner = (place.stat().st_uid, place.stat().st_gid)
    given: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(os, "geteuid", lambda: owner[0] + 1)
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.update({Path(path).name: (user, group)}))
    assert run(["recover", "--force-new-cluster", "--yes", "--name", "n1", "--data", str(place)]) == 0
    assert given["identity"] == owner
    assert set(given) >= {path.name for path in place.rglob("*")}


@pytest.mark.parametrize("further", [(), ("--yes",)])
def test_a_directory_without_a_node_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], further: tuple[str, ...]
) -> None:
    missing, empty, discarded = (tmp_path / name for name in ("missing", "empty", "discarded"))
    empty.mkdir()
    DataDirectory.open(
        discarded, name="n1", machine_id=machine_id(), founders=(), draw_member_id=lambda: MEMBER
    ).close()
    discard(discarded)
    before = sorted(tmp_path.rglob("*"))
    for place, words in ((missing, "does not exist"), (empty, "holds no node"), (discarded, "holds no node")):
        assert run(["recover", "--force-new-cluster", "--name", "n1", "--data", str(place), *further]) == 1
        told = capsys.readouterr()
        assert f"{place} {words}: nothing was changed; name the node's data directory with --data" in told.err
        assert not told.out
    assert sorted(tmp_path.rglob("*")) == before
