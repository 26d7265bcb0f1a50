"""raftberry.v1.AccessService: tokens made, shown, revoked.

Invariant: the text of a token leaves this process once, in the answer to who made it; what goes into the log is its
hash. Loop thread.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final, Protocol

from appliance import limits
from appliance.api import validate
from appliance.api.calls import Context, Handlers, deadline_ns, unary
from appliance.api.port import Node
from appliance.errors import ConditionFailed, InvalidArgument
from appliance.node.tokens import SECRET_BYTES, Secret, format_token, hash_token
from appliance.state.access import TokenRecord, token_message
from raftberry.internal.v1 import command_pb2
from raftberry.v1 import access_pb2, reading_pb2

SERVICE: Final = access_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name


INVITE_TTL_S: Final = 3_600
INVITE_TTL_S_MAX: Final = 7 * 86_400
"""Whoever finds the line in a shell's history next month has found nothing."""


class Inviter(Protocol):
    """Makes invites."""

    async def invite(self, *, uses: int, ttl_seconds: int, deadline_ns: int) -> tuple[str, str, int]:
        """(text, host of this node's client port, end in Unix nanoseconds). ConditionFailed if it is not open."""


class AccessService:
    """One instance serves all calls. fingerprint: of the cluster's CA, zeros where there is none."""

    def __init__(self, node: Node, fingerprint: bytes, inviter: Inviter | None = None) -> None:
        self._node, self._fingerprint, self._inviter = node, fingerprint, inviter

    def handlers(self) -> Handlers:
        return {
            "CreateToken": unary(self.CreateToken, access_pb2.CreateTokenRequest),
            "ListTokens": unary(self.ListTokens, access_pb2.ListTokensRequest),
            "RevokeToken": unary(self.RevokeToken, access_pb2.RevokeTokenRequest),
            "CreateInvite": unary(self.CreateInvite, access_pb2.CreateInviteRequest),
        }

    async def CreateToken(
        self, request: access_pb2.CreateTokenRequest, context: Context
    ) -> access_pb2.CreateTokenResponse:
        rights = request.rights
        text = format_token(Secret(self._fingerprint, secrets.token_bytes(SECRET_BYTES)))
        record = TokenRecord(
            name=validate.name("name", request.name),
            hash=hash_token(text),
            write=scopes("rights.write", rights.write),
            read=scopes("rights.read", rights.read),
            key_write=scopes("rights.key_write", rights.key_write),
            key_read=scopes("rights.key_read", rights.key_read),
            is_operator=rights.operator,
            requests_per_second=rights.requests_per_second,
            expires_unix_nano=rights.expires_unix_nano,
            created_unix_nano=time.time_ns(),
        )
        if not (record.write or record.read or record.key_write or record.key_read or record.is_operator):
            raise InvalidArgument(
                "rights",
                "none; a token that may do nothing is of no use: name at least one of write, read, key_write, "
                "key_read and operator",
            )
        operation = command_pb2.Operation(create_token=token_message(record))
        outcome = await self._node.write(operation, deadline_ns=deadline_ns(context))
        return access_pb2.CreateTokenResponse(token=text, index=outcome.index, term=outcome.term)

    async def ListTokens(
        self, request: access_pb2.ListTokensRequest, context: Context
    ) -> access_pb2.ListTokensResponse:
        await self._node.read_barrier(reading_pb2.CONSISTENCY_LINEARIZABLE, deadline_ns=deadline_ns(context))
        state = self._node.state
        return access_pb2.ListTokensResponse(
            tokens=[_token(record) for _, record in sorted(state.access.tokens.items())],
            index=state.position.index,
            term=state.position.term,
        )

    async def RevokeToken(
        self, request: access_pb2.RevokeTokenRequest, context: Context
    ) -> access_pb2.RevokeTokenResponse:
        revoke = command_pb2.RevokeToken(name=validate.name("name", request.name))
        operation = command_pb2.Operation(revoke_token=revoke)
        outcome = await self._node.write(operation, deadline_ns=deadline_ns(context))
        return access_pb2.RevokeTokenResponse(index=outcome.index, term=outcome.term)

    async def CreateInvite(
        self, request: access_pb2.CreateInviteRequest, context: Context
    ) -> access_pb2.CreateInviteResponse:
        uses, ttl_seconds = request.uses or 1, request.ttl_seconds or INVITE_TTL_S
        if uses > limits.INVITE_USES_MAX:
            raise InvalidArgument("uses", f"{uses} is above {limits.INVITE_USES_MAX}")
        if ttl_seconds > INVITE_TTL_S_MAX:
            raise InvalidArgument("ttl_seconds", f"{ttl_seconds} is above {INVITE_TTL_S_MAX}, a week")
        if self._inviter is None:
            raise ConditionFailed(
                "this node takes no part in a cluster now and can't invite; see `raftberry status`"
            )
        text, host, expires = await self._inviter.invite(
            uses=uses, ttl_seconds=ttl_seconds, deadline_ns=deadline_ns(context)
        )
        return access_pb2.CreateInviteResponse(invite=text, host=host, expires_unix_nano=expires)


def scopes(field: str, globs: Sequence[str]) -> tuple[str, ...]:
    """Globs of one kind; InvalidArgument."""
    if len(globs) > limits.SCOPES_MAX:
        raise InvalidArgument(field, f"{len(globs)} globs; a token has at most {limits.SCOPES_MAX} of a kind")
    return tuple(validate.scope(f"{field}[{place}]", glob) for place, glob in enumerate(globs))


def _token(record: TokenRecord) -> access_pb2.Token:
    return access_pb2.Token(
        name=record.name,
        rights=access_pb2.TokenRights(
            write=record.write,
            read=record.read,
            key_write=record.key_write,
            key_read=record.key_read,
            operator=record.is_operator,
            requests_per_second=record.requests_per_second,
            expires_unix_nano=record.expires_unix_nano,
        ),
        created_unix_nano=record.created_unix_nano,
    )
