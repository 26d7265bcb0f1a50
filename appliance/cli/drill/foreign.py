"""A cluster in use, as a drill sees it: its names, and nothing that could be done to it.

Invariant: no method here touches a node; what a drill may do there goes through the API that every operator has.
"""

from __future__ import annotations

from appliance.cli.drill.faults import Links
from appliance.client.connection import Connection
from appliance.client.methods import GET_STATUS
from appliance.errors import NoLeader, RaftberryError
from raftberry.v1 import cluster_pb2


class ForeignCluster:
    """The nodes behind the endpoints that the operator named."""

    def __init__(self, connection: Connection) -> None:
        """Raises NoLeader if it takes no writes, or cannot hand over."""
        self._names: list[str] = []
        problems = []
        for endpoint in connection.endpoints:
            request = cluster_pb2.GetStatusRequest()
            try:
                status = connection.call_at(endpoint, GET_STATUS, request, timeout_s=connection.timeout_s)
            except RaftberryError as error:
                problems.append(str(error))
                continue
            if not status.has_quorum:
                problems.append(f"{endpoint}: no quorum")
            elif not any(peer.connected for peer in status.peers):
                problems.append(f"{endpoint}: no other node is there to take over")
            self._names.append(status.name)
        if problems:
            raise NoLeader(f"nothing was measured or written: {'; '.join(problems)}")

    @property
    def names(self) -> list[str]:
        return self._names

    def check(self) -> None:
        """Its operator watches over it."""

    def _refuse(self, *_: object) -> None:
        raise AssertionError("a drill does nothing to the nodes of a cluster in use")

    kill = restart = freeze = thaw = stall_disk = _refuse

    @property
    def links(self) -> Links:
        raise AssertionError("a drill does nothing to the links of a cluster in use")
