"""What the peer port bears of whoever comes."""

from __future__ import annotations

import pytest

from appliance.peers import strangers
from appliance.peers.strangers import HANDSHAKES_AT_ONCE, HANDSHAKES_PER_S, REMARK_S, HandshakeBudget, Remarks


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def taken(budget: HandshakeBudget, address: str, tries: int) -> int:
    return sum(budget.take(address) for _ in range(tries))


def test_an_address_has_what_it_saved_and_then_so_many_a_second() -> None:
    clock = Clock()
    budget = HandshakeBudget(clock)
    assert taken(budget, "a", 1_000) == HANDSHAKES_AT_ONCE
    assert taken(budget, "b", 10) == 10
    clock.now_s += 2.0
    assert taken(budget, "a", 1_000) == 2 * HANDSHAKES_PER_S
    clock.now_s += 1e6
    assert taken(budget, "a", 1_000) == HANDSHAKES_AT_ONCE


def test_many_addresses_take_no_more_memory() -> None:
    budget = HandshakeBudget(Clock())
    assert taken(budget, "a", 1_000) == HANDSHAKES_AT_ONCE
    for number in range(strangers.ADDRESSES_MAX + 10):
        assert budget.take(f"10.0.{number >> 8}.{number & 255}")
    assert len(budget._left) == strangers.ADDRESSES_MAX


def test_a_remark_is_new_once_in_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    remarks = Remarks(clock)
    assert [remarks.is_new("a", "x"), remarks.is_new("a", "x"), remarks.is_new("a", "y")] == [
        True,
        False,
        True,
    ]
    clock.now_s += REMARK_S
    assert remarks.is_new("a", "x")
    assert caplog.text == ""


def test_one_host_does_not_silence_what_is_said_of_others(caplog: pytest.LogCaptureFixture) -> None:
    remarks = Remarks(Clock())
    assert sum(remarks.is_new("a", f"a message of {number} bytes") for number in range(1_000)) == 1
    assert (
        sum(remarks.is_new("a", "x" * number) for number in range(1_000)) == strangers.REMARKS_OF_HOST_MAX - 1
    )
    assert remarks.is_new("b", "a message of 7 bytes")
    assert caplog.text == ""
    told = sum(remarks.is_new(f"host {number}", "x") for number in range(1_000))
    assert told == strangers.REMARKS_MAX - strangers.REMARKS_OF_HOST_MAX - 1
    assert caplog.text.count("what they do is not told for an hour") == 1
