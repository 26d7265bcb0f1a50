"""Package api.v1: the sample that Raftberry grew from, so that its clients work unchanged.

Invariant: its one number lives in the replicated map under VALUE_KEY as 4 bytes, little-endian, so it has our
durability: Set answers ok after the commit. Loop thread.
"""

from __future__ import annotations

from typing import Final

from api.v1 import key_value_pb2, raft_pb2
from appliance.api.access import present_caller
from appliance.api.calls import Context, Handlers, deadline_ns, unary
from appliance.api.port import Node
from appliance.errors import ConditionFailed, NotApplied
from appliance.model import Member
from appliance.state.membership import RemoveMember
from appliance.state.operations import put_key
from raftberry.v1 import reading_pb2

KEY_VALUE: Final = key_value_pb2.DESCRIPTOR.services_by_name["KeyValueService"].full_name
RAFT: Final = raft_pb2.DESCRIPTOR.services_by_name["RaftService"].full_name

VALUE_KEY: Final = "api.v1/value"
_VALUE_BYTES: Final = 4


class KeyValueService:
    """The sample's key-value pair: one uint32, 0 before the first Set."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> Handlers:
        return {
            "Set": unary(self.Set, key_value_pb2.SetValueRequest),
            "Get": unary(self.Get, key_value_pb2.GetValueRequest),
        }

    async def Set(
        self, request: key_value_pb2.SetValueRequest, context: Context
    ) -> key_value_pb2.SetValueResponse:
        """ok=false says that nothing happened; an outcome that is not known is a gRPC error."""
        present_caller().check_key_write(VALUE_KEY)
        operation = put_key(VALUE_KEY, request.value.to_bytes(_VALUE_BYTES, "little"))
        try:
            outcome = await self._node.write(operation, deadline_ns=deadline_ns(context))
        except NotApplied as error:
            return key_value_pb2.SetValueResponse(ok=False, message=str(error))
        return key_value_pb2.SetValueResponse(ok=True, message=f"committed at index {outcome.index}")

    async def Get(
        self, request: key_value_pb2.GetValueRequest, context: Context
    ) -> key_value_pb2.GetValueResponse:
        present_caller().check_key_read(VALUE_KEY)
        await self._node.read_barrier(reading_pb2.CONSISTENCY_LINEARIZABLE, deadline_ns=deadline_ns(context))
        record = self._node.state.key(VALUE_KEY)
        if record is None:
            return key_value_pb2.GetValueResponse()
        if len(record.value) != _VALUE_BYTES:
            raise ConditionFailed(
                f"key {VALUE_KEY} holds {len(record.value)} bytes where api.v1 keeps its {_VALUE_BYTES}-byte "
                "number; delete the key, or Set the value again"
            )
        return key_value_pb2.GetValueResponse(value=int.from_bytes(record.value, "little"))


class RaftService:
    """The sample's membership calls. A member's number is its id here; it never comes back once it was removed."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> Handlers:
        return {
            "Add": unary(self.Add, raft_pb2.NodeRequest),
            "Remove": unary(self.Remove, raft_pb2.NodeRequest),
        }

    async def Add(self, request: raft_pb2.NodeRequest, context: Context) -> raft_pb2.NodeResponse:
        member = self._member(request.id)
        if member is not None:
            message = f"number {request.id} is {member.name} and already a member; `raftberry members` shows them all"
        else:
            message = (
                f"number {request.id} was not added: a number has neither an address nor an identity; on a member, run "
                "`raftberry invite`, and what it prints on the new node"
            )
        return raft_pb2.NodeResponse(ok=False, message=message)

    async def Remove(self, request: raft_pb2.NodeRequest, context: Context) -> raft_pb2.NodeResponse:
        """ok=false says that nothing was changed; an outcome that is not known is a gRPC error."""
        member = self._member(request.id)
        if member is None:
            message = f"no member has number {request.id}; `raftberry members` shows them all"
            return raft_pb2.NodeResponse(ok=False, message=message)
        try:
            configuration = await self._node.change_members(
                RemoveMember(member.member_id), deadline_ns=deadline_ns(context)
            )
        except NotApplied as error:
            return raft_pb2.NodeResponse(ok=False, message=str(error))
        message = f"removed {member.name}; {len(configuration.members)} members remain"
        return raft_pb2.NodeResponse(ok=True, message=message)

    def _member(self, number: int) -> Member | None:
        return next((member for member in self._node.configuration.members if member.number == number), None)
