"""What an operator may set about the running node. Filled by config.py."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.limits import GIB, MIB


@dataclass(frozen=True, slots=True)
class NodeOptions:
    journal_bytes_max: int = 256 * MIB
    """The journal is trimmed to this even if a connected follower then needs a snapshot."""

    watch_keep_bytes: int = 64 * MIB
    """Log that is kept for watches to resume in and for followers that were away."""

    checkpoint_bytes_min: int = 8 * MIB
    """Log between two checkpoints, at least; more when heads are many (design: section 3)."""

    store_bytes_max: int = 8 * GIB
    """Quota: writes are refused at WRITE_LIMIT_PERCENT of it."""

    default_deadline_ns: int = 10_000_000_000
    """For unary calls that bring none."""


WRITE_LIMIT_PERCENT = 85
"""The rest is a reserve for elections, deletes and the checkpoint that frees space."""
