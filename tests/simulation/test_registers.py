"""The black-box checker knows right histories from wrong ones."""

from __future__ import annotations

import pytest

from tests.simulation.checkers.registers import check_registers
from tests.simulation.failure import CheckFailed
from tests.simulation.history import RegisterRead, RegisterWrite


def write(identity: int, begun: int, ended: int | None) -> RegisterWrite:
    return RegisterWrite("k", identity, begun, ended)


def read(identity: int, begun: int, ended: int) -> RegisterRead:
    return RegisterRead("k", identity, begun, ended)


def test_reads_in_the_order_of_the_writes_are_right() -> None:
    assert check_registers([write(1, 0, 1), write(2, 2, 3)], [read(1, 1, 2), read(2, 3, 4)]) == 2


def test_a_write_of_unknown_outcome_may_take_effect_late() -> None:
    check_registers([write(1, 0, None), write(2, 2, 3)], [read(2, 4, 5), read(1, 6, 7), read(1, 8, 9)])


def test_overlapping_writes_may_be_seen_in_any_order() -> None:
    check_registers([write(1, 0, 10), write(2, 0, 10)], [read(2, 3, 4), read(1, 11, 12)])


def test_nothing_is_read_before_the_first_write() -> None:
    check_registers([write(1, 5, 6)], [read(0, 0, 1), read(1, 7, 8)])


@pytest.mark.parametrize(
    ("writes", "reads"),
    [
        ([write(1, 0, 1), write(2, 2, 3)], [read(1, 4, 5)]),
        ([write(1, 0, 1)], [read(0, 2, 3)]),
        ([write(1, 5, 6)], [read(1, 0, 1)]),
        ([write(1, 0, 20), write(2, 0, 20)], [read(1, 1, 2), read(2, 3, 4), read(1, 5, 6)]),
        ([write(1, 0, 1)], [read(9, 2, 3)]),
    ],
    ids=["stale", "lost", "from-the-future", "back-and-forth", "never-written"],
)
def test_a_history_that_no_order_explains_is_wrong(
    writes: list[RegisterWrite], reads: list[RegisterRead]
) -> None:
    with pytest.raises(CheckFailed, match="registers"):
        check_registers(writes, reads)
