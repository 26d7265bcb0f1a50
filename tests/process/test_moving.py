"""Boards that are replaced and addresses that change, under load, in real processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from raftberry.v1 import cluster_pb2
from tests.process.joining import join, remove, wait_role, wait_voter
from tests.process.nodes import Cluster, Node, free_port, wait_for
from tests.process.writers import check_all, start_writers, wait_more


def test_a_board_is_replaced_under_its_name_and_the_old_card_disturbs_nobody(
    cluster: Cluster, tmp_path: Path
) -> None:
    first, dead = cluster.nodes[0], cluster.nodes[2]
    writers, begun = start_writers(cluster.endpoints[:2]), time.monotonic()
    wait_more(writers, "before the board dies")
    old_id = next(peer.member_id for peer in status_of(first).peers if peer.name == "n3")
    dead.kill()
    remove(first, "n3")
    cluster.nodes.remove(dead)
    new = join(cluster, first, "n3", tmp_path / "new-card" / "n3")
    wait_voter(cluster, "n3")
    wait_more(writers, "with the new board")
    peers = {peer.name: peer.member_id for peer in status_of(first).peers}
    assert sorted(peers) == ["n1", "n2", "n3"]
    assert peers["n3"] != old_id
    # The old card in some other board: its id is out for ever, and its holder stands by.
    dead.start()
    wait_role(dead, cluster_pb2.ROLE_REMOVED)
    wait_more(writers, "with the old card back")
    assert new.is_running
    try:
        print(f"a board replaced under load: {check_all(cluster, writers, begun=begun)}")
    finally:
        cluster.nodes.append(dead)


def test_nodes_that_come_back_with_other_addresses_are_found_one_by_one_and_two_at_once(
    cluster: Cluster,
) -> None:
    first, second, third = cluster.nodes
    # Clients know three addresses, which stay: it is the peers' that change, as by DHCP.
    writers, begun = start_writers(cluster.endpoints), time.monotonic()
    wait_more(writers, "before")
    move([second])
    wait_found(cluster)
    wait_more(writers, "with one that moved")
    move([first, third])
    wait_found(cluster)
    wait_more(writers, "with two that moved at once")
    # They know each other: without the one that stayed they are a majority, and only then.
    second.kill()
    wait_more(writers, "without the one that stayed")
    second.start()
    cluster.wait_following(second)
    print(f"addresses changed under load: {check_all(cluster, writers, begun=begun)}")


def move(nodes: Sequence[Node]) -> None:
    for node in nodes:
        node.kill()
    for node in nodes:
        old, node.peer_address = node.peer_address, f"127.0.0.1:{free_port()}"
        # Its own configuration says where it is; that of the others still says where it was.
        node.initial_members = node.initial_members.replace(old, node.peer_address)
        node.start()


def wait_found(cluster: Cluster) -> None:
    """All are linked, and the configuration of each has the addresses of now."""
    addresses = {node.name: node.peer_address for node in cluster}

    def knows_all(node: Node) -> bool:
        status = node.status()
        return (
            status is not None and {p.name: p.peer_address for p in status.peers if p.connected} == addresses
        )

    for node in cluster:
        wait_for(f"{node.name} to know {addresses}", lambda node=node: knows_all(node))  # type: ignore[misc]


def status_of(node: Node) -> cluster_pb2.GetStatusResponse:
    return wait_for(f"the status of {node.name}", lambda: node.status(timeout_s=5))
