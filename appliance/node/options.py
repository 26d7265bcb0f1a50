"""What an operator may set about the running node. Filled by config.py."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.limits import GIB, MIB

REFUSE = "refuse"
DROP_OLDEST = "drop_oldest"


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

    when_full: str = REFUSE
    """REFUSE writes at the quota's limit, or DROP_OLDEST readings of all series before it is reached."""

    disk_free_bytes_min: int = 256 * MIB
    """Writes are refused while the file system has less for anybody: room for the log, elections and deletes."""

    retention_interval_ns: int = 600_000_000_000
    """Between two looks at all series for what their policies drop and roll up."""

    write_budget_bytes: int = 0
    """What this node shall write in a day at most; 0: no budget. The commit window grows to keep it."""

    scrub_interval_ns: int = 7 * 86_400 * 1_000_000_000
    """Everything is read and checked once in this time; 0: never."""

    scrub_bytes_per_second: int = MIB
    """A week is enough for 600 GB."""

    default_deadline_ns: int = 10_000_000_000
    """For unary calls that bring none."""


WRITE_LIMIT_PERCENT = 85
"""The rest is a reserve for elections, deletes and the checkpoint that frees space."""
