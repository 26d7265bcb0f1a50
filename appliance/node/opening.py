"""The log in memory at a node's start: what follows the checkpoint, or the end of it, is read from the journal.

Invariant: entries below the first one in memory are durable, so that they can be read when a follower asks for them;
and no configuration in the log is overlooked: all of them count before the first message (H13).
Called once, before the node's first cycle.
"""

from __future__ import annotations

from appliance.consensus import LogImage
from appliance.model import CONFIGURATION, Configuration, Entry
from appliance.node.identity import Self
from appliance.state.configuration import decode_configuration, founding_configuration
from appliance.storage.journal import Journal
from appliance.storage.recovery import RecoveryPlan


def open_log(
    journal: Journal, plan: RecoveryPlan, hot_bytes_max: int, *, configuration: Configuration
) -> LogImage:
    """configuration: as of the checkpoint."""
    first = max(plan.checkpoint.index, plan.anchor.index) + 1
    tail, configurations = _read_tail(journal, first, hot_bytes_max)

    def read_cold(first: int, count: int, size: int) -> list[Entry]:
        return journal.read(first, count_max=count, bytes_max=size)

    return LogImage(
        plan.anchor, plan.last, tail, plan.hard_state, read_cold, [configuration, *configurations]
    )


def first_configuration(me: Self, held: Configuration) -> Configuration:
    """Where the log's own configurations start: what the state holds, or the founders before they are in it.

    A node that joined begins with none: it takes no part until the log, or a snapshot, tells it of the cluster.
    """
    if held.version or me.members_version > 1:
        return held
    return founding_configuration(me.members)


def _read_tail(journal: Journal, first: int, bytes_max: int) -> tuple[list[Entry], list[Configuration]]:
    """The entries from first on, or the last bytes_max of them; every configuration among them."""
    entries: list[Entry] = []
    configurations: list[Configuration] = []
    size = 0
    while part := journal.read(first, count_max=1_024, bytes_max=1 << 20):
        entries += part
        configurations += [
            decode_configuration(index, command)
            for command, index, _ in part
            if command.startswith(CONFIGURATION)
        ]
        size += sum(len(entry[0]) for entry in part)
        first = part[-1][1] + 1
        while size > bytes_max:
            size -= len(entries.pop(0)[0])
    return entries, configurations
