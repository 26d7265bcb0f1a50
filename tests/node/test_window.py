"""A batch waits for company, never for long, and not at all for a caller who is alone."""

from __future__ import annotations

from appliance.node.window import WINDOW_NS, Window


def test_a_caller_who_is_alone_never_waits() -> None:
    window = Window()
    for now in range(5):
        window.expect(1)
        assert window.is_over(1, now)
    assert window.ends_ns is None


def test_a_batch_waits_for_three_quarters_of_the_company() -> None:
    window = Window()
    window.expect(8)
    assert not window.is_over(5, 0)
    assert not window.concerns(5)
    assert window.concerns(6)
    assert window.is_over(6, 1)


def test_a_window_ends_with_the_last_of_those_who_waited() -> None:
    window = Window()
    window.expect(8)
    assert not window.is_over(1, 0)
    assert not window.is_over(0, 1)
    assert window.ends_ns is None


def test_company_that_went_away_is_waited_for_once() -> None:
    window = Window()
    window.expect(64)
    assert not window.is_over(1, 100)
    assert window.ends_ns == 100 + WINDOW_NS
    assert not window.is_over(2, 99 + WINDOW_NS)
    assert window.is_over(2, 100 + WINDOW_NS)
    window.expect(2)
    assert window.is_over(2, 101 + WINDOW_NS)


def test_nothing_queued_begins_no_window() -> None:
    window = Window()
    window.expect(9)
    assert not window.is_over(0, 5)
    assert window.ends_ns is None
