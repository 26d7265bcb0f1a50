"""What survived is passed over by the collector, but not for ever."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from appliance.host import memory
from appliance.host.memory import Survivors, give_back, settle

OLDEST = {"generation": 2}


class Ring:
    def __init__(self) -> None:
        self.ring = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.collect()


def test_survivors_of_a_full_pass_are_frozen_and_young_cycles_are_still_found() -> None:
    survivors = Survivors()
    gc.collect()
    survivors.collected("stop", OLDEST)
    assert gc.get_freeze_count() > 1_000
    lost = weakref.ref(Ring())
    gc.collect()
    assert lost() is None


def test_a_cycle_that_ended_after_it_was_frozen_goes_when_memory_in_use_has_doubled() -> None:
    survivors = Survivors()
    ring = Ring()
    lost = weakref.ref(ring)
    gc.collect()
    survivors.collected("stop", OLDEST)
    del ring
    gc.collect()
    survivors.collected("stop", OLDEST)
    assert lost() is not None
    kept = [[number] for number in range(sys.getallocatedblocks())]
    gc.collect()
    survivors.collected("stop", OLDEST)
    assert gc.get_freeze_count() == 0, "the next pass looks at everything"
    gc.collect()
    assert lost() is None
    survivors.collected("stop", OLDEST)
    assert gc.get_freeze_count() > len(kept)


def test_what_was_frozen_and_is_gone_neither_counts_nor_is_walked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    survivors = Survivors()
    gc.collect()
    survivors.collected("stop", OLDEST)
    frozen = gc.get_freeze_count()
    monkeypatch.setattr(gc, "get_freeze_count", lambda: pytest.fail("a walk through all that is frozen"))
    monkeypatch.setattr(gc, "unfreeze", lambda: pytest.fail("the next pass would look at everything"))
    kept: list[list[int]] = []
    for _ in range(8):
        kept.clear()
        kept.extend([number] for number in range(frozen // 2))
        gc.collect()
        survivors.collected("stop", OLDEST)
    monkeypatch.undo()
    assert gc.get_freeze_count() > frozen + len(kept) // 2, "what survives is still set aside"


def test_what_a_start_has_loaded_is_the_measure_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    survivors = Survivors()
    monkeypatch.setattr(memory, "_survivors", survivors)
    gc.callbacks.append(survivors.collected)
    gc.disable()
    try:
        gc.collect()
        small = gc.get_freeze_count()
        loaded = [[number] for number in range(3 * small)]
        settle()
        assert gc.get_freeze_count() > len(loaded), "it was the pass over everything"
        more = [[number] for number in range(2 * small)]
        gc.collect()
        assert gc.get_freeze_count() > len(loaded) + len(more), "half as much again is not twice as much"
    finally:
        gc.enable()
        gc.callbacks.remove(survivors.collected)


def test_what_comes_after_a_start_is_looked_at_in_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would wait for a quarter of what the start had left, and look at all of that at once."""
    survivors = Survivors()
    monkeypatch.setattr(memory, "_survivors", survivors)
    thresholds = gc.get_threshold()
    gc.disable()
    loaded = [[number] for number in range(400_000)]
    gc.callbacks.append(survivors.collected)
    passes: list[int] = []
    try:
        settle()
        gc.callbacks.append(lambda phase, info: passes.append(info["generation"]))
        gc.set_threshold(*memory.YOUNG)
        gc.enable()
        more = [[number] for number in range(30_000)]
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.pop()
        gc.callbacks.remove(survivors.collected)
    assert passes.count(memory.OLDEST) >= 4, len(loaded) + len(more)


def test_passes_over_the_young_freeze_nothing() -> None:
    Survivors().collected("stop", {"generation": 1})
    Survivors().collected("start", OLDEST)
    assert gc.get_freeze_count() == 0


def test_memory_is_given_back() -> None:
    give_back()
