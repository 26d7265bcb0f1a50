"""Room on the disk: the quota of journal and store, and what somebody else's files leave free.

Invariant: writes that need space are refused long before the disk is full, and taken again by themselves when there is
room; deletes, elections and retention go on. Loop thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.limits import MIB
from appliance.node.options import DROP_OLDEST, WRITE_LIMIT_PERCENT, NodeOptions
from raftberry.internal.v1 import command_pb2

DROP_AT_PERCENT: Final = 80
"""With `drop_oldest`: below the limit at which writes are refused, so that it is not reached."""

LOG_PART: Final = 8
LOG_SLACK_PART: Final = 32
"""Of a quota that is nearly used up the log has an eighth and some: readings are worth more than missed changes."""

_OFF_LIMITS_WHEN_FULL: Final = frozenset({"write", "put", "set_series"})


def needs_space(operation: command_pb2.Operation) -> bool:
    return operation.WhichOneof("kind") in _OFF_LIMITS_WHEN_FULL


class Space:
    def __init__(self, options: Callable[[], NodeOptions]) -> None:
        """options: as they are now; an operator may change them while the node runs."""
        self._options = options
        self.used_bytes = 0
        """Journal and store, without pages that are free to be used again."""

        self.disk_free_bytes: int | None = None
        """What anybody may still write to the file system of the data directory; None: not known."""

        self.log_can_shrink = False
        """A checkpoint will let the log be trimmed: it goes before readings."""

        self._waits_for_checkpoint = False
        self._may_drop_nothing = False
        self.freed_bytes = 0
        """By the last checkpoint behind dropped readings."""

    def refusal(self) -> str:
        """Why nothing that needs space is taken; empty: it is."""
        options = self._options()
        percent = 100 * self.used_bytes // options.store_bytes_max
        if percent >= WRITE_LIMIT_PERCENT:
            what = "delete series, or set storage.when_full = drop_oldest"
            if options.when_full == DROP_OLDEST:
                what = "the oldest readings are being dropped, retry later"
                if self._may_drop_nothing:
                    what = "no reading may be dropped before it is rolled up"
            if self.log_can_shrink:
                what = "a checkpoint is making room in the log, retry later"
            return (
                f"store is {percent}% full ({self.used_bytes} bytes, limit {WRITE_LIMIT_PERCENT}%): refusing writes; "
                f"raise storage.size_max or shorten retention; {what}"
            )
        free = self.disk_free_bytes
        if free is not None and free < options.disk_free_bytes_min:
            return (
                f"the disk has {free // MIB} MiB free (limit {options.disk_free_bytes_min // MIB} MiB, "
                f"storage.disk_free_min): refusing writes; Raftberry uses {self.used_bytes // MIB} MiB of it, remove "
                "other files"
            )
        return ""

    def wants_less(self) -> bool:
        """Whether the oldest readings shall go now."""
        options = self._options()
        if options.when_full != DROP_OLDEST or self._waits_for_checkpoint or self.log_can_shrink:
            return False
        return self.is_tight

    @property
    def is_tight(self) -> bool:
        return 100 * self.used_bytes >= DROP_AT_PERCENT * self._options().store_bytes_max

    def log_bytes_kept(self) -> int:
        """What of the log stays behind a checkpoint, for watches and followers."""
        options = self._options()
        keep = options.watch_keep_bytes
        return min(keep, options.store_bytes_max // LOG_PART) if self.is_tight else keep

    def log_slack_bytes(self) -> int:
        """A checkpoint is due when the log has grown by so much, in a quota that is nearly used up."""
        return self._options().store_bytes_max // LOG_SLACK_PART

    def dropped(self) -> None:
        """What is used is known after the checkpoint that takes it out."""
        self._waits_for_checkpoint, self._may_drop_nothing = True, False

    def nothing_to_drop(self) -> None:
        self._may_drop_nothing = True

    @property
    def needs_checkpoint(self) -> bool:
        return self._waits_for_checkpoint

    def checkpointed(self, freed_bytes: int) -> None:
        self._waits_for_checkpoint, self.freed_bytes = False, freed_bytes
