"""What a version put on a disk or sent to a node is read by every later one, and said in the same bytes."""

from __future__ import annotations

import pytest

from tests.golden_messages import describe, missing_fields, parse, read_lines

LINES = read_lines()


@pytest.mark.parametrize(("name", "encoded", "text"), LINES, ids=lambda value: str(value)[:40])
def test_bytes_mean_what_they_meant(name: str, encoded: bytes, text: str) -> None:
    message = parse(name, encoded)
    assert describe(message) == text
    assert message.SerializeToString(deterministic=True) == encoded


def test_every_field_has_its_bytes() -> None:
    """A new field: `python -m tests.golden_messages` adds a line, and the others stay as they are."""
    assert missing_fields() == set()
