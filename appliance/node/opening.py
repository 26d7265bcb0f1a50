"""The log in memory at a node's start: what follows the checkpoint, or the end of it, is read from the journal.

Invariant: entries below the first one in memory are durable, so that they can be read when a follower asks for them.
Called once, before the node's first cycle.
"""

from __future__ import annotations

from appliance.consensus import LogImage
from appliance.model import Entry
from appliance.storage.journal import Journal
from appliance.storage.recovery import RecoveryPlan


def open_log(journal: Journal, plan: RecoveryPlan, hot_bytes_max: int) -> LogImage:
    tail = _read_tail(journal, max(plan.checkpoint.index, plan.anchor.index) + 1, hot_bytes_max)

    def read_cold(first: int, count: int, size: int) -> list[Entry]:
        return journal.read(first, count_max=count, bytes_max=size)

    return LogImage(plan.anchor, plan.last, tail, plan.hard_state, read_cold)


def _read_tail(journal: Journal, first: int, bytes_max: int) -> list[Entry]:
    """The entries from first on, or the last bytes_max of them."""
    entries: list[Entry] = []
    size = 0
    while part := journal.read(first, count_max=1_024, bytes_max=1 << 20):
        entries += part
        size += sum(len(entry[0]) for entry in part)
        first = part[-1][1] + 1
        while size > bytes_max:
            size -= len(entries.pop(0)[0])
    return entries
