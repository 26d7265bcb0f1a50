"""Who may do what, replicated: tokens by name, invites by public key.

Invariant: no secret is in here: of a token its hash, of an invite the public half of its key. An invite is used
up by an entry of the log, so that it counts on every node. Time comes from commands only: an invite ends by the
elapsed time of commands; what a wall clock says is judged where a request enters.
Loop thread only.

    table access: key b"t" and the token's name, or b"i" and the invite's public key
                  value: format 1, then an encoded TokenRecord or InviteRecord, deterministic
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError

from appliance.errors import (
    ConditionFailed,
    CorruptData,
    InvalidArgument,
    NotFound,
    Overloaded,
    WrittenByNewer,
)
from appliance.limits import INVITE_USES_MAX, INVITES_MAX, SCOPES_MAX, TOKENS_MAX
from appliance.model import MemberId
from appliance.state.names import check_name
from raftberry.internal.v1 import command_pb2

ACCESS_KINDS: Final = ("create_token", "revoke_token", "create_invite", "consume_invite", "revoke_invite")

HASH_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32

_FORMAT: Final = b"\x01"
_TOKEN: Final = b"t"
_INVITE: Final = b"i"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """write, read: globs over SENSOR/METRIC; key_write, key_read: over keys. 0 for a rate or an end: none."""

    name: str
    hash: bytes
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    key_write: tuple[str, ...] = ()
    key_read: tuple[str, ...] = ()
    is_operator: bool = False
    requests_per_second: int = 0
    expires_unix_nano: int = 0
    created_unix_nano: int = 0


@dataclass(frozen=True, slots=True)
class InviteRecord:
    """deadline_ns: on the state's elapsed time. joins: (member, hash of its certificate request) that used it."""

    public_key: bytes
    deadline_ns: int
    expires_unix_nano: int
    uses_left: int
    joins: tuple[tuple[MemberId, bytes], ...] = ()


