"""What a join leaves on disk between its steps."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import joining
from appliance.config import load
from appliance.errors import DataDirectoryRefused, NotFound
from appliance.joining import Intent, Joiner, forget_intent, read_intent, write_intent
from appliance.node.tokens import Secret, format_invite

INTENT = Intent(
    host="pi-1.local",
    port=7440,
    invite="rbi1_invite",
    member_id=7,
    advertised_host="pi-2.local",
    key_pem="key",
    request_der="request",
    old_member_id=5,
    cluster_id=9,
    peers=[(6, "pi-1", "pi-1.local:7441")],
)

INVITE, OTHER_INVITE = (format_invite(Secret(bytes([number]) * 16, bytes(32))) for number in (1, 2))
JOINING = replace(INTENT, invite=INVITE, old_member_id=0, cluster_id=0, peers=[], authority_pem="pem")


def test_an_intent_has_its_bytes_and_comes_back(tmp_path: Path) -> None:
    """A node may be upgraded between two steps."""
    write_intent(tmp_path, INTENT)
    assert (tmp_path / "security" / "JOIN").read_text() == (
        '{"advertised_host": "pi-2.local", "answer": "", "authority_pem": "", "cluster_id": 9, "host": "pi-1.local", '
        '"invite": "rbi1_invite", "key_pem": "key", "member_id": 7, "old_member_id": 5, '
        '"peers": [[6, "pi-1", "pi-1.local:7441"]], "port": 7440, "request_der": "request"}'
    )
    found = read_intent(tmp_path)
    assert found is not None
    assert [tuple(peer) for peer in found.peers] == list(INTENT.peers)
    assert (found.host, found.member_id, found.is_rebuild) == ("pi-1.local", 7, True)
    assert "key" not in repr(found)
    forget_intent(tmp_path)
    assert read_intent(tmp_path) is None


def test_an_intent_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    write_intent(tmp_path, INTENT)
    for content in ("{", "[]", '{"host": "x"}'):
        (tmp_path / "security" / "JOIN").write_text(content)
        with pytest.raises(DataDirectoryRefused, match="remove it, then join again"):
            read_intent(tmp_path)


def test_another_line_keeps_the_id_and_the_key_by_which_the_cluster_may_know_the_node() -> None:
    moved = JOINING.corrected(host="pi-9", port=7450, invite=INVITE, advertised_host="")
    assert moved == replace(JOINING, host="pi-9", port=7450)
    assert moved.endpoint == "pi-9:7450"
    other = JOINING.corrected(host="pi-9", port=7450, invite=OTHER_INVITE, advertised_host="me")
    assert other == replace(moved, invite=OTHER_INVITE, advertised_host="me", authority_pem="")


@pytest.mark.parametrize("answer", [b"pem", NotFound("no such invite")])
def test_a_late_answer_to_a_line_that_was_replaced_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | NotFound
) -> None:
    config = load(path=None, environment={}, flags={"storage.data": str(tmp_path), "node.name": "pi-2"})
    mistyped = replace(JOINING, authority_pem="")
    right = mistyped.corrected(host="pi-9", port=7440, invite=INVITE, advertised_host="")
    write_intent(tmp_path, mistyped)
    joiner = Joiner(config, mistyped, random.Random(1))

    def fetch_authority(endpoint: str, _: bytes) -> bytes:
        assert endpoint == "pi-1.local:7440"
        joiner.give_way()
        write_intent(tmp_path, right)
        if isinstance(answer, NotFound):
            raise answer
        return answer

    monkeypatch.setattr(joining, "fetch_authority", fetch_authority)
    assert asyncio.run(joiner.run()) == ""
    assert read_intent(tmp_path) == right
