"""Feature levels: what the members of a cluster have all learned, so that versions can be mixed during an upgrade.

Invariant: an operation, an entry or a frame that needs level N is used only once the replicated state says N, and it
says N only after every member has said that its software knows N. A version that does not know the level of its
cluster does not take part: it would read entries differently.
A new kind of operation comes with a line in REQUIRED and a higher LEVEL, another form of entry or frame with a level of
its own, which is asked for where it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FIRST: Final = 1
"""What a cluster has at birth."""

DEFLATED_ENTRIES: Final = 2
"""Entries may be deflated: see state/entry.py."""

ROLL_UPS_OUTLIVE: Final = 3
"""What retention took of a series is remembered beside its roll-ups: see state/retention.py."""

LEVEL: Final = 3
"""The highest level that this version knows."""

REQUIRED: Final[Mapping[str, int]] = {}
"""Kind of operation (a field of Operation.kind) to the level that it needs; what is not here needs FIRST."""

assert FIRST <= LEVEL
assert all(FIRST < level <= LEVEL for level in REQUIRED.values())
