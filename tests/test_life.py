"""What a node in doubt says about what happens to it next; and a join whose line was mistyped."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.assembly import Serving
from appliance.config import load
from appliance.errors import ConditionFailed
from appliance.host.notify import Notifier
from appliance.joining import Intent, read_intent, write_intent
from appliance.life import Life
from appliance.model import ClusterId, Member, MemberId
from appliance.node.tokens import Secret, format_invite
from appliance.storage.identity import Identity


@dataclass
class Directory:
    identity: Identity


@dataclass
class Served:
    """The serving part, as far as the remedy looks at it."""

    size: int
    directory: Directory = field(init=False)

    def __post_init__(self) -> None:
        members = tuple(Member(MemberId(n), f"pi-{n}", n, f"pi-{n}:7441") for n in range(1, self.size + 1))
        self.directory = Directory(Identity(MemberId(1), "pi-1", "m", ClusterId(1), (), members))


def life(tmp_path: Path, size: int, *, rebuild_after: str = "30s", refusal: str = "") -> Life:
    flags: dict[str, Any] = {
        "storage.data": str(tmp_path),
        "node.name": "pi-1",
        "cluster.rebuild_after": rebuild_after,
    }
    config = load(path=None, environment={}, flags=flags)
    made = Life(config, random.Random(1), cast(Notifier, None), lambda: config)
    made.serving, made.rebuild_refusal = cast(Serving, Served(size)), refusal
    return made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"size": 3}, "its peers rebuild it by themselves, from 30 s on"),
        ({"size": 1}, "nobody else has this data: restore a backup"),
        (
            {"size": 3, "rebuild_after": "0s"},
            "it waits for you (cluster.rebuild_after is 0): on another member",
        ),
        (
            {"size": 3, "refusal": "who are you?"},
            "its peers do not rebuild it (who are you?): on another member",
        ),
    ],
)
def test_the_alarm_says_what_happens_and_whether_a_person_is_needed(
    tmp_path: Path, made: dict[str, Any], words: str
) -> None:
    text = life(tmp_path, **made).remedy()
    assert text.startswith(words)
    assert ("sudo raftberry members remove pi-1" in text) == ("on another member" in words)


INVITE = format_invite(Secret(bytes(16), bytes(32)))
MISTYPED = Intent(
    "pi-9.local",
    7440,
    INVITE,
    member_id=7,
    advertised_host="pi-2.local",
    key_pem="key",
    request_der="request",
    peers=[],
)


def join(made: Life, host: str) -> None:
    asyncio.run(made.start_join(host, INVITE, "pi-2.local", is_discarding=False))


def test_until_somebody_answers_the_line_that_was_typed_last_counts(tmp_path: Path) -> None:
    made = life(tmp_path, size=1)
    write_intent(tmp_path, MISTYPED)
    joiner = made.start_joiner(MISTYPED)
    join(made, "pi-9.local")
    assert not made.stopped.is_set()
    join(made, "pi-1.local:7450")
    assert read_intent(tmp_path) == replace(MISTYPED, host="pi-1.local", port=7450)
    assert made.stopped.is_set()
    assert asyncio.run(joiner.run()) == ""


@pytest.mark.parametrize(
    ("present", "words"),
    [
        (replace(MISTYPED, answer="yes"), "has been taken in by the cluster of pi-9.local:7440: nothing was"),
        (replace(MISTYPED, old_member_id=5), "asks its peers to rebuild it: nothing was changed"),
    ],
)
def test_a_join_that_was_answered_and_a_rebuild_are_not_replaced(
    tmp_path: Path, present: Intent, words: str
) -> None:
    made = life(tmp_path, size=1)
    write_intent(tmp_path, present)
    with pytest.raises(ConditionFailed, match=words):
        join(made, "pi-1.local")
    assert read_intent(tmp_path) == present


def test_a_node_that_is_rebuilt_is_not_said_to_join(tmp_path: Path) -> None:
    made = life(tmp_path, size=1)
    write_intent(tmp_path, MISTYPED)
    assert made.join_progress().state == "ending what this node was"
    write_intent(tmp_path, replace(MISTYPED, old_member_id=5))
    assert not made.join_progress().is_active
