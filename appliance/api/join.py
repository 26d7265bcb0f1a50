"""raftberry.v1.JoinService: a machine asks to be taken in, and proves that it was invited.

Invariant: nothing is changed, and no time of the cluster taken, before the proof has been checked. Loop thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from appliance.api import validate
from appliance.api.calls import Context, Handlers, deadline_ns, unary
from appliance.errors import InvalidArgument
from appliance.model import ClusterId, Configuration, MemberId, hex_id
from raftberry.v1 import cluster_pb2, join_pb2

SERVICE: Final = join_pb2.DESCRIPTOR.services_by_name["JoinService"].full_name

REQUEST_BYTES_MAX: Final = 4_096
"""A certificate request of a P-256 key has some 200."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks, and the proof. request_der: its certificate request."""

    member_id: MemberId
    name: str
    peer_address: str
    request_der: bytes
    invite_public_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a new member needs to begin."""

    certificate_pem: bytes
    cluster_id: ClusterId
    configuration: Configuration


class Admission(Protocol):
    """Takes members in."""

    @property
    def authority_pem(self) -> bytes:
        """ConditionFailed in a cluster without a CA."""

    async def admit(self, applicant: Applicant, *, deadline_ns: int) -> Welcome: ...


class JoinService:
    """One instance serves all calls."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def handlers(self) -> Handlers:
        return {
            "GetAuthority": unary(self.GetAuthority, join_pb2.GetAuthorityRequest),
            "Join": unary(self.Join, join_pb2.JoinRequest),
        }

    async def GetAuthority(
        self, request: join_pb2.GetAuthorityRequest, context: Context
    ) -> join_pb2.GetAuthorityResponse:
        return join_pb2.GetAuthorityResponse(authority_pem=self._admission.authority_pem)

    async def Join(self, request: join_pb2.JoinRequest, context: Context) -> join_pb2.JoinResponse:
        if len(request.certificate_request) > REQUEST_BYTES_MAX:
            raise InvalidArgument("certificate_request", f"{len(request.certificate_request)} bytes are none")
        applicant = Applicant(
            member_id=_member_id(request.member_id),
            name=validate.name("name", request.name),
            peer_address=validate.name("peer_address", request.peer_address),
            request_der=request.certificate_request,
            invite_public_key=request.invite_public_key,
            signature=request.signature,
        )
        return welcome_message(await self._admission.admit(applicant, deadline_ns=deadline_ns(context)))


def welcome_message(welcome: Welcome) -> join_pb2.JoinResponse:
    return join_pb2.JoinResponse(
        certificate_pem=welcome.certificate_pem,
        cluster_id=hex_id(welcome.cluster_id),
        members_version=welcome.configuration.version,
        members=[
            cluster_pb2.Peer(
                name=member.name,
                member_id=hex_id(member.member_id),
                number=member.number,
                peer_address=member.peer_address,
                voter=member.is_voter,
            )
            for member in welcome.configuration.members
        ],
    )


def _member_id(text: str) -> MemberId:
    try:
        number = int(text, 16) if len(text) == 16 else 0
    except ValueError:
        number = 0
    if not 0 < number < 1 << 64:
        raise InvalidArgument("member_id", f"{text[:40]!r} is not 16 hexadecimal digits above 0")
    return MemberId(number)
