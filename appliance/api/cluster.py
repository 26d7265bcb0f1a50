"""raftberry.v1.ClusterService and MaintenanceService: the cluster and this node, for those who operate them.

Loop thread. Invariant: status is answered by any node in any state, without asking another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from appliance.api import convert, validate
from appliance.api.calls import (
    Context,
    Handlers,
    answer_by_ns,
    deadline_ns,
    live_stream,
    server_stream,
    unary,
)
from appliance.api.port import Node
from appliance.errors import ConditionFailed, InvalidArgument, NoLeader
from appliance.model import Configuration, Member
from appliance.state.membership import (
    AddLearner,
    Change,
    PromoteMember,
    RemoveMember,
    UpdateMember,
    find_member,
)
from raftberry.v1 import cluster_pb2, maintenance_pb2

CLUSTER: Final = cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name
MAINTENANCE: Final = maintenance_pb2.DESCRIPTOR.services_by_name["MaintenanceService"].full_name

EVENTS_PER_MESSAGE_MAX: Final = 512
"""Some 100 KB."""


class ClusterService:
    """One instance serves all calls."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> Handlers:
        return {
            "GetStatus": unary(self.GetStatus, cluster_pb2.GetStatusRequest),
            "ListMembers": unary(self.ListMembers, cluster_pb2.ListMembersRequest),
            "TransferLeadership": unary(self.TransferLeadership, cluster_pb2.TransferLeadershipRequest),
            "AddMember": unary(self.AddMember, cluster_pb2.AddMemberRequest),
            "RemoveMember": unary(self.RemoveMember, cluster_pb2.RemoveMemberRequest),
            "PromoteMember": unary(self.PromoteMember, cluster_pb2.PromoteMemberRequest),
            "UpdateMember": unary(self.UpdateMember, cluster_pb2.UpdateMemberRequest),
            "WatchEvents": live_stream(self.WatchEvents, cluster_pb2.WatchEventsRequest),
        }

    async def GetStatus(
        self, request: cluster_pb2.GetStatusRequest, context: Context
    ) -> cluster_pb2.GetStatusResponse:
        return convert.status_message(self._node.status())

    async def ListMembers(
        self, request: cluster_pb2.ListMembersRequest, context: Context
    ) -> cluster_pb2.ListMembersResponse:
        state = self._node.state
        peers = self._node.status().peers
        return cluster_pb2.ListMembersResponse(
            members=[
                convert.member_message(member, peers, own_name=self._node.name) for member in state.members()
            ],
            index=state.position.index,
            term=state.position.term,
            configuration_version=state.configuration.version,
        )

    async def AddMember(
        self, request: cluster_pb2.AddMemberRequest, context: Context
    ) -> cluster_pb2.AddMemberResponse:
        change = AddLearner(
            member_id=validate.member_id("member_id", request.member_id),
            name=validate.name("name", request.name),
            peer_address=validate.address("peer_address", request.peer_address),
            promote=not request.learner,
        )
        configuration = await self._change(change, context)
        member = configuration.member(change.member_id)
        assert member is not None
        status = self._node.status()
        return cluster_pb2.AddMemberResponse(
            member=convert.member_message(member, status.peers, own_name=self._node.name),
            cluster_id=status.cluster_id,
            configuration_version=configuration.version,
        )

    async def RemoveMember(
        self, request: cluster_pb2.RemoveMemberRequest, context: Context
    ) -> cluster_pb2.RemoveMemberResponse:
        member = self._find(request.member)
        configuration = await self._change(RemoveMember(member.member_id, force=request.force), context)
        return cluster_pb2.RemoveMemberResponse(configuration_version=configuration.version)

    async def PromoteMember(
        self, request: cluster_pb2.PromoteMemberRequest, context: Context
    ) -> cluster_pb2.PromoteMemberResponse:
        member = self._find(request.member)
        configuration = await self._change(PromoteMember(member.member_id), context)
        return cluster_pb2.PromoteMemberResponse(configuration_version=configuration.version)

    async def UpdateMember(
        self, request: cluster_pb2.UpdateMemberRequest, context: Context
    ) -> cluster_pb2.UpdateMemberResponse:
        peer_address = validate.address("peer_address", request.peer_address)
        member = self._find(request.member)
        configuration = await self._change(UpdateMember(member.member_id, peer_address), context)
        return cluster_pb2.UpdateMemberResponse(configuration_version=configuration.version)

    def _heir(self, text: str) -> str:
        """Refused before anybody is asked: the leader does not answer what it can't do."""
        member = self._find(text)
        if not member.is_voter:
            raise ConditionFailed(
                f"{member.name} is a learner and can't lead: nothing was changed; promote it first"
            )
        return member.name

    def _find(self, text: str) -> Member:
        if not text:
            raise InvalidArgument("member", "empty; give a member's name, number or id")
        configuration = self._node.configuration
        if not configuration.members:
            alarms = "; ".join(self._node.status().alarms)
            raise NoLeader(
                f"this node knows no members of a cluster: nothing was changed; {alarms or 'retry later'}"
            )
        return find_member(configuration, text)

    async def _change(self, change: Change, context: Context) -> Configuration:
        return await self._node.change_members(change, deadline_ns=answer_by_ns(context))

    async def TransferLeadership(
        self, request: cluster_pb2.TransferLeadershipRequest, context: Context
    ) -> cluster_pb2.TransferLeadershipResponse:
        target = self._heir(request.target) if request.target else ""
        leader, term = await self._node.transfer_leadership(target, deadline_ns=answer_by_ns(context))
        return cluster_pb2.TransferLeadershipResponse(leader=leader, term=term)

    async def WatchEvents(
        self, request: cluster_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[cluster_pb2.WatchEventsResponse]:
        subscription: Any = self._node.events()
        try:
            # The client learns that it is subscribed before the first event.
            await context.send_initial_metadata(())
            async for events in subscription:
                for start in range(0, len(events), EVENTS_PER_MESSAGE_MAX):
                    part = events[start : start + EVENTS_PER_MESSAGE_MAX]
                    yield cluster_pb2.WatchEventsResponse(
                        events=map(convert.event_message, part), missed_count=subscription.missed_count
                    )
        finally:
            await subscription.aclose()


class MaintenanceService:
    """One instance serves all calls."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> Handlers:
        return {
            "Checkpoint": unary(self.Checkpoint, maintenance_pb2.CheckpointRequest),
            "Verify": unary(self.Verify, maintenance_pb2.VerifyRequest),
            "Backup": server_stream(self.Backup, maintenance_pb2.BackupRequest),
        }

    async def Checkpoint(
        self, request: maintenance_pb2.CheckpointRequest, context: Context
    ) -> maintenance_pb2.CheckpointResponse:
        position = await self._node.checkpoint()
        return maintenance_pb2.CheckpointResponse(index=position.index, term=position.term)

    async def Verify(
        self, request: maintenance_pb2.VerifyRequest, context: Context
    ) -> maintenance_pb2.VerifyResponse:
        if request.local:
            position, digest = await self._node.state_hash()
            return maintenance_pb2.VerifyResponse(index=position.index, term=position.term, hash=digest)
        compared = await self._node.verify(deadline_ns=deadline_ns(context))
        return maintenance_pb2.VerifyResponse(
            index=compared.position.index,
            term=compared.position.term,
            hash=compared.own,
            members=[maintenance_pb2.MemberHash(name=name, hash=digest) for name, digest in compared.hashes],
            equal=compared.is_equal,
        )

    async def Backup(
        self, request: maintenance_pb2.BackupRequest, context: Context
    ) -> AsyncIterator[maintenance_pb2.BackupResponse]:
        backup = await self._node.backup(request.consistency, deadline_ns=deadline_ns(context))
        try:
            async for pieces in backup:
                for data in pieces:
                    yield maintenance_pb2.BackupResponse(data=data)
        finally:
            await backup.aclose()
