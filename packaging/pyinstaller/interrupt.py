"""Runs when the frozen program starts: makes one interrupt of one Ctrl-C.

The terminal sends SIGINT to PyInstaller's bootloader and to the program below it, and the bootloader passes its own on:
the second one would break off what the first one has begun to clean up (`raftberry watch` then hung in gRPC).
What asks asyncio for its signals, as the server does, hears both and does not mind.
"""

import os
import signal
import sys
import time

SAME_S = 3.0
"""SIGINT within this time of the first is the same Ctrl-C: a loaded machine lets the bootloader pass it on late."""

_first: list[float] = []


def interrupt(number: int, frame: object, *, now_s: float | None = None) -> None:
    """Python's own handler for the first Ctrl-C; a person who presses again does not want to wait any longer."""
    now_s = time.monotonic() if now_s is None else now_s
    if not _first:
        _first.append(now_s)
        raise KeyboardInterrupt
    if now_s - _first[0] > SAME_S:
        os._exit(128 + number)


if hasattr(sys, "_MEIPASS") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupt)
