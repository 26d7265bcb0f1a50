"""Tokens and invites as replicated state: what is taken, what is refused, what is stored."""

from __future__ import annotations

import pytest

from appliance import errors, limits
from appliance.model import MemberId, Verdict
from appliance.state import OperationResult, StateMachine
from appliance.state.access import AccessTable, InviteRecord, TokenRecord, token_message
from raftberry.internal.v1 import command_pb2
from tests.state.fakes import Cluster

SECOND = 10**9
KEY = b"\x07" * 32
RECORD = TokenRecord(
    name="greenhouse",
    hash=b"\x01" * 32,
    write=("greenhouse/*",),
    read=("*",),
    key_write=("a",),
    key_read=("b",),
    is_operator=True,
    requests_per_second=5,
    expires_unix_nano=6,
    created_unix_nano=7,
)


def create(record: TokenRecord = RECORD) -> command_pb2.Operation:
    return command_pb2.Operation(create_token=token_message(record))


def revoke(name: str) -> command_pb2.Operation:
    return command_pb2.Operation(revoke_token=command_pb2.RevokeToken(name=name))


def invite(*, uses: int = 1, ttl_s: int = 60, key: bytes = KEY) -> command_pb2.Operation:
    return command_pb2.Operation(
        create_invite=command_pb2.CreateInvite(
            public_key=key, ttl_nano=ttl_s * SECOND, expires_unix_nano=9, uses=uses
        )
    )


def consume(member: int, request: bytes = b"r" * 32, key: bytes = KEY) -> command_pb2.Operation:
    return command_pb2.Operation(
        consume_invite=command_pb2.ConsumeInvite(public_key=key, member_id=member, request_hash=request)
    )


def only(node: Cluster, operation: command_pb2.Operation, elapsed_ns: int = 0) -> OperationResult:
    return node.apply(operation, elapsed_ns=elapsed_ns).results[0]


def refusal(node: Cluster, operation: command_pb2.Operation, elapsed_ns: int = 0) -> errors.NotApplied:
    result = only(node, operation, elapsed_ns)
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    return result.error


def access_of(node: Cluster) -> AccessTable:
    return node.state.access


def test_a_token_is_found_by_its_name_and_by_its_hash_until_it_is_revoked() -> None:
    node = Cluster()
    only(node, create())
    assert access_of(node).tokens == {"greenhouse": RECORD}
    assert access_of(node).by_hash == {RECORD.hash: RECORD}
    only(node, revoke("greenhouse"))
    assert not access_of(node).tokens
    assert not access_of(node).by_hash


def test_a_name_is_taken_once() -> None:
    node = Cluster()
    only(node, create())
    before = node.hash()
    assert isinstance(refusal(node, create()), errors.ConditionFailed)
    assert node.hash() == before


def test_what_is_not_there_is_not_revoked() -> None:
    assert isinstance(refusal(Cluster(), revoke("nobody")), errors.NotFound)


