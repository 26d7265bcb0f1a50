"""Asking a member for the CA's key, over mutual TLS: once in the life of a node that joined."""

from __future__ import annotations

import asyncio
import logging

import grpc.aio
from google.protobuf.message import DecodeError

from appliance.peers.credentials import PeerCredentials
from appliance.peers.wire import FETCH_AUTHORITY, PeerAddress, PeerOptions, open_channel
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 5.0


async def fetch_authority(peer: PeerAddress, credentials: PeerCredentials) -> bytes:
    """The CA with its key as PEM; empty while that member does not give it."""
    try:
        async with (
            asyncio.timeout(ANSWER_TIMEOUT_S),
            await open_channel(peer.address, PeerOptions(), credentials, peer.member_id) as channel,
        ):
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(FETCH_AUTHORITY)
            data = await method(peer_pb2.FetchAuthorityRequest().SerializeToString())
            return peer_pb2.FetchAuthorityResponse.FromString(data).authority_pem
    except (grpc.aio.AioRpcError, OSError, DecodeError) as error:
        log.debug("no CA from a peer: peer=%s reason=%s", peer.name, error)
        return b""
