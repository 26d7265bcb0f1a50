"""Who may do what: tokens against scopes, time, revocation and rate. No clock but the one handed in."""

from __future__ import annotations

import pytest

from appliance.errors import InvalidArgument, PermissionDenied, RateLimited, Unauthenticated
from appliance.node import tokens
from appliance.node.access import EVERYONE, Access, Bucket, Caller
from appliance.node.tokens import Secret, hash_token
from appliance.state.access import AccessTable, TokenRecord, token_message
from raftberry.internal.v1 import command_pb2

SECOND = 10**9


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def monotonic_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now


class Desk:
    """A table of tokens and the access that judges them."""

    def __init__(self, *, is_token_required: bool = True) -> None:
        self.table, self.clock = AccessTable(), Clock()
        self.access = Access(lambda: self.table, self.clock, is_token_required=is_token_required)

    def add(self, text: str, **rights: object) -> None:
        record = TokenRecord(name=f"name-{text}", hash=hash_token(text), **rights)  # type: ignore[arg-type]
        self.table.apply(command_pb2.Operation(create_token=token_message(record)), elapsed_ns=0)

    def revoke(self, text: str) -> None:
        revoke = command_pb2.RevokeToken(name=f"name-{text}")
        self.table.apply(command_pb2.Operation(revoke_token=revoke), elapsed_ns=0)

    def caller(self, text: str) -> Caller:
        return self.access.authorize(f"Bearer {text}")


def caller(**rights: object) -> Caller:
    desk = Desk()
    desk.add("t", **rights)
    return desk.caller("t")


def test_where_no_token_is_required_everyone_may_do_everything() -> None:
    found = Desk(is_token_required=False).access.authorize(None)
    assert found is EVERYONE
    found.check_operator("x")
    found.check_write("s", "m")
    found.check_key_write("k")
    assert found.check_read("*", "*") is None
    assert found.check_keys_read() is None


@pytest.mark.parametrize("authorization", [None, "", "Basic abc", "Bearer", "Bearer unknown"])
def test_a_request_without_a_known_token_is_refused_with_what_to_do(authorization: str | None) -> None:
    desk = Desk()
    desk.add("t", read=("*",))
    with pytest.raises(Unauthenticated, match="raftberry token create"):
        desk.access.authorize(authorization)


def test_a_revoked_token_is_worth_nothing_also_on_a_stream_that_is_open() -> None:
    desk = Desk()
    desk.add("t", read=("*",))
    streaming = desk.caller("t")
    streaming.check()
    desk.revoke("t")
    with pytest.raises(Unauthenticated, match="revoked"):
        streaming.check()
    with pytest.raises(Unauthenticated, match="revoked"):
        desk.caller("t")


def test_a_token_ends_at_its_time() -> None:
    desk = Desk()
    desk.add("t", read=("*",), expires_unix_nano=desk.clock.now + 1)
    streaming = desk.caller("t")
    desk.clock.now += 1
    with pytest.raises(Unauthenticated, match="ended"):
        streaming.check()
    with pytest.raises(Unauthenticated, match="ended"):
        desk.caller("t")


def test_a_name_that_is_made_anew_has_its_new_rights() -> None:
    desk = Desk()
    desk.add("t", read=("*",))
    desk.caller("t").check_read("s", "m")
    desk.revoke("t")
    desk.add("t", write=("*",))
    desk.caller("t").check_write("s", "m")
    with pytest.raises(PermissionDenied):
        desk.caller("t").check_read("s", "m")


@pytest.mark.parametrize(
    ("glob", "sensor", "metric", "is_allowed"),
    [
        ("greenhouse/*", "greenhouse", "temperature", True),
        ("greenhouse/*", "greenhouse/north", "temperature", True),
        ("greenhouse/*", "greenhouse2", "temperature", False),
        ("greenhouse", "greenhouse", "temperature", True),
        ("greenhouse", "greenhouse2", "temperature", False),
        ("*", "anything", "at all", True),
        ("*/temperature", "kitchen", "temperature", True),
        ("*/temperature", "kitchen", "humidity", False),
        ("Greenhouse/*", "greenhouse", "temperature", False),
        ("k?/m", "k1", "m", True),
        ("k[12]/m", "k3", "m", False),
    ],
)
def test_scopes_are_globs_over_sensor_and_metric(
    glob: str, sensor: str, metric: str, is_allowed: bool
) -> None:
    writer = caller(write=(glob,))
    for _ in range(2):
        if is_allowed:
            writer.check_write(sensor, metric)
        else:
            with pytest.raises(PermissionDenied) as refusal:
                writer.check_write(sensor, metric)
            assert f"{sensor}/{metric}" in str(refusal.value)
            assert "--write" in str(refusal.value)


