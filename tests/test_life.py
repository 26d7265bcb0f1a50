"""What a node in doubt says about what happens to it next."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.assembly import Serving
from appliance.config import load
from appliance.host.notify import Notifier
from appliance.life import Life
from appliance.model import ClusterId, Member, MemberId
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
