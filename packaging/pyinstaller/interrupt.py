"""Runs when the frozen program starts: makes one interrupt of one Ctrl-C.

The terminal sends SIGINT to PyInstaller's bootloader and to the program below it, and the bootloader passes its own on:
the second one would break off what the first one has begun to clean up (`raftberry watch` then hung in gRPC).
What asks asyncio for its signals, as the server does, hears both and does not mind.
"""

import signal
import sys
import time

SAME_S = 1.0
"""SIGINT within this time of another is the same Ctrl-C; a person who means it presses again."""

_last = {"s": float("-inf")}


def interrupt(number: int, frame: object, *, now_s: float | None = None) -> None:
    """Python's own handler, once for each Ctrl-C."""
    now_s = time.monotonic() if now_s is None else now_s
    before_s, _last["s"] = _last["s"], now_s
    if now_s - before_s > SAME_S:
        raise KeyboardInterrupt


if hasattr(sys, "_MEIPASS") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupt)
