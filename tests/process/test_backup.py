"""backup, restore and verify: the real commands on real nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from raftberry.v1 import key_value_pb2
from tests.process.client import RotatingClient, readings_of
from tests.process.nodes import READY_TIMEOUT_S, ROOT, Cluster, Node, wait_for
from tests.process.writers import FIRST_TIME, TimedWriter


def run_command(*arguments: str, status: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "generated")])}
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=READY_TIMEOUT_S,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def raftberry(*arguments: str, status: int = 0) -> dict[str, object]:
    """The one row of a command, or its error."""
    done = run_command(*arguments, status=status)
    row: dict[str, object] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return row


def raftberry_rows(*arguments: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(run_command(*arguments, status=0).stdout)
    return rows


def test_a_backup_under_load_becomes_a_new_cluster_with_all_that_was_acknowledged(
    cluster: Cluster, tmp_path: Path
) -> None:
    writer = TimedWriter("timed", cluster.endpoints, first=0)
    writer.start()
    wait_for("some writes", lambda: writer.acknowledged >= 200)
    acknowledged = writer.acknowledged
    file = tmp_path / "cluster.backup"
    follower = cluster.followers()[0]
    made = raftberry("backup", str(file), "-e", follower.client_address, "-o", "json")
    assert made["series"] == 1
    wait_for("writes that go on", lambda: writer.acknowledged > acknowledged + 100)
    writer.stop()

    data = tmp_path / "restored"
    assert raftberry("restore", str(file), "--check", "-o", "json")["index"] == made["index"]
    refused = raftberry("restore", str(file), "--data", str(cluster.nodes[0].data), "--name", "n1", status=1)
    assert "is not empty" in str(refused["error"])
    row = raftberry("restore", str(file), "--data", str(data), "--name", "n9", "-o", "json")
    assert row["index"] == made["index"]
    assert int(str(row["readings"])) >= acknowledged

    single = Node(name="n9", data=data)
    single.initial_members = f"n9={single.peer_address}"
    single.start()
    try:
        single.wait_serving()
        held = readings_of(single.channel, "faults", "timed", is_local=False)
        count = int(str(row["readings"]))
        assert held == [(FIRST_TIME + number, float(number)) for number in range(1, count + 1)]
        client = RotatingClient([single.client_address])
        client.put(key_value_pb2.PutRequest(key="after", value=b"1"), end=float("inf"))
        client.close()
        status = single.status(timeout_s=READY_TIMEOUT_S)
        assert status is not None
        assert status.cluster_id == row["cluster_id"] != made["cluster_id"]
    finally:
        single.kill()


def test_verify_compares_all_nodes_at_one_index(cluster: Cluster) -> None:
    client = RotatingClient(cluster.endpoints)
    client.put(key_value_pb2.PutRequest(key="k", value=b"1"), end=float("inf"))
    client.close()
    rows = raftberry_rows("verify", "-e", cluster.endpoints[1], "-o", "json")
    assert [row["name"] for row in rows] == ["n1", "n2", "n3"]
    assert len({(row["index"], row["hash"]) for row in rows}) == 1
    assert rows[0]["hash"]