def test_each_right_is_its_own() -> None:
    writer = caller(write=("*",))
    with pytest.raises(PermissionDenied, match="--read"):
        writer.check_read("*", "*")
    with pytest.raises(PermissionDenied, match="--key-write"):
        writer.check_key_write("k")
    with pytest.raises(PermissionDenied, match="--key-read"):
        writer.check_key_read("k")
    with pytest.raises(PermissionDenied, match="--key-read"):
        writer.check_keys_read()
    with pytest.raises(PermissionDenied, match="--operator"):
        writer.check_operator("this")
    operator = caller(is_operator=True)
    operator.check_operator("this")
    with pytest.raises(PermissionDenied):
        operator.check_write("s", "m")


def test_a_pattern_shows_what_may_be_read_and_one_series_is_refused_by_name() -> None:
    reader = caller(read=("greenhouse/*",))
    is_visible = reader.check_read("*", "*")
    assert is_visible is not None
    assert is_visible("greenhouse", "m")
    assert not is_visible("kitchen", "m")
    with pytest.raises(PermissionDenied, match="kitchen/m"):
        reader.check_read("kitchen", "m")


def test_the_dashboard_is_for_a_token_that_reads_everything() -> None:
    desk = Desk()
    desk.add("all", read=("a", "*"))
    desk.add("some", read=("greenhouse/*",))
    desk.add("operator", is_operator=True)
    assert desk.access.is_required
    assert desk.access.reader("all") == "name-all"
    for text in ("some", "operator"):
        with pytest.raises(PermissionDenied, match=f"token name-{text} may not read every series"):
            desk.access.reader(text)
    with pytest.raises(Unauthenticated, match="not known here"):
        desk.access.reader("unknown")
    assert [text for text in ("all", "some", "operator", "unknown") if desk.access.is_reader(text)] == ["all"]
    assert not Desk(is_token_required=False).access.is_required


def test_a_page_that_is_open_costs_nothing_of_its_tokens_rate() -> None:
    desk = Desk()
    desk.add("all", read=("*",), requests_per_second=1)
    assert [desk.access.is_reader("all") for _ in range(5)] == [True] * 5
    desk.access.reader("all")
    with pytest.raises(RateLimited):
        desk.access.reader("all")


def test_keys_have_globs_of_their_own() -> None:
    both = caller(key_write=("heating/*",), key_read=("*",))
    both.check_key_write("heating/target")
    with pytest.raises(PermissionDenied, match="door"):
        both.check_key_write("door")
    both.check_key_read("door")
    is_visible = both.check_keys_read()
    assert is_visible is not None
    assert is_visible("door")


def test_a_rate_is_refused_beyond_it_and_says_when_there_is_room() -> None:
    desk = Desk()
    desk.add("t", read=("*",), requests_per_second=10)
    for _ in range(10):
        desk.caller("t")
    with pytest.raises(RateLimited) as refusal:
        desk.caller("t")
    assert 0 < refusal.value.retry_ms <= 101
    desk.clock.now += 100_000_001
    desk.caller("t")
    with pytest.raises(RateLimited):
        desk.caller("t")


def test_a_bucket_holds_one_second_and_no_more() -> None:
    bucket = Bucket(3)
    assert [bucket.take(0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0) > 0
    assert [bucket.take(100 * SECOND) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100 * SECOND) > 0
    assert [Bucket(0).take(0) for _ in range(100)] == [0] * 100


def test_the_texts_of_tokens_and_invites_are_golden() -> None:
    secret = Secret(bytes(range(16)), bytes(range(16, 48)))
    body = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v"
    assert tokens.format_token(secret) == f"rbt1_{body}"
    assert tokens.format_invite(secret) == f"rbj1_{body}"
    assert tokens.parse_token(f"rbt1_{body}") == secret
    assert tokens.parse_invite(f"rbj1_{body}") == secret
    assert (
        tokens.hash_token(f"rbt1_{body}").hex()
        == "0f823b469e66050d4deeba32b9080521c0bdfce0aff9bb27fd21de1076fa214b"
    )


@pytest.mark.parametrize(("start", "end"), [("rbt1_", -1), ("rbj1_", None), ("rbt1", None)])
def test_a_text_that_was_cut_or_mistyped_is_noticed_and_not_repeated(start: str, end: int | None) -> None:
    text = tokens.format_token(Secret(bytes(16), b"\x55" * 32))
    with pytest.raises(InvalidArgument) as refusal:
        tokens.parse_token(start + text[5:end])
    assert text[10:40] not in str(refusal.value)


def test_a_secret_does_not_show_in_its_repr() -> None:
    assert "55" not in repr(Secret(bytes(16), b"\x55" * 32))
