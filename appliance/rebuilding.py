"""A node in doubt is rebuilt from its peers, without a person where a majority is healthy.

    1. the intent is written (DATA/security/JOIN), some time after the quarantine began
    2. the members are asked, one after the other, until one says yes: one entry of the log takes the old id out for
       ever and a new one in, as a learner
    3. the data is given up and the node starts anew, as after a join (joining.py)

Invariant: the data is given up only after the cluster has said yes, and it says yes only if those who remain have a
majority without this node; what this node alone held was never acknowledged.
Called by app.py; loop thread.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from dataclasses import replace
from typing import Final

from appliance.config import Config
from appliance.joining import Intent, forget_intent, write_intent
from appliance.model import ClusterId, Member, MemberId, hex_id
from appliance.peers.credentials import PeerCredentials
from appliance.peers.replacing import ask_replacement, successor_of
from appliance.peers.wire import PeerAddress
from appliance.security.keyring import Keyring
from appliance.security.proof import make_request
from appliance.storage.identity import Identity
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 60.0


def rebuild_intent(identity: Identity, advertised_host: str) -> Intent:
    """What the node will ask for, and go on asking after a power cut."""
    key_pem, request_der = make_request()
    return Intent(
        host="",
        port=0,
        invite="",
        member_id=successor_of(identity.member_id, request_der),
        advertised_host=advertised_host,
        key_pem=key_pem.decode(),
        request_der=base64.b64encode(request_der).decode(),
        old_member_id=identity.member_id,
        cluster_id=identity.cluster_id,
        peers=[(one.member_id, one.name, one.peer_address) for one in _others(identity)],
    )


class Rebuilder:
    """Step 2, until a member has said yes, or all say that they never will."""

    def __init__(self, config: Config, intent: Intent, rng: random.Random) -> None:
        """config: with its addresses settled."""
        self._config, self._intent, self._rng = config, intent, rng
        self._keyring = Keyring(config.data)
        self._credentials = (
            PeerCredentials(lambda: self._keyring.material, ClusterId(intent.cluster_id))
            if self._keyring.has_material and intent.advertised_host
            else None
        )

    async def run(self) -> str:
        """Empty once the answer is on disk; otherwise why there will be none, with the intent removed."""
        pause_s, told = PAUSE_S_MIN, ""
        while True:
            refusals = await self._ask_all()
            if not refusals:
                return ""
            reason = "; ".join(refusal.refusal for refusal in refusals)
            if all(refusal.final for refusal in refusals):
                log.error("not rebuilt: %s", reason)
                forget_intent(self._config.data)
                return reason
            if reason != told:
                told = reason
                log.warning("not rebuilt yet, asking on: %s", reason)
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _ask_all(self) -> list[peer_pb2.ReplaceResponse]:
        """What the members refused with; empty: one said yes, and it is on disk."""
        intent = self._intent
        request = peer_pb2.ReplaceRequest(
            cluster_id=intent.cluster_id,
            member_id=intent.old_member_id,
            certificate_request=base64.b64decode(intent.request_der),
            peer_address=self._config.advertised_peer_address,
        )
        refusals = []
        for member_id, name, address in intent.peers:
            peer = PeerAddress(MemberId(member_id), name, address)
            response = await ask_replacement(peer, self._credentials, request)
            if response.welcome:
                self._intent = replace(intent, answer=base64.b64encode(response.welcome).decode())
                write_intent(self._config.data, self._intent)
                log.info("taken back as member=%s by=%s", hex_id(intent.member_id), name)
                return []
            refusals.append(response)
        return refusals


def _others(identity: Identity) -> list[Member]:
    return [member for member in identity.members if member.member_id != identity.member_id]
