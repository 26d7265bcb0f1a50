"""The joining machine's call, over TLS checked against the CA that its invite names. Blocks: run it in a thread."""

from __future__ import annotations

from typing import Final

import grpc

from appliance.client import failures
from appliance.client.authority import WrongAuthority
from appliance.client.credentials import ClientCredentials
from appliance.errors import NoLeader, NotApplied, Overloaded, Quarantined, RaftberryError
from raftberry.v1 import join_pb2

ANSWER_TIMEOUT_S: Final = 20.0

_JOIN: Final = "/raftberry.v1.JoinService/Join"
_OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]


def join(endpoint: str, authority_pem: bytes, request: join_pb2.JoinRequest) -> join_pb2.JoinResponse:
    """Ask to be taken in; the same request may be sent again. The errors of appliance.errors."""
    with ClientCredentials(authority_pem=authority_pem).channel(endpoint, _OPTIONS) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_JOIN)
        try:
            answer = call(request.SerializeToString(), timeout=ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            raise failures.from_call(error, endpoint) from error
    return join_pb2.JoinResponse.FromString(answer)


def is_final(error: RaftberryError) -> bool:
    """Asking again would be answered in the same way."""
    if isinstance(error, WrongAuthority):
        return True
    return isinstance(error, NotApplied) and not isinstance(error, NoLeader | Overloaded | Quarantined)
