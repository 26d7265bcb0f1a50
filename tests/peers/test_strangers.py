"""What the peer port bears of whoever comes."""

from __future__ import annotations

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


def test_a_remark_is_new_once_in_an_hour_and_there_are_not_ever_new_ones() -> None:
    clock = Clock()
    remarks = Remarks(clock)
    assert [remarks.is_new("a", "x"), remarks.is_new("a", "x"), remarks.is_new("a", "y")] == [
        True,
        False,
        True,
    ]
    assert sum(remarks.is_new("b", str(number)) for number in range(1_000)) == strangers.REMARKS_MAX - 2
    clock.now_s += REMARK_S
    assert remarks.is_new("a", "x")
