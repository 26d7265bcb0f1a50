"""Time deletes only while the clocks agree."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from appliance.model import Member, MemberId
from appliance.node.clocks import (
    HOLD_AFTER_JUMP_ALONE_NS,
    HOLD_AFTER_JUMP_NS,
    SAMPLE_AGE_MAX_NS,
    SECOND_NS,
    Clocks,
)
from raftberry.internal.v1 import peer_pb2

YEAR_NS = 365 * 86_400 * SECOND_NS
MEMBERS = {MemberId(number): Member(MemberId(number), f"n{number}", number, "h:1") for number in (1, 2, 3)}
OWN = MemberId(1)


@dataclass
class TwoClocks:
    monotonic: int = 0
    wall: int = 1_800_000_000 * SECOND_NS

    def monotonic_ns(self) -> int:
        return self.monotonic

    def wall_ns(self) -> int:
        return self.wall

    def advance(self, clocks: Clocks, duration_ns: int) -> None:
        self.monotonic += duration_ns
        self.wall += duration_ns
        clocks.watch()


def hear(clocks: Clocks, time: TwoClocks, number: int, offset_s: int, *, unsteady: bool = False) -> None:
    sample = peer_pb2.ClockSample(wall_unix_nano=time.wall + offset_s * SECOND_NS, unsteady=unsteady)
    clocks.heard(MemberId(number), sample)


@pytest.mark.parametrize(
    ("offsets", "doubt"),
    [
        ({2: 60, 3: -60}, ""),
        ({2: 61, 3: 0}, ""),
        ({2: 61, 3: -61}, "n2: +61 s; n3: -61 s"),
        ({2: 0}, ""),
        ({}, "n2: not heard; n3: not heard"),
    ],
)
def test_a_majority_has_to_agree_within_a_minute(offsets: dict[int, int], doubt: str) -> None:
    time = TwoClocks()
    clocks = Clocks(time)
    for number, offset_s in offsets.items():
        hear(clocks, time, number, offset_s)
    assert doubt in clocks.doubt(OWN, MEMBERS)
    assert bool(doubt) == bool(clocks.doubt(OWN, MEMBERS))


def test_old_samples_and_clocks_that_jumped_do_not_count() -> None:
    time = TwoClocks()
    clocks = Clocks(time)
    hear(clocks, time, 2, 0, unsteady=True)
    assert "n2: jumped lately" in clocks.doubt(OWN, MEMBERS)
    hear(clocks, time, 2, 0)
    assert clocks.doubt(OWN, MEMBERS) == ""
    time.advance(clocks, SAMPLE_AGE_MAX_NS + 1)
    assert "n2: not heard" in clocks.doubt(OWN, MEMBERS)


def test_a_jump_of_a_year_holds_until_the_clock_was_steady_for_an_hour() -> None:
    time = TwoClocks()
    clocks = Clocks(time)
    time.advance(clocks, SECOND_NS)
    time.wall += YEAR_NS
    time.advance(clocks, SECOND_NS)
    hear(clocks, time, 2, 0)
    hear(clocks, time, 3, 0)
    assert "this node's clock jumped by 31,536,000 s" in clocks.doubt(OWN, MEMBERS)
    assert clocks.sample().unsteady
    time.advance(clocks, HOLD_AFTER_JUMP_NS)
    hear(clocks, time, 2, 0)
    assert clocks.doubt(OWN, MEMBERS) == ""
    assert not clocks.sample().unsteady


def test_a_cluster_of_one_waits_a_day_after_a_jump() -> None:
    time = TwoClocks()
    clocks = Clocks(time)
    time.wall += YEAR_NS
    time.advance(clocks, HOLD_AFTER_JUMP_ALONE_NS)
    alone = {OWN: MEMBERS[OWN]}
    time.wall -= YEAR_NS
    time.advance(clocks, SECOND_NS)
    assert "jumped by -31,536,000 s less than 24 h ago" in clocks.doubt(OWN, alone)
    time.advance(clocks, HOLD_AFTER_JUMP_ALONE_NS)
    assert clocks.doubt(OWN, alone) == ""


def test_a_clock_that_was_never_set_deletes_nothing() -> None:
    time = TwoClocks(wall=0)
    assert Clocks(time).doubt(OWN, {OWN: MEMBERS[OWN]}) == "this node's clock is not set"
