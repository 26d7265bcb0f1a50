"""Memory that the C library and Python's collector would keep, or walk through at once.

Invariant: nothing here changes what a program computes. `bound_memory` is called once, before there are threads;
`settle` when a start has loaded what it serves; `give_back` from a thread that may wait.
Measured with 10 million readings: RssAnon 174 MiB after a query over all of them, 107 once free memory was given back.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any, Final

_LIBC: Final = ctypes.CDLL(None)

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""malloc.h of glibc."""

MMAP_BYTES: Final = 256 * 1024
"""Larger blocks are mapped alone, and unmapped when they are free. Setting it keeps glibc from raising it to 32 MiB."""

ARENAS: Final = 2
"""By default 8 a core: threads that take turns with one lock would leave free memory in each."""


OLDEST: Final = 2
"""Generation of the collector whose survivors are frozen."""

YOUNG: Final = (700, 2, 2)
"""Allocations, and passes over one generation, before the next older one is looked at: some 6,000 objects at once.

Python's (700, 10, 10) lets a pass over the oldest meet 70,000, which holds the interpreter for 10 ms. Each object is
looked at as often, by more and shorter passes: of a query over 100,000 series the oldest's take 0.7 ms in the median.
"""


def bound_memory() -> None:
    """Free memory goes back to the system; the collector's longest pass stays short however much there is."""
    gc.set_threshold(*YOUNG)
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_MMAP_THRESHOLD, MMAP_BYTES)
        _LIBC.mallopt(_TRIM_THRESHOLD, MMAP_BYTES)
        _LIBC.mallopt(_ARENA_MAX, ARENAS)
    if _survivors.collected not in gc.callbacks:
        gc.callbacks.append(_survivors.collected)


def settle() -> None:
    """What a start has loaded is looked at once, now: not by a pass that holds the first queries up."""
    _survivors.begin_anew()
    gc.collect()
    # Python waits with the next pass until a quarter of what the last one left has come anew: of what is young now.
    gc.collect()


def give_back() -> None:
    """Free pages in the middle of the heap go too. Some milliseconds, without the interpreter's lock."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


class Survivors:
    """What survived a pass over the oldest generation is not looked at again, until twice as much memory is in use.

    Ten thousand series would make each such pass hold the interpreter for 30 ms (measured), for nothing: they are in
    no cycle. What is in one and ends later waits for the pass over everything, and those come ever more rarely. The
    measure is the allocator's own count of blocks (0.05 ms for two million): to count the frozen is a walk through
    all of them (25 ms for 240,000), in the middle of a query that makes and forgets as many.
    """

    def __init__(self) -> None:
        self._is_full_pass_next = True
        self._blocks_max = 0

    def begin_anew(self) -> None:
        """The next pass sets the measure: twice what it leaves."""
        self._is_full_pass_next = True

    def collected(self, phase: str, info: dict[str, Any]) -> None:
        """For gc.callbacks."""
        if phase != "stop" or info["generation"] < OLDEST:
            return
        gc.freeze()
        if self._is_full_pass_next:
            self._is_full_pass_next, self._blocks_max = False, 2 * sys.getallocatedblocks()
        elif sys.getallocatedblocks() > self._blocks_max:
            self._is_full_pass_next = True
            gc.unfreeze()


_survivors: Final = Survivors()