@pytest.mark.parametrize(
    "record",
    [
        TokenRecord(name="", hash=b"\x01" * 32),
        TokenRecord(name="a*", hash=b"\x01" * 32),
        TokenRecord(name="a", hash=b"\x01" * 31),
        TokenRecord(name="a", hash=b"\x01" * 32, write=("x",) * (limits.SCOPES_MAX + 1)),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(record: TokenRecord) -> None:
    assert isinstance(refusal(Cluster(), create(record)), errors.InvalidArgument)


def test_tokens_are_bounded() -> None:
    table = AccessTable()
    for number in range(limits.TOKENS_MAX):
        table.apply(create(TokenRecord(f"t{number}", number.to_bytes(32, "big"))), elapsed_ns=0)
    with pytest.raises(errors.Overloaded):
        table.apply(create(), elapsed_ns=0)


def test_an_invite_is_used_up_by_the_member_that_joins_with_it() -> None:
    node = Cluster()
    only(node, invite())
    only(node, consume(5))
    assert access_of(node).invites[KEY].uses_left == 0
    assert isinstance(refusal(node, consume(6)), errors.ConditionFailed)


def test_the_same_member_with_the_same_key_may_ask_again() -> None:
    node = Cluster()
    only(node, invite(uses=2))
    only(node, consume(5))
    only(node, consume(5))
    assert access_of(node).invites[KEY].uses_left == 1
    only(node, consume(5, b"o" * 32))
    assert access_of(node).invites[KEY].uses_left == 0
    only(node, consume(5))
    assert isinstance(refusal(node, consume(5, b"p" * 32)), errors.ConditionFailed)


def test_an_invite_ends_when_its_time_has_elapsed() -> None:
    node = Cluster()
    only(node, invite(ttl_s=60))
    only(node, consume(5), elapsed_ns=60 * SECOND - 1)
    assert isinstance(refusal(node, consume(5), elapsed_ns=1), errors.ConditionFailed)


def test_an_invite_that_is_not_known_or_was_revoked_lets_nobody_in() -> None:
    node = Cluster()
    assert isinstance(refusal(node, consume(5)), errors.ConditionFailed)
    only(node, invite())
    only(node, command_pb2.Operation(revoke_invite=command_pb2.RevokeInvite(public_key=KEY)))
    assert isinstance(refusal(node, consume(5)), errors.ConditionFailed)


@pytest.mark.parametrize(
    "operation", [invite(uses=0), invite(uses=limits.INVITE_USES_MAX + 1), invite(key=b"k")]
)
def test_an_invite_that_makes_no_sense_is_refused(operation: command_pb2.Operation) -> None:
    assert isinstance(refusal(Cluster(), operation), errors.InvalidArgument)


def test_ended_invites_make_room_for_new_ones() -> None:
    node = Cluster()
    for number in range(limits.INVITES_MAX):
        only(node, invite(key=number.to_bytes(32, "big")))
    assert isinstance(refusal(node, invite()), errors.Overloaded)
    assert only(node, invite(), elapsed_ns=60 * SECOND).verdict is Verdict.APPLIED
    assert list(access_of(node).invites) == [KEY]


def test_a_checkpoint_holds_tokens_and_invites_and_forgets_what_was_revoked() -> None:
    node = Cluster()
    only(node, create())
    only(node, create(TokenRecord("gone", b"\x02" * 32)))
    only(node, invite())
    node.checkpoint()
    only(node, revoke("gone"))
    only(node, consume(5))
    node.checkpoint()
    restored = StateMachine.restore(node.store.reader())
    assert restored.access.tokens == {"greenhouse": RECORD}
    assert restored.access.invites == {KEY: InviteRecord(KEY, 60 * SECOND, 9, 0, ((MemberId(5), b"r" * 32),))}
    assert restored.hash(node.store.reader()) == node.hash()


def test_golden_bytes() -> None:
    table = AccessTable()
    table.apply(create(), elapsed_ns=0)
    table.apply(invite(), elapsed_ns=1)
    table.apply(consume(5), elapsed_ns=2)
    stored = {key.hex(): value.hex() for key, value in table.records()}
    assert stored == {
        b"tgreenhouse".hex(): "010a4d0a0a677265656e686f7573651220" + "01" * 32 + "1a0c677265656e686f7573652f2a"
        "22012a2a0161320162380140054806" + "5007",
        (b"i" + KEY).hex(): "010a20" + "07" * 32 + "1081b09dc2df011809" + "2a2b" + "09" + "0500000000000000" + "1220"
        + b"r".hex() * 32,
    }  # fmt: skip


def test_records_that_make_no_sense_are_refused() -> None:
    with pytest.raises(errors.DataDirectoryRefused):
        AccessTable().load(b"tx", b"\x02")
    with pytest.raises(errors.CorruptData):
        AccessTable().load(b"tx", b"\x01\xff")
