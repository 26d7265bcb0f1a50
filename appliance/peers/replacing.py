"""Asking a member to be taken back with another id: by a node that gives its data up, over mutual TLS if there is any.

Invariant: the successor's id is made of the old id and the certificate request, so that what a member grants to the
holder of a certificate, it grants to that holder's successor and to nobody else.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import struct
from typing import Final

import grpc.aio
from google.protobuf.message import DecodeError

from appliance.model import MemberId
from appliance.peers.credentials import PeerCredentials
from appliance.peers.wire import REPLACE, PeerAddress, PeerOptions, open_channel
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 15.0
"""A change of the membership is committed on every card meanwhile."""


def successor_of(member_id: MemberId, request_der: bytes) -> MemberId:
    """First 8 bytes of the SHA-256 over b"raftberry replace 1\\0", >Q the old id, the certificate request."""
    digest = hashlib.sha256(b"raftberry replace 1\0" + struct.pack(">Q", member_id) + request_der).digest()
    return MemberId(int.from_bytes(digest[:8], "big") or 1)


async def ask_replacement(
    peer: PeerAddress, credentials: PeerCredentials | None, request: peer_pb2.ReplaceRequest
) -> peer_pb2.ReplaceResponse:
    """The member's answer; one that can't be asked refuses, not for good."""
    member_id = peer.member_id if credentials is not None else None
    try:
        async with (
            asyncio.timeout(ANSWER_TIMEOUT_S),
            await open_channel(peer.address, PeerOptions(), credentials, member_id) as channel,
        ):
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(REPLACE)
            return peer_pb2.ReplaceResponse.FromString(await method(request.SerializeToString()))
    except (grpc.aio.AioRpcError, OSError, DecodeError) as error:
        reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
        return peer_pb2.ReplaceResponse(refusal=f"{peer.name} at {peer.address}: {reason or 'no answer'}")
