"""A check that failed: which one, and what it saw."""

from __future__ import annotations


class CheckFailed(Exception):
    """check is the checker's name, the same in reports, tests and ablations."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check


def require(is_right: bool, check: str, message: str) -> None:
    """For checks off the hot path: the message is built either way."""
    if not is_right:
        raise CheckFailed(check, message)
