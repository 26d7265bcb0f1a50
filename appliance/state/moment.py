"""Many series (or other things) as they stood at one moment, looked at a few at a time.

Invariant: what is taken of an item is what it was when the moment began. Whoever changes an item says so before
(`before_change`); then it is taken at once, out of turn. So ten thousand series are read, or captured for a
checkpoint, without holding the loop: a slice a turn, while apply goes on between. Loop thread, but for `results`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

ITEMS_PER_TURN: Final = 128
"""About 0.5 ms on a desktop, 2 ms on a Pi."""

Item = TypeVar("Item")
Taken = TypeVar("Taken")


class Moments(Generic[Item]):
    """Those under way; `before_change` costs one look where there is none."""

    def __init__(self) -> None:
        self._open: list[Moment[Item, Any]] = []

    def begin(
        self,
        items: Collection[Item],
        take: Callable[[Item], Taken | None],
        key: Callable[[Item], Any],
        number: Callable[[Item], int] | None = None,
    ) -> Moment[Item, Taken]:
        """take: None leaves the item out. key: the order of results. Take all of it, or close it.

        number: each item's own, ascending along items. It stands for a set of them, which for 100,000 takes 10 ms of
        the loop to make; an item whose number lies between theirs may then be taken for nothing.
        """
        moment = Moment(items, take, key, number, self._open.remove)
        self._open.append(moment)
        return moment

    def before_change(self, item: Item) -> None:
        for moment in self._open:
            moment.before_change(item)


class Moment(Generic[Item, Taken]):
    def __init__(
        self,
        items: Collection[Item],
        take: Callable[[Item], Taken | None],
        key: Callable[[Item], Any],
        number: Callable[[Item], int] | None,
        leave: Callable[[Moment[Item, Any]], None],
    ) -> None:
        self._take, self._key, self._number, self._leave = take, key, number, leave
        self._items = list(items)
        self._place = 0
        self._waiting: set[Item] | range
        if number is None:
            self._waiting = set(items)
        elif items:
            self._waiting = range(number(self._items[0]), number(self._items[-1]) + 1)
        else:
            self._waiting = range(0)
        self._early: dict[Item, Taken | None] = {}
        self._runs: list[list[tuple[Any, Taken]]] = []
        self.is_over = False

    def before_change(self, item: Item) -> None:
        if item not in self._early and self._is_waiting(item):
            self._early[item] = self._take(item)

    def capture_some(self, count: int = ITEMS_PER_TURN) -> bool:
        """Look at the next items; True: that was all."""
        if self.is_over:
            return True
        part = self._items[self._place : self._place + count]
        self._place += len(part)
        run: list[tuple[Any, Taken]] = []
        for item in part:
            taken = self._early.pop(item) if item in self._early else self._take(item)
            if taken is not None:
                run.append((self._key(item), taken))
        self._pass(part)
        run.sort(key=_FIRST)
        self._runs.append(run)
        if self._place >= len(self._items):
            self.close()
        return self.is_over

    def _is_waiting(self, item: Item) -> bool:
        return (self._number(item) if self._number else item) in self._waiting

    def _pass(self, part: list[Item]) -> None:
        if isinstance(self._waiting, set):
            self._waiting.difference_update(part)
        elif part and self._number:
            self._waiting = range(self._number(part[-1]) + 1, self._waiting.stop)

    def capture_all(self) -> None:
        self.capture_some(len(self._items))

    def close(self) -> None:
        """Also before its end; once more does nothing."""
        if not self.is_over:
            self.is_over = True
            self._items, self._waiting, self._early = [], range(0), {}
            self._leave(self)

    @property
    def taken_count(self) -> int:
        """Before results."""
        return sum(map(len, self._runs))

    def results(self) -> Iterator[Taken]:
        """What was taken, in order, once; on any thread when all of it was. Each is forgotten as it is given.

        To free a hundred thousand in one piece would hold all threads for 20 ms.
        """
        runs, self._runs = self._runs, []
        return map(_SECOND, heapq.merge(*map(drain, runs), key=_FIRST))


def drain(run: list[Taken]) -> Iterator[Taken]:
    """In order, each forgotten as it is given."""
    run.reverse()
    while run:
        yield run.pop()


_FIRST: Final = itemgetter(0)
_SECOND: Final = itemgetter(1)
