"""The methods that the command line calls, with their types. Data only.

Used instead of the generated stubs, which carry no annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from raftberry.v1 import (
    access_pb2,
    cluster_pb2,
    join_pb2,
    key_value_pb2,
    local_pb2,
    maintenance_pb2,
    policy_pb2,
    reading_pb2,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_READS: Final = ("Get", "List", "Query", "Watch", "Verify", "Backup")
"""What the names of methods that only read begin with."""


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """A method of raftberry.v1: `Service/Name`, what it takes and gives."""

    name: str
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        return f"/raftberry.v1.{self.name}"

    @property
    def is_read(self) -> bool:
        """Whether nothing is changed by it, whatever becomes of the call."""
        return self.name.partition("/")[2].startswith(_READS)


WRITE: Final = Method("ReadingService/Write", reading_pb2.WriteRequest, reading_pb2.WriteResponse)
STREAM_WRITE: Final = Method(
    "ReadingService/StreamWrite", reading_pb2.StreamWriteRequest, reading_pb2.StreamWriteResponse
)
GET_LATEST: Final = Method(
    "ReadingService/GetLatest", reading_pb2.GetLatestRequest, reading_pb2.GetLatestResponse
)
QUERY: Final = Method("ReadingService/Query", reading_pb2.QueryRequest, reading_pb2.QueryResponse)
WATCH: Final = Method("ReadingService/Watch", reading_pb2.WatchRequest, reading_pb2.WatchResponse)
LIST_SERIES: Final = Method(
    "ReadingService/ListSeries", reading_pb2.ListSeriesRequest, reading_pb2.ListSeriesResponse
)
SET_SERIES: Final = Method(
    "ReadingService/SetSeries", reading_pb2.SetSeriesRequest, reading_pb2.SetSeriesResponse
)
DELETE_SERIES: Final = Method(
    "ReadingService/DeleteSeries", reading_pb2.DeleteSeriesRequest, reading_pb2.DeleteSeriesResponse
)
GET_PRODUCER: Final = Method(
    "ReadingService/GetProducer", reading_pb2.GetProducerRequest, reading_pb2.GetProducerResponse
)

PUT: Final = Method("KeyValueService/Put", key_value_pb2.PutRequest, key_value_pb2.PutResponse)
GET: Final = Method("KeyValueService/Get", key_value_pb2.GetRequest, key_value_pb2.GetResponse)
DELETE: Final = Method("KeyValueService/Delete", key_value_pb2.DeleteRequest, key_value_pb2.DeleteResponse)
LIST: Final = Method("KeyValueService/List", key_value_pb2.ListRequest, key_value_pb2.ListResponse)
WATCH_KEYS: Final = Method(
    "KeyValueService/Watch",
    key_value_pb2.KeyValueServiceWatchRequest,
    key_value_pb2.KeyValueServiceWatchResponse,
)

GET_STATUS: Final = Method(
    "ClusterService/GetStatus", cluster_pb2.GetStatusRequest, cluster_pb2.GetStatusResponse
)
LIST_MEMBERS: Final = Method(
    "ClusterService/ListMembers", cluster_pb2.ListMembersRequest, cluster_pb2.ListMembersResponse
)
TRANSFER_LEADERSHIP: Final = Method(
    "ClusterService/TransferLeadership",
    cluster_pb2.TransferLeadershipRequest,
    cluster_pb2.TransferLeadershipResponse,
)

ADD_MEMBER: Final = Method(
    "ClusterService/AddMember", cluster_pb2.AddMemberRequest, cluster_pb2.AddMemberResponse
)
REMOVE_MEMBER: Final = Method(
    "ClusterService/RemoveMember", cluster_pb2.RemoveMemberRequest, cluster_pb2.RemoveMemberResponse
)
PROMOTE_MEMBER: Final = Method(
    "ClusterService/PromoteMember", cluster_pb2.PromoteMemberRequest, cluster_pb2.PromoteMemberResponse
)
UPDATE_MEMBER: Final = Method(
    "ClusterService/UpdateMember", cluster_pb2.UpdateMemberRequest, cluster_pb2.UpdateMemberResponse
)

VERIFY: Final = Method(
    "MaintenanceService/Verify", maintenance_pb2.VerifyRequest, maintenance_pb2.VerifyResponse
)
BACKUP: Final = Method(
    "MaintenanceService/Backup", maintenance_pb2.BackupRequest, maintenance_pb2.BackupResponse
)

CREATE_TOKEN: Final = Method(
    "AccessService/CreateToken", access_pb2.CreateTokenRequest, access_pb2.CreateTokenResponse
)
LIST_TOKENS: Final = Method(
    "AccessService/ListTokens", access_pb2.ListTokensRequest, access_pb2.ListTokensResponse
)
REVOKE_TOKEN: Final = Method(
    "AccessService/RevokeToken", access_pb2.RevokeTokenRequest, access_pb2.RevokeTokenResponse
)
CREATE_INVITE: Final = Method(
    "AccessService/CreateInvite", access_pb2.CreateInviteRequest, access_pb2.CreateInviteResponse
)

OPEN: Final = Method("LocalService/Open", local_pb2.OpenRequest, local_pb2.OpenResponse)
START_JOIN: Final = Method("LocalService/StartJoin", local_pb2.StartJoinRequest, local_pb2.StartJoinResponse)
GET_JOIN: Final = Method("LocalService/GetJoin", local_pb2.GetJoinRequest, local_pb2.GetJoinResponse)

GET_AUTHORITY: Final = Method(
    "JoinService/GetAuthority", join_pb2.GetAuthorityRequest, join_pb2.GetAuthorityResponse
)

SET_POLICY: Final = Method(
    "PolicyService/SetPolicy", policy_pb2.SetPolicyRequest, policy_pb2.SetPolicyResponse
)
LIST_POLICIES: Final = Method(
    "PolicyService/ListPolicies", policy_pb2.ListPoliciesRequest, policy_pb2.ListPoliciesResponse
)
DELETE_POLICY: Final = Method(
    "PolicyService/DeletePolicy", policy_pb2.DeletePolicyRequest, policy_pb2.DeletePolicyResponse
)
