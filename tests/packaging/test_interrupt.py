"""Ctrl-C reaches the frozen program twice and interrupts it once."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

import pytest

_found = importlib.util.spec_from_file_location(
    "interrupt", Path(__file__).resolve().parents[2] / "packaging/pyinstaller/interrupt.py"
)
assert _found is not None
assert _found.loader is not None
hook = importlib.util.module_from_spec(_found)
_found.loader.exec_module(hook)


def test_the_second_signal_of_one_key_is_not_heard_and_a_second_key_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(hook.os, "_exit", ended.append)
    with pytest.raises(KeyboardInterrupt):
        hook.interrupt(signal.SIGINT, None, now_s=100.0)
    hook.interrupt(signal.SIGINT, None, now_s=102.9)
    assert ended == []
    hook.interrupt(signal.SIGINT, None, now_s=103.1)
    assert ended == [130]


def test_nothing_is_changed_where_the_program_is_not_frozen() -> None:
    assert signal.getsignal(signal.SIGINT) is not hook.interrupt
