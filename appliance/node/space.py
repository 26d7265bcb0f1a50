"""Room on the disk: the quota of journal and store, and what somebody else's files leave free.

Invariant: writes that need space are refused long before the disk is full, and taken again by themselves when there is
room; deletes, elections and retention go on. Loop thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.limits import MIB
from appliance.node.options import DROP_OLDEST, WRITE_LIMIT_PERCENT, NodeOptions
from appliance.state.oldest import Oldest
from raftberry.internal.v1 import command_pb2

DROP_AT_PERCENT: Final = 80
"""With `drop_oldest`: below the limit at which writes are refused, so that it is not reached."""

LOG_PART: Final = 8
LOG_SLACK_PART: Final = 32
"""Of a quota that is nearly used up the log has an eighth and some: readings are worth more than missed changes."""

_OFF_LIMITS_WHEN_FULL: Final = frozenset({"write", "put", "set_series"})


_FREE_WITH_CHECKPOINT: Final = frozenset({"delete", "expire", "delete_series", "drop_readings"})


def frees_space(operation: command_pb2.Operation) -> bool:
    """Not at once: with the checkpoint that covers it."""
    return operation.WhichOneof("kind") in _FREE_WITH_CHECKPOINT


def needs_space(operation: command_pb2.Operation) -> bool:
    return operation.WhichOneof("kind") in _OFF_LIMITS_WHEN_FULL


class Space:
    def __init__(self, options: Callable[[], NodeOptions]) -> None:
        """options: as they are now; an operator may change them while the node runs."""
        self._options = options
        self.store_bytes = 0
        """Without pages that are free to be used again; so is the journal's."""

        self.journal_bytes = 0
        self.disk_free_bytes: int | None = None
        """What anybody may still write to the file system of the data directory; None: not known."""

        self.log_can_shrink = False
        """A checkpoint will let the log be trimmed: it goes before readings."""

        self._waits_for_checkpoint = False
        self._obstacle = ""
        """Why no readings are dropped though they should be."""

        self.freed_bytes = 0
        """By the last checkpoint behind dropped readings."""

    @property
    def used_bytes(self) -> int:
        return self.store_bytes + self.journal_bytes

    def refusal(self) -> str:
        """Why nothing that needs space is taken; empty: it is."""
        options = self._options()
        percent = 100 * self.used_bytes // options.store_bytes_max
        if self.is_full:
            what = "delete series, or set storage.when_full = drop_oldest"
            if options.when_full == DROP_OLDEST:
                what = "the oldest readings are being dropped, retry later"
                if self._obstacle:
                    what = self._obstacle
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
    def is_full(self) -> bool:
        return 100 * self.used_bytes >= WRITE_LIMIT_PERCENT * self._options().store_bytes_max

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
        self._waits_for_checkpoint, self._obstacle = True, ""

    def weigh(self, oldest: Oldest, key_bytes: int) -> bool:
        """Whether all readings that may go would make room enough; if not, none shall: refusal says why.

        Then too a checkpoint is waited for: what was deleted makes room with it. key_bytes: of keys and their values.
        """
        droppable_bytes, waiting_bytes = oldest.droppable_bytes, oldest.waiting_bytes
        if oldest.drops and self._reaches_mark(droppable_bytes, waiting_bytes + key_bytes):
            return True
        if waiting_bytes and self._reaches_mark(droppable_bytes + waiting_bytes, key_bytes):
            self._obstacle = "no reading may be dropped before it is rolled up"
        else:
            self._obstacle = (
                f"dropping readings cannot make room enough, keys have {key_bytes} bytes: delete some"
            )
        self._waits_for_checkpoint = True
        return False

    def _reaches_mark(self, droppable_bytes: int, kept_bytes: int) -> bool:
        """What the store has beside them, of pages and indexes, goes and stays with them in equal parts."""
        excess_bytes = self.used_bytes - DROP_AT_PERCENT * self._options().store_bytes_max // 100
        content_bytes = max(droppable_bytes + kept_bytes, 1)
        return excess_bytes <= self.store_bytes * droppable_bytes // content_bytes

    @property
    def needs_checkpoint(self) -> bool:
        return self._waits_for_checkpoint

    def checkpointed(self, freed_bytes: int) -> None:
        self._waits_for_checkpoint, self.freed_bytes = False, freed_bytes
