"""Founding over the network: ask every founder, again and again, until the rule decides.

Invariant: nothing is decided here; each round's answers go to founding.decide_founding.
Runs on the loop, before consensus exists; the peer port must be served already, since the others ask us.
"""

from __future__ import annotations

import asyncio
import logging
import random

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from appliance.peers.credentials import PeerCredentials
from appliance.peers.founding import (
    Founder,
    FounderAnswer,
    Founding,
    FoundingDesk,
    decide_founding,
    decode_answer,
)
from appliance.peers.wire import FOUND, PeerOptions, open_channel
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 2.0
"""An address that swallows packets must not hold the round longer."""

ROUND_PAUSE_S = 0.25
"""Between two rounds: founders are started by hand, or boot within seconds of each other."""


async def found_cluster(
    own: Founder,
    desk: FoundingDesk,
    *,
    rng: random.Random,
    credentials: PeerCredentials | None = None,
    options: PeerOptions | None = None,
) -> Founding:
    """The cluster this node founds, or belongs to already; waits for the other founders without end.

    The caller makes it durable, then calls desk.joined. DataDirectoryRefused, ConfigurationError.
    """
    others = sorted(name for name in own.addresses if name != own.name)
    waiting_for: list[str] = []
    while True:
        asked = [_ask(own.addresses[name], desk, options or PeerOptions(), credentials) for name in others]
        results = await asyncio.gather(*asked)
        answers = {name: found for name, found in zip(others, results, strict=True) if found is not None}
        founding = decide_founding(own, answers)
        if founding is not None:
            return founding
        missing = [name for name in others if name not in answers]
        if missing != waiting_for:
            waiting_for = missing
            places = ", ".join(f"{name} at {own.addresses[name]}" for name in missing)
            log.info("founding the cluster: waiting for %s", places)
        await asyncio.sleep(ROUND_PAUSE_S * rng.uniform(0.5, 1.0))


async def _ask(
    address: str, desk: FoundingDesk, options: PeerOptions, credentials: PeerCredentials | None
) -> FounderAnswer | None:
    """One founder's answer; None while it does not give one."""
    try:
        async with (
            asyncio.timeout(ANSWER_TIMEOUT_S),
            await open_channel(address, options, credentials) as channel,
        ):
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(FOUND)
            data = await method(desk.request().SerializeToString())
            return decode_answer(peer_pb2.FoundResponse.FromString(data))
    except (grpc.aio.AioRpcError, OSError, DecodeError) as error:
        log.debug("no founding answer: address=%s reason=%s", address, error)
        return None
