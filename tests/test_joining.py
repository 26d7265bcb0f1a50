"""What a join leaves on disk between its steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import DataDirectoryRefused
from appliance.joining import Intent, forget_intent, read_intent, write_intent

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
