"""raftberry.v1.LocalService: served on the local socket only, for root and the service's group. Loop thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from appliance.api.calls import Context, Handlers, unary
from raftberry.v1 import local_pb2

SERVICE: Final = local_pb2.DESCRIPTOR.services_by_name["LocalService"].full_name


@dataclass(frozen=True, slots=True)
class JoinProgress:
    """state: for a person. failure: why the last join ended without a cluster."""

    is_active: bool = False
    state: str = ""
    failure: str = ""


class LocalDesk(Protocol):
    """What the machine's owner asks of this node."""

    async def open_door(self, host: str) -> tuple[str, bool]:
        """(host by which others know this node, whether it was open already). The node listens anew if not."""

    async def start_join(self, host: str, invite: str, advertised_host: str, *, is_discarding: bool) -> None:
        """Durable on return; the node restarts its serving part and joins."""

    def join_progress(self) -> JoinProgress: ...


class LocalService:
    """One instance serves all calls."""

    def __init__(self, desk: LocalDesk) -> None:
        self._desk = desk

    def handlers(self) -> Handlers:
        return {
            "Open": unary(self.Open, local_pb2.OpenRequest),
            "StartJoin": unary(self.StartJoin, local_pb2.StartJoinRequest),
            "GetJoin": unary(self.GetJoin, local_pb2.GetJoinRequest),
        }

    async def Open(self, request: local_pb2.OpenRequest, context: Context) -> local_pb2.OpenResponse:
        host, was_open = await self._desk.open_door(request.host)
        return local_pb2.OpenResponse(host=host, was_open=was_open)

    async def StartJoin(
        self, request: local_pb2.StartJoinRequest, context: Context
    ) -> local_pb2.StartJoinResponse:
        await self._desk.start_join(
            request.host, request.invite, request.advertised_host, is_discarding=request.discard_data
        )
        return local_pb2.StartJoinResponse()

    async def GetJoin(self, request: local_pb2.GetJoinRequest, context: Context) -> local_pb2.GetJoinResponse:
        progress = self._desk.join_progress()
        return local_pb2.GetJoinResponse(
            active=progress.is_active, state=progress.state, failure=progress.failure
        )
