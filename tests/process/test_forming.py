"""A secured cluster formed by invite and join, as typed; refused, cut off and done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.joining import JOIN_FILE
from appliance.security.keyring import SECURITY_DIRECTORY
from appliance.storage.directory import IDENTITY_FILE
from appliance.storage.identity import decode_identity, encode_identity
from raftberry.v1 import cluster_pb2
from tests.process.client import readings_of
from tests.process.nodes import wait_for
from tests.process.secured import SecuredCluster, SecuredNode


@pytest.fixture
def make_secured(tmp_path: Path) -> Iterator[Callable[[int], SecuredCluster]]:
    made: list[SecuredCluster] = []

    def make(size: int) -> SecuredCluster:
        made.append(SecuredCluster(tmp_path / f"s{len(made)}", size=size))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


def started(cluster: SecuredCluster) -> list[SecuredNode]:
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        node.wait_serving()
    return cluster.nodes


def test_three_machines_become_one_cluster_and_a_replayed_invite_lets_nobody_in(
    make_secured: Callable[[int], SecuredCluster],
) -> None:
    first, second, third = started(make_secured(3))
    assert first.command("write", "kitchen", "temperature", "21.5").returncode == 0
    invite = first.invite()
    joined = second.join(first, invite)
    assert joined.returncode == 0, joined.stderr
    assert "voting member" in joined.stderr
    replayed = third.join(first, invite)
    assert replayed.returncode == 5
    assert "used up" in replayed.stderr
    status = third.status(timeout_s=10)
    assert status is not None
    assert not status.secured
    # Every member can invite and take in: it has been given the CA's key.
    wait_for(
        "n2 to hold the CA's key", lambda: bool(second.keyring.authority and second.keyring.authority.key)
    )
    again = third.join(second, second.invite())
    assert again.returncode == 0, again.stderr
    for node in (first, second, third):
        wait_for(f"three voters on {node.name}", lambda node=node: node.is_voter_of(3), timeout_s=60)
        assert [value for _, value in readings_of(node.channel, "kitchen", "temperature")] == [21.5]
        status = node.status(timeout_s=10)
        assert status is not None
        assert status.secured
        assert status.certificate_expires_unix_nano
    third.kill()
    third.start()
    wait_for("n3 to be back after a kill", lambda: third.is_voter_of(3), timeout_s=60)


def test_an_invite_for_another_host_waits_until_the_node_listens_as_that(
    make_secured: Callable[[int], SecuredCluster],
) -> None:
    (first,) = started(make_secured(1))
    first.invite()
    for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
        done = first.command("invite", "--host", host, "--timeout", "60s")
        assert done.returncode == 0, done.stderr
        assert f"encrypted, as {host}" in done.stderr
        assert done.stdout.startswith(f"sudo raftberry join {host}:")


def test_a_node_with_data_of_its_own_joins_only_when_told_to_discard_it(
    make_secured: Callable[[int], SecuredCluster],
) -> None:
    first, second = started(make_secured(2))
    assert second.command("write", "own", "m", "1").returncode == 0
    invite = first.invite()
    refused = second.join(first, invite)
    assert refused.returncode == 5
    assert "--discard-data" in refused.stderr
    assert [value for _, value in readings_of(second.channel, "own", "m")] == [1.0]
    accepted = second.join(first, invite, "--discard-data")
    assert accepted.returncode == 0, accepted.stderr
    assert readings_of(second.channel, "own", "m") == []


def test_a_card_of_another_machine_stands_by_and_joins_with_one_command(
    make_secured: Callable[[int], SecuredCluster],
) -> None:
    first, second = started(make_secured(2))
    assert second.terminate() == 0
    identity_file = second.data / IDENTITY_FILE
    identity = decode_identity(identity_file.read_bytes())
    identity_file.write_bytes(encode_identity(replace(identity, machine="another")))
    second.start()
    status = wait_for("n2 to say what it is", second.status)
    assert status.role == cluster_pb2.ROLE_QUARANTINED
    (alarm,) = status.alarms
    assert "belongs to machine 'another'" in alarm
    assert (
        "`sudo raftberry invite` on a member, and here the line that it prints with --discard-data" in alarm
    )
    joined = second.join(first, first.invite(), "--discard-data")
    assert joined.returncode == 0, f"{joined.stderr}\n{second.log[-3000:]}"
    assert second.is_voter_of(2)


def test_a_join_goes_on_after_the_process_was_killed_on_the_way(
    make_secured: Callable[[int], SecuredCluster],
) -> None:
    first, second = started(make_secured(2))
    invite = first.invite()
    first.kill()
    began = second.command(
        *(
            "join",
            first.client_address,
            invite,
            "--advertise",
            "127.0.0.1",
            "--wait",
            "1s",
            "--timeout",
            "60s",
        )
    )
    assert began.returncode == 1
    assert "goes on by itself" in began.stderr
    intent = second.data / SECURITY_DIRECTORY / JOIN_FILE
    assert intent.exists()
    second.kill()
    second.start()
    first.start()
    wait_for("n2 to be a voter", lambda: second.is_voter_of(2), timeout_s=90)
    assert not intent.exists()


def test_a_mistyped_port_is_corrected_by_the_right_line_and_join_alone_watches(
    make_secured: Callable[[int], SecuredCluster],
) -> None:
    first, second = started(make_secured(2))
    invite = first.invite()
    advertised = ("--advertise", "127.0.0.1")
    nobody = second.command("join", "127.0.0.1:9", invite, *advertised, "--wait", "1s", "--timeout", "60s")
    assert nobody.returncode == 1
    assert "if that is the wrong place, give the right line now" in nobody.stderr
    status = wait_for("n2 to say what it does", second.status)
    assert status.alarms[0] == "joining the cluster of 127.0.0.1:9; `raftberry join` shows how far it is"
    watched = second.command("join", "--wait", "1s")
    assert watched.returncode == 1
    assert "127.0.0.1:9" in watched.stderr
    joined = second.join(first, invite)
    assert joined.returncode == 0, joined.stderr
    assert second.is_voter_of(2)
    idle = second.command("join")
    assert idle.returncode == 5
    assert "this node is not joining a cluster" in idle.stderr


def test_an_invite_of_another_cluster_is_noticed_before_anything_is_said(
    make_secured: Callable[[int], SecuredCluster],
) -> None:
    first, second, other = started(make_secured(3))
    other.invite()
    refused = second.join(other, first.invite())
    assert refused.returncode == 5
    assert "fingerprint" in refused.stderr
    second.wait_serving(timeout_s=60)
