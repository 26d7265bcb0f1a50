"""Many items as they stood at one moment; that a slice a turn is enough is in tests/node/test_slices.py."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest

from appliance.state.moment import Moment, Moments


class Item:
    hashed = 0

    def __init__(self, number: int) -> None:
        self.number = number
        self.value = 0

    def __hash__(self) -> int:
        Item.hashed += 1
        return self.number


class Taken:
    def __init__(self, item: Item) -> None:
        self.seen = item.number, item.value


def number_of(item: Item) -> int:
    return item.number


def begin(
    items: list[Item], number: Callable[[Item], int] | None = number_of, moments: Moments[Item] | None = None
) -> Moment[Item, Taken]:
    return (moments or Moments()).begin(items, Taken, lambda item: -item.number, number)


@pytest.mark.parametrize("number", [number_of, None], ids=["numbered", "set"])
@pytest.mark.parametrize("count", [0, 1, 10])
def test_what_changes_before_it_is_looked_at_is_seen_as_it_was_and_what_is_new_is_not_seen(
    number: Callable[[Item], int] | None, count: int
) -> None:
    moments: Moments[Item] = Moments()
    items = [Item(place) for place in range(count)]
    moment = begin(items, number, moments)
    while not moment.capture_some(3):
        for item in [*items, Item(count)]:
            for _ in range(2):
                moments.before_change(item)
                item.value += 1
    moments.before_change(Item(0))
    assert [taken.seen for taken in moment.results()] == [(place, 0) for place in reversed(range(count))]


def test_nothing_is_taken_twice_and_what_is_new_is_not_taken() -> None:
    taken = []
    moments: Moments[Item] = Moments()
    items = [Item(place) for place in range(10)]
    moment: Moment[Item, Taken] = moments.begin(items, taken.append, number_of, number_of)
    while not moment.capture_some(4):
        for item in [*items, Item(10)]:
            moments.before_change(item)
    assert sorted(map(number_of, taken)) == list(range(10))


def test_what_lies_between_the_items_and_is_none_of_them_is_not_seen() -> None:
    moments: Moments[Item] = Moments()
    moment = begin([Item(number) for number in (0, 2, 4)], moments=moments)
    moments.before_change(Item(1))
    while not moment.capture_some(2):
        moments.before_change(Item(3))
    assert [taken.seen for taken in moment.results()] == [(4, 0), (2, 0), (0, 0)]


def test_to_begin_hashes_no_item_that_has_a_number() -> None:
    Item.hashed = 0
    begin([Item(place) for place in range(10)])
    assert Item.hashed == 0


def test_each_result_is_forgotten_as_it_is_given() -> None:
    moment = begin([Item(place) for place in range(10)])
    while not moment.capture_some(4):
        pass
    given = [weakref.ref(taken) for taken in moment.results()]
    assert [one() for one in given[:-1]] == [None] * 9
    assert list(moment.results()) == []
