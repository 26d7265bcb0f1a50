"""Invites made, and machines taken in: the cluster's side of a join.

Invariant: a machine becomes a member only after an entry of the log has used up its invite, so a replay on another
node fails; the same machine with the same key is given the same again, so a join that lost power goes on.
Called by the client API; loop thread.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from appliance.addresses import join_address, split_address
from appliance.api.join import Applicant, Welcome, welcome_message
from appliance.clock import system_clock
from appliance.config import DEFAULT_PORTS, Config
from appliance.errors import ConditionFailed, InvalidArgument, NotFound, RaftberryError
from appliance.model import MemberId, hex_id
from appliance.node.core import NodeCore
from appliance.node.runtime import Node
from appliance.node.tokens import SECRET_BYTES, Secret, format_invite
from appliance.peers.replacing import successor_of
from appliance.security.keyring import Authority
from appliance.security.proof import JoinClaim, check_claim, invite_public_key, key_of_request
from appliance.state.membership import (
    AddLearner,
    ReplaceMember,
    UpdateMember,
    next_configuration,
)
from appliance.trust import Trust
from raftberry.internal.v1 import command_pb2, peer_pb2
from raftberry.v1 import reading_pb2

log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
REPLACE_TIMEOUT_NS: Final = 10 * SECOND_NS


class Admission:
    """Of one node that takes part in a cluster."""

    def __init__(self, config: Config, core: NodeCore, node: Node, trust: Trust) -> None:
        self._config, self._core, self._node, self._trust = config, core, node, trust

    @property
    def authority_pem(self) -> bytes:
        return self._authority().pem

    async def invite(self, *, uses: int, ttl_seconds: int, deadline_ns: int) -> tuple[str, str, int]:
        if not self._trust.is_secured:
            raise ConditionFailed(
                "this cluster is not open to other machines: nothing was made; `sudo raftberry invite` on the node "
                "opens it, or security.insecure keeps it plaintext, and then nodes are named by --initial-members"
            )
        await self._tell_address(deadline_ns)
        seed = secrets.token_bytes(SECRET_BYTES)
        expires = system_clock.wall_ns() + ttl_seconds * SECOND_NS
        create = command_pb2.CreateInvite(
            public_key=invite_public_key(seed),
            ttl_nano=ttl_seconds * SECOND_NS,
            expires_unix_nano=expires,
            uses=uses,
        )
        await self._node.write(command_pb2.Operation(create_invite=create), deadline_ns=deadline_ns)
        text = format_invite(Secret(self._authority().fingerprint, seed))
        return text, self._client_host(), expires

    async def admit(self, applicant: Applicant, *, deadline_ns: int) -> Welcome:
        authority = self._authority()
        if authority.key is None:
            raise ConditionFailed(
                "this node has joined just now and can't take others in yet; ask another member"
            )
        claim = JoinClaim(
            fingerprint=authority.fingerprint,
            member_id=applicant.member_id,
            name=applicant.name,
            peer_address=applicant.peer_address,
            request_der=applicant.request_der,
        )
        check_claim(applicant.invite_public_key, claim, applicant.signature)
        key_of_request(applicant.request_der)
        host = _host_of(applicant.peer_address)
        await self._node.read_barrier(reading_pb2.CONSISTENCY_LINEARIZABLE, deadline_ns=deadline_ns)
        state = self._node.state
        invite = state.access.find_invite(applicant.invite_public_key, elapsed_ns=state.elapsed_ns)
        if system_clock.wall_ns() >= invite.expires_unix_nano:
            raise ConditionFailed(
                "the time of this invite is over: nothing was changed; make another with `sudo raftberry invite`"
            )
        # What is refused anyway must not use the invite up.
        change = AddLearner(applicant.member_id, applicant.name, applicant.peer_address)
        next_configuration(self._node.configuration, change)
        consume = command_pb2.ConsumeInvite(
            public_key=applicant.invite_public_key,
            member_id=applicant.member_id,
            request_hash=claim.request_hash,
        )
        await self._node.write(command_pb2.Operation(consume_invite=consume), deadline_ns=deadline_ns)
        configuration = await self._node.change_members(change, deadline_ns=deadline_ns)
        certificate = self._certificate(applicant.request_der, applicant.member_id, applicant.name, host)
        return Welcome(certificate, self._core.me.cluster_id, configuration)

    async def replace(self, request: peer_pb2.ReplaceRequest) -> peer_pb2.ReplaceResponse:
        """Takes a member that gave its data up back, with another id. Its certificate was checked by the peer port."""
        old = MemberId(request.member_id)
        successor = successor_of(old, request.certificate_request)
        change = ReplaceMember(old, successor, request.peer_address)
        try:
            if request.cluster_id != self._core.me.cluster_id:
                raise ConditionFailed("it is of another cluster")
            host = _host_of(request.peer_address)
            deadline_ns = system_clock.monotonic_ns() + REPLACE_TIMEOUT_NS
            configuration = await self._node.change_members(change, deadline_ns=deadline_ns)
            certificate = b""
            if self._trust.is_secured:
                name = next(one.name for one in configuration.members if one.member_id == successor)
                certificate = self._certificate(request.certificate_request, successor, name, host)
        except (ConditionFailed, NotFound, InvalidArgument) as error:
            is_final = not isinstance(error, ConditionFailed)
            return peer_pb2.ReplaceResponse(refusal=str(error), final=is_final)
        except RaftberryError as error:
            return peer_pb2.ReplaceResponse(refusal=str(error))
        log.warning("took a member back that gave its data up: old=%s new=%s", hex_id(old), hex_id(successor))
        welcome = Welcome(certificate, self._core.me.cluster_id, configuration)
        return peer_pb2.ReplaceResponse(welcome=welcome_message(welcome).SerializeToString())

    def _certificate(self, request_der: bytes, member_id: MemberId, name: str, host: str) -> bytes:
        return self._trust.keyring.sign_request(
            request_der,
            cluster_id=self._core.me.cluster_id,
            member_id=member_id,
            name=name,
            hosts=sorted({"localhost", "127.0.0.1", host}),
            wall_ns=system_clock.wall_ns(),
        )

    async def _tell_address(self, deadline_ns: int) -> None:
        """A cluster that was one node on loopback has that address in its configuration: newcomers need another."""
        own = self._node.configuration.member(self._core.me.member_id)
        address = self._config.advertised_peer_address
        if own is not None and own.peer_address != address:
            await self._node.change_members(UpdateMember(own.member_id, address), deadline_ns=deadline_ns)

    def _authority(self) -> Authority:
        authority = self._trust.keyring.authority
        if authority is None or not self._trust.is_secured:
            raise ConditionFailed("this cluster is plaintext and has no CA: nobody can join it by an invite")
        return authority

    def _client_host(self) -> str:
        """For `raftberry join HOST`: without the port where it is the usual one."""
        host, _ = split_address(self._config.advertised_peer_address, what="peer.advertise")
        _, port = split_address(self._config.client.address, what="client.address")
        return host if port == DEFAULT_PORTS["client"] else join_address(host, port)


def _host_of(peer_address: str) -> str:
    host, separator, port = peer_address.rpartition(":")
    if not separator or not host or not port.isdecimal():
        raise InvalidArgument("peer_address", f"{peer_address!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]")
