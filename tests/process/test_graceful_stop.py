"""A node that is asked to stop hands leadership over, writes its checkpoint and closes its ports."""

from __future__ import annotations

import itertools
import socket
import threading
import time

from raftberry.v1 import key_value_pb2
from tests.process.client import RotatingClient, key_of
from tests.process.nodes import Cluster


def test_a_stopped_leader_hands_over_first_and_writes_go_on(cluster: Cluster) -> None:
    leader = cluster.leader()
    others = [node.client_address for node in cluster if node is not leader]
    term = leader.status(timeout_s=60)
    assert term is not None
    moments: list[float] = []
    stopping = threading.Event()

    def write() -> None:
        client = RotatingClient(others)
        while not stopping.is_set():
            client.put(key_value_pb2.PutRequest(key="beat", value=b"1"), end=time.monotonic() + 20)
            moments.append(time.monotonic())
        client.close()

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    assert leader.terminate(timeout_s=60) == 0
    time.sleep(0.5)
    stopping.set()
    writer.join(90)

    after = cluster.leader()
    assert after is not leader
    status = after.status(timeout_s=60)
    assert status is not None
    assert status.term == term.term + 1
    assert "traceback" not in leader.log.lower()
    assert "handed leadership over" in leader.log
    longest = max(later - earlier for earlier, later in itertools.pairwise(moments))
    print(f"longest time without an acknowledgement while the leader stopped: {longest:.2f} s")


def test_a_stopped_node_closes_its_ports_and_comes_back_with_what_it_had(cluster: Cluster) -> None:
    client = RotatingClient(cluster.endpoints)
    client.put(key_value_pb2.PutRequest(key="kept", value=b"1"), end=time.monotonic() + 20)
    client.close()
    for node in cluster:
        assert node.terminate(timeout_s=60) == 0, node.log[-2000:]
        for address in (node.client_address, node.peer_address):
            host, _, port = address.rpartition(":")
            with socket.socket() as probe:
                assert probe.connect_ex((host, int(port))) != 0
    cluster.start()
    assert key_of(cluster.nodes[1].channel, "kept").value == b"1"