class AccessTable:
    """All of it is read-only outside."""

    def __init__(self) -> None:
        self.tokens: dict[str, TokenRecord] = {}
        self.by_hash: dict[bytes, TokenRecord] = {}
        self.invites: dict[bytes, InviteRecord] = {}
        self._dirty: set[bytes] = set()
        self._appliers: dict[str, Callable[[command_pb2.Operation, int], None]] = {
            "create_token": self._create_token,
            "revoke_token": self._revoke_token,
            "create_invite": self._create_invite,
            "consume_invite": self._consume_invite,
            "revoke_invite": self._revoke_invite,
        }

    def apply(self, operation: command_pb2.Operation, *, elapsed_ns: int) -> None:
        """Raises NotApplied, with nothing changed."""
        self._appliers[operation.WhichOneof("kind") or ""](operation, elapsed_ns)

    def load(self, key: bytes, value: bytes) -> None:
        """Take over a record of a checkpoint. CorruptData, WrittenByNewer."""
        if value[:1] != _FORMAT:
            raise WrittenByNewer(
                f"store access {key!r}: format {value[:1].hex()} is not known to this version; start the version "
                "that wrote it, or a later one"
            )
        try:
            if key[:1] == _TOKEN:
                self._set_token(token_record(command_pb2.TokenRecord.FromString(value[1:]).token))
            else:
                self._set_invite(_invite_record(command_pb2.InviteRecord.FromString(value[1:])))
        except DecodeError as error:
            raise CorruptData(
                f"store access {key!r}", f"{error}; rebuild this node from its peers"
            ) from error
        self._dirty.clear()

    def records(self) -> list[tuple[bytes, bytes]]:
        """Everything as stored, by key."""
        keys = [_TOKEN + name.encode() for name in self.tokens] + [_INVITE + key for key in self.invites]
        return [(key, self._encode(key)) for key in sorted(keys)]

    def take_changes(self) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """(puts, deletes) since the last call, for a checkpoint."""
        dirty, self._dirty = sorted(self._dirty), set()
        present = [key for key in dirty if self._is_present(key)]
        return [(key, self._encode(key)) for key in present], [key for key in dirty if key not in present]

    def find_invite(self, public_key: bytes, *, elapsed_ns: int) -> InviteRecord:
        """The invite if it has not ended by elapsed time; ConditionFailed. It may be used up."""
        invite = self.invites.get(public_key)
        if invite is None or elapsed_ns >= invite.deadline_ns:
            raise ConditionFailed(
                "this invite is not known, or its time is over: nothing was changed; make another with "
                "`sudo raftberry invite` on a member"
            )
        return invite

    # Operations

    def _create_token(self, operation: command_pb2.Operation, _elapsed_ns: int) -> None:
        record = token_record(operation.create_token)
        check_name("name", record.name)
        if len(record.hash) != HASH_BYTES:
            raise InvalidArgument("hash", f"{len(record.hash)} bytes, a SHA-256 has {HASH_BYTES}")
        if max(map(len, (record.write, record.read, record.key_write, record.key_read))) > SCOPES_MAX:
            raise InvalidArgument("scopes", f"a token has at most {SCOPES_MAX} globs of a kind")
        if record.name in self.tokens:
            raise ConditionFailed(
                f"there is a token {record.name} already: nothing was made; revoke it first, or choose another name"
            )
        if len(self.tokens) >= TOKENS_MAX:
            raise Overloaded(f"there are {TOKENS_MAX} tokens, the limit: nothing was made; revoke some first")
        self._set_token(record)

    def _revoke_token(self, operation: command_pb2.Operation, _elapsed_ns: int) -> None:
        name = operation.revoke_token.name
        record = self.tokens.pop(name, None)
        if record is None:
            raise NotFound(f"there is no token {name}; `raftberry token list` shows them all")
        del self.by_hash[record.hash]
        self._dirty.add(_TOKEN + name.encode())

    def _create_invite(self, operation: command_pb2.Operation, elapsed_ns: int) -> None:
        create = operation.create_invite
        if len(create.public_key) != PUBLIC_KEY_BYTES or not 0 < create.uses <= INVITE_USES_MAX:
            raise InvalidArgument(
                "public_key",
                f"an invite has a key of {PUBLIC_KEY_BYTES} bytes and 1 to {INVITE_USES_MAX} uses",
            )
        if create.public_key in self.invites:
            raise ConditionFailed("there is such an invite already: nothing was changed")
        for public_key in [key for key, old in self.invites.items() if elapsed_ns >= old.deadline_ns]:
            self._drop_invite(public_key)
        if len(self.invites) >= INVITES_MAX:
            raise Overloaded(f"there are {INVITES_MAX} invites, the limit: wait until some have ended")
        self._set_invite(
            InviteRecord(
                public_key=create.public_key,
                deadline_ns=elapsed_ns + create.ttl_nano,
                expires_unix_nano=create.expires_unix_nano,
                uses_left=create.uses,
            )
        )

    def _consume_invite(self, operation: command_pb2.Operation, elapsed_ns: int) -> None:
        consume = operation.consume_invite
        invite = self.find_invite(consume.public_key, elapsed_ns=elapsed_ns)
        join = (MemberId(consume.member_id), consume.request_hash)
        if join in invite.joins:
            return
        if not invite.uses_left:
            raise ConditionFailed(
                "this invite was used up by another node: nothing was changed; make another with "
                "`sudo raftberry invite` on a member"
            )
        self._set_invite(replace(invite, uses_left=invite.uses_left - 1, joins=(*invite.joins, join)))

    def _revoke_invite(self, operation: command_pb2.Operation, _elapsed_ns: int) -> None:
        public_key = operation.revoke_invite.public_key
        if public_key not in self.invites:
            raise NotFound("there is no such invite: nothing was changed")
        self._drop_invite(public_key)

    # Records

    def _set_token(self, record: TokenRecord) -> None:
        self.tokens[record.name] = record
        self.by_hash[record.hash] = record
        self._dirty.add(_TOKEN + record.name.encode())

    def _set_invite(self, invite: InviteRecord) -> None:
        self.invites[invite.public_key] = invite
        self._dirty.add(_INVITE + invite.public_key)

    def _drop_invite(self, public_key: bytes) -> None:
        del self.invites[public_key]
        self._dirty.add(_INVITE + public_key)

    def _is_present(self, key: bytes) -> bool:
        return key[1:].decode() in self.tokens if key[:1] == _TOKEN else key[1:] in self.invites

    def _encode(self, key: bytes) -> bytes:
        if key[:1] == _TOKEN:
            token = token_message(self.tokens[key[1:].decode()])
            return _FORMAT + command_pb2.TokenRecord(token=token).SerializeToString(deterministic=True)
        invite = self.invites[key[1:]]
        message = command_pb2.InviteRecord(
            public_key=invite.public_key,
            deadline_nano=invite.deadline_ns,
            expires_unix_nano=invite.expires_unix_nano,
            uses_left=invite.uses_left,
            joins=[
                command_pb2.InviteRecord.Join(member_id=member_id, request_hash=request_hash)
                for member_id, request_hash in invite.joins
            ],
        )
        return _FORMAT + message.SerializeToString(deterministic=True)


def token_record(message: command_pb2.CreateToken) -> TokenRecord:
    return TokenRecord(
        name=message.name,
        hash=message.hash,
        write=tuple(message.write),
        read=tuple(message.read),
        key_write=tuple(message.key_write),
        key_read=tuple(message.key_read),
        is_operator=message.operator,
        requests_per_second=message.requests_per_second,
        expires_unix_nano=message.expires_unix_nano,
        created_unix_nano=message.created_unix_nano,
    )


def token_message(record: TokenRecord) -> command_pb2.CreateToken:
    return command_pb2.CreateToken(
        name=record.name,
        hash=record.hash,
        write=record.write,
        read=record.read,
        key_write=record.key_write,
        key_read=record.key_read,
        operator=record.is_operator,
        requests_per_second=record.requests_per_second,
        expires_unix_nano=record.expires_unix_nano,
        created_unix_nano=record.created_unix_nano,
    )


def _invite_record(message: command_pb2.InviteRecord) -> InviteRecord:
    return InviteRecord(
        public_key=message.public_key,
        deadline_ns=message.deadline_nano,
        expires_unix_nano=message.expires_unix_nano,
        uses_left=message.uses_left,
        joins=tuple((MemberId(join.member_id), join.request_hash) for join in message.joins),
    )
