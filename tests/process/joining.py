"""Membership as an operator changes it: by the real command and calls, and a directory that joins."""

from __future__ import annotations

from pathlib import Path

from appliance.host.machine import machine_id
from appliance.model import ClusterId, Configuration, Member, MemberId
from appliance.storage.directory import DataDirectory
from raftberry.v1 import cluster_pb2, cluster_pb2_grpc
from tests.process.nodes import Cluster, Node, wait_for

CALL_TIMEOUT_S = 60.0


def stub_of(node: Node) -> cluster_pb2_grpc.ClusterServiceStub:
    return cluster_pb2_grpc.ClusterServiceStub(node.channel)


def join(cluster: Cluster, through: Node, name: str, data: Path) -> Node:
    """Add a node and start it: what `raftberry join` does where there are certificates."""
    node = Node(name=name, data=data)
    with open_directory(node, draw=int.from_bytes(name.encode().rjust(8, b"#")[-8:], "big")) as directory:
        member_id = directory.identity.member_id
        request = cluster_pb2.AddMemberRequest(
            name=name, member_id=f"{member_id:016x}", peer_address=node.peer_address
        )
        added = stub_of(through).AddMember(request, timeout=CALL_TIMEOUT_S)
        listed = wait_for("the new member in the list", lambda: _listed(through, added.configuration_version))
        configuration = Configuration(listed.configuration_version, tuple(map(_member, listed.members)))
        directory.join(ClusterId(int(added.cluster_id, 16)), configuration)
    cluster.nodes.append(node)
    node.start()
    return node


def open_directory(node: Node, *, draw: int) -> DataDirectory:
    return DataDirectory.open(
        node.data, name=node.name, machine_id=machine_id(), founders=[node.name], draw_member_id=lambda: draw
    )


def remove(through: Node, name: str, *, force: bool = False) -> None:
    request = cluster_pb2.RemoveMemberRequest(member=name, force=force)
    stub_of(through).RemoveMember(request, timeout=CALL_TIMEOUT_S)


def wait_voter(cluster: Cluster, name: str) -> None:
    """Until the leader counts it."""

    def is_voter() -> bool:
        status = cluster.leader().status()
        return status is not None and any(peer.name == name and peer.voter for peer in status.peers)

    wait_for(f"{name} to vote", is_voter, timeout_s=120)


def wait_role(node: Node, role: cluster_pb2.Role) -> cluster_pb2.GetStatusResponse:
    def has_role() -> cluster_pb2.GetStatusResponse | None:
        status = node.status()
        return status if status is not None and status.role == role else None

    return wait_for(f"{node.name} to be {cluster_pb2.Role.Name(role)}", has_role, timeout_s=120)


def _listed(through: Node, version: int) -> cluster_pb2.ListMembersResponse | None:
    response: cluster_pb2.ListMembersResponse = stub_of(through).ListMembers(
        cluster_pb2.ListMembersRequest(), timeout=CALL_TIMEOUT_S
    )
    return response if response.configuration_version >= version else None


def _member(peer: cluster_pb2.Peer) -> Member:
    return Member(MemberId(int(peer.member_id, 16)), peer.name, peer.number, peer.peer_address, peer.voter)
