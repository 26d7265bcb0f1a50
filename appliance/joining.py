"""Leaving a cluster of one to join another: an intent on disk, and steps that may each be cut off and done again.

    1. the intent is written (DATA/security/JOIN): from here on the node only joins, at this start and at the next
       (or starts step 2 again with another host or invite: a line may be mistyped)
    2. the CA is fetched and compared with the invite's fingerprint; the invite proven; the answer is written into the
       intent. Refused for good: the intent is removed, the node is what it was, nothing of it was touched
    3. the node's data is given up, a new directory with the intent's member id made in its place, certificate and
       members written into it, the intent removed; the node starts as a learner

Invariant: data is given up only after the cluster has said yes, and the answer is on disk.
Called by app.py; loop thread.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from appliance.addresses import join_address, split_address
from appliance.api.local import JoinProgress
from appliance.client import joining as exchange
from appliance.client.authority import fetch_authority
from appliance.config import Config
from appliance.errors import CorruptData, DataDirectoryRefused, RaftberryError
from appliance.model import ClusterId, Configuration, Member, MemberId, hex_id
from appliance.node.tokens import parse_invite
from appliance.security.keyring import SECURITY_DIRECTORY, Authority, Keyring
from appliance.security.proof import JoinClaim, invite_public_key, sign_claim
from appliance.storage.directory import DataDirectory, discard
from appliance.storage.files import remove, sync_directory, write_file
from raftberry.v1 import join_pb2

log = logging.getLogger(__name__)

JOIN_FILE: Final = "JOIN"
PAUSE_S_MIN: Final = 0.5
PAUSE_S_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class Intent:
    """What must survive a power cut. answer: JoinResponse and CA, once the cluster has said yes."""

    host: str
    port: int
    invite: str
    member_id: int
    advertised_host: str
    key_pem: str
    request_der: str
    authority_pem: str = ""
    answer: str = ""
    old_member_id: int = 0
    """Of a node that is rebuilt (rebuilding.py): it has no invite, but the old id's certificate."""

    cluster_id: int = 0
    peers: Sequence[tuple[int, str, str]] = ()
    """(member id, name, peer address) of those who can take it back."""

    def __repr__(self) -> str:
        return f"Intent({self.host}:{self.port}, {hex_id(self.member_id)})"

    @property
    def is_rebuild(self) -> bool:
        return bool(self.old_member_id)

    @property
    def endpoint(self) -> str:
        return join_address(self.host, self.port)

    def corrected(self, *, host: str, port: int, invite: str, advertised_host: str) -> Intent:
        """Another line was typed. The member id and the key stay: whoever took the node in already knows it by them."""
        return replace(
            self,
            host=host,
            port=port,
            invite=invite,
            advertised_host=advertised_host or self.advertised_host,
            authority_pem=self.authority_pem if invite == self.invite else "",
        )


