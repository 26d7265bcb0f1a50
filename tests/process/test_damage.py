"""Promise 4: a node in doubt says what it found and does not vote; the other two serve."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import lmdb
import pytest

from raftberry.v1 import cluster_pb2, key_value_pb2, key_value_pb2_grpc
from tests.process.client import RotatingClient, key_of
from tests.process.nodes import Cluster, Node, wait_for

MARK = b"a value to be damaged: " + b"0123456789" * 20


def put(cluster: Cluster, key: str, value: bytes) -> None:
    client = RotatingClient(cluster.endpoints)
    client.put(key_value_pb2.PutRequest(key=key, value=value), end=time.monotonic() + 20)
    client.close()


def flip_mark_in_journal(node: Node) -> None:
    """Flips a bit of every copy of MARK in the journal's file (LMDB may keep older pages with it)."""
    path = next(node.data.glob("journal*/data.mdb"))
    content = bytearray(path.read_bytes())
    where = content.find(MARK)
    assert where >= 0, "the record is not in the journal's file"
    while where >= 0:
        content[where + len(MARK) // 2] ^= 0x04
        where = content.find(MARK, where + 1)
    path.write_bytes(content)


def cut_journal_short(node: Node) -> None:
    path = next(node.data.glob("journal*/data.mdb"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_store_short(node: Node) -> None:
    path = next(path for path in node.data.glob("store*/**/data.mdb"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip_bit_in_a_block(node: Node) -> None:
    """In the largest record of the store that is in use now, on the disk of a node that runs."""
    (path,) = node.data.glob("store.*")
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        record = max((value for _, value in transaction.cursor()), key=len)
    assert len(record) > 4_000, "no block was written"
    file = path / "data.mdb"
    where = file.read_bytes().find(record)
    assert where >= 0
    with file.open("r+b") as content:
        content.seek(where + len(record) // 2)
        (byte,) = content.read(1)
        content.seek(-1, os.SEEK_CUR)
        content.write(bytes([byte ^ 0x10]))


def is_out(node: Node) -> bool:
    """Whether the node took itself out: its process ended with an error, or it says it is quarantined."""
    if not node.is_running:
        return node.wait_exit() > 0
    status = node.status()
    return bool(status and status.role == cluster_pb2.ROLE_QUARANTINED and status.alarms)


def assert_does_not_vote(cluster: Cluster, doubtful: Node) -> None:
    """With one of the other two gone, the doubtful node and the last one must not make a majority."""
    other = next(node for node in cluster if node is not doubtful)
    last = next(node for node in cluster if node not in (doubtful, other))
    other.kill()
    stub = key_value_pb2_grpc.KeyValueServiceStub(last.channel)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Put(key_value_pb2.PutRequest(key="without-majority", value=b"1"), timeout=2)
        assert refusal.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    other.start()
    other.wait_serving()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_mark_in_journal, ("checksum", "journal")),
        (cut_journal_short, ("data.mdb", "journal")),
        (cut_store_short, ("data.mdb", "store")),
    ],
)
def test_a_damaged_node_says_so_and_does_not_vote_and_the_others_serve(
    cluster: Cluster, damage: Callable[[Node], None], words: tuple[str, ...]
) -> None:
    put(cluster, "before", b"1")
    put(cluster, "mark", MARK)
    node = cluster.followers()[0]
    cluster.wait_following(node)
    if damage is cut_store_short:
        node.request_checkpoint()
    node.kill()
    damage(node)
    said_before = len(node.log)
    node.start()
    wait_for("the node to take itself out", lambda: is_out(node), timeout_s=60)
    said = node.log[said_before:].lower()
    assert all(word in said for word in words), said
    assert "traceback" not in said

    put(cluster, "after", b"2")
    assert_does_not_vote(cluster, node)
    put(cluster, "at-last", b"3")
    assert key_of(cluster.leader().channel, "after").value == b"2"


def test_a_node_with_an_older_copy_of_its_directory_is_noticed_and_does_not_vote(
    cluster: Cluster, tmp_path: Path
) -> None:
    put(cluster, "before", b"1")
    node = cluster.followers()[0]
    assert node.terminate() == 0
    image = tmp_path / "image"
    shutil.copytree(node.data, image)
    node.start()
    node.wait_serving()
    for number in range(20):
        put(cluster, f"later/{number}", b"2")
    cluster.wait_following(node)
    node.kill()
    shutil.rmtree(node.data)
    shutil.copytree(image, node.data)
    node.start()
    wait_for("the node to take itself out", lambda: is_out(node), timeout_s=60)
    put(cluster, "after", b"3")
    node.kill()
    node.start()
    wait_for("the node to stay out after a restart", lambda: is_out(node), timeout_s=60)
    assert_does_not_vote(cluster, node)


def test_an_empty_directory_of_a_known_member_does_not_vote(cluster: Cluster) -> None:
    put(cluster, "before", b"1")
    node = cluster.followers()[0]
    node.kill()
    shutil.rmtree(node.data)
    node.start()

    def refuses() -> bool:
        status = node.status()
        return is_out(node) or bool(status and status.role == cluster_pb2.ROLE_FOUNDING and status.alarms)

    wait_for("the node to say that it is not what it was", refuses, timeout_s=60)
    put(cluster, "after", b"2")
    assert_does_not_vote(cluster, node)