def read_intent(data: Path) -> Intent | None:
    """What an earlier life began; DataDirectoryRefused."""
    path = data / SECURITY_DIRECTORY / JOIN_FILE
    if not path.exists():
        return None
    try:
        return Intent(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise DataDirectoryRefused(f"{path}: {error}; remove it, then join again") from error


def write_intent(data: Path, intent: Intent) -> None:
    folder = data / SECURITY_DIRECTORY
    if not folder.exists():
        folder.mkdir(mode=0o700)
        sync_directory(data)
    write_file(folder / JOIN_FILE, json.dumps(asdict(intent), sort_keys=True).encode())


def forget_intent(data: Path) -> None:
    remove(data / SECURITY_DIRECTORY / JOIN_FILE)


class Joiner:
    """Step 2, until the cluster has said yes or no."""

    def __init__(self, config: Config, intent: Intent, rng: random.Random) -> None:
        self._config, self._intent, self._rng = config, intent, rng
        self._endpoint = intent.endpoint
        self._is_replaced = False
        self.progress = JoinProgress(is_active=True, state=f"joining through {self._endpoint}")

    def give_way(self) -> None:
        """Another intent takes this one's place: nothing is written any more, whatever is still answered."""
        self._is_replaced = True

    async def run(self) -> str:
        """Empty once the answer is on disk, or another intent; else why there will be none, with the intent removed."""
        pause_s = PAUSE_S_MIN
        while not (self._intent.answer or self._is_replaced):
            try:
                await self._step()
            except RaftberryError as error:
                if self._is_replaced:
                    break
                if exchange.is_final(error):
                    log.error("did not join: %s", error)
                    forget_intent(self._config.data)
                    return str(error)
                if str(error) not in self.progress.state:
                    log.warning("not joined yet, trying on: %s", error)
                self.progress = replace(self.progress, state=f"trying on: {error}")
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
        if self._intent.answer:
            self.progress = replace(self.progress, state="accepted: replacing this node's data")
        return ""

    async def _step(self) -> None:
        """The CA, then the answer. What was learnt is written on the loop, where the intent is replaced too."""
        authority_pem = self._intent.authority_pem.encode()
        if not authority_pem:
            self._say(f"asking {self._endpoint} for its CA")
            fingerprint = parse_invite(self._intent.invite).fingerprint
            authority_pem = await asyncio.to_thread(fetch_authority, self._endpoint, fingerprint)
            self._keep(authority_pem=authority_pem.decode())
            return
        self._say(f"asking {self._endpoint} to be taken in as {self._config.node.name}")
        request = self._request(authority_pem)
        answer = await asyncio.to_thread(exchange.join, self._endpoint, authority_pem, request)
        self._keep(answer=base64.b64encode(answer.SerializeToString()).decode())

    def _request(self, authority_pem: bytes) -> join_pb2.JoinRequest:
        intent = self._intent
        invite = parse_invite(intent.invite)
        request_der = base64.b64decode(intent.request_der)
        claim = JoinClaim(
            fingerprint=Authority.parse(authority_pem).fingerprint,
            member_id=MemberId(intent.member_id),
            name=self._config.node.name,
            peer_address=self._peer_address(),
            request_der=request_der,
        )
        return join_pb2.JoinRequest(
            member_id=hex_id(intent.member_id),
            name=claim.name,
            peer_address=claim.peer_address,
            certificate_request=request_der,
            invite_public_key=invite_public_key(invite.secret),
            signature=sign_claim(invite.secret, claim),
        )

    def _peer_address(self) -> str:
        listening = self._config.listening(self._intent.advertised_host)
        return listening.advertised_peer_address

    def _keep(self, **changes: Any) -> None:
        if self._is_replaced:
            return
        self._intent = replace(self._intent, **changes)
        write_intent(self._config.data, self._intent)

    def _say(self, state: str) -> None:
        self.progress = replace(self.progress, state=state)
        log.info("%s", state)


def complete(config: Config, intent: Intent, machine_id: str) -> None:
    """Step 3. Everything in it may be done again after a power cut; the intent goes last."""
    assert intent.answer
    answer = join_pb2.JoinResponse.FromString(base64.b64decode(intent.answer))
    cluster_id = ClusterId(int(answer.cluster_id, 16))
    members = tuple(
        Member(MemberId(int(one.member_id, 16)), one.name, one.number, one.peer_address, one.voter)
        for one in sorted(answer.members, key=lambda one: int(one.member_id, 16))
    )
    if not _is_new_life(config, intent, machine_id):
        discard(config.data)
    with _open(config, intent, machine_id) as directory:
        directory.join(cluster_id, Configuration(answer.members_version, members))
    keyring = Keyring(config.data)
    authority = Authority.parse(intent.authority_pem.encode()) if intent.authority_pem else keyring.authority
    if answer.certificate_pem and authority is not None:
        keyring.install(authority, intent.key_pem.encode(), answer.certificate_pem)
        keyring.open_door(intent.advertised_host)
    forget_intent(config.data)
    log.info("joined cluster=%s member=%s", answer.cluster_id, hex_id(intent.member_id))


def _is_new_life(config: Config, intent: Intent, machine_id: str) -> bool:
    """The directory in the old one's place is made already: a power cut came after that."""
    try:
        with _open(config, intent, machine_id) as directory:
            return directory.identity.member_id == intent.member_id
    except (DataDirectoryRefused, CorruptData):
        # Damaged, quarantined, another name: it is given up anyway.
        return False


def _open(config: Config, intent: Intent, machine_id: str) -> DataDirectory:
    return DataDirectory.open(
        config.data,
        name=config.node.name,
        machine_id=machine_id,
        founders=sorted(config.founders),
        draw_member_id=lambda: intent.member_id,
    )


def endpoint_of(host: str, default_port: int) -> tuple[str, int]:
    """(host, port) of HOST, HOST:PORT or [IPV6]:PORT; ConfigurationError."""
    is_bare = ":" not in host or (host.count(":") > 1 and not host.startswith("["))
    return split_address(join_address(host, default_port) if is_bare else host, what="HOST")
