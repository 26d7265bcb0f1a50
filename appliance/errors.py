"""Our errors. The class is the verdict on the request, the text is the user's message.

NotApplied: the write has no effect and never will; retry freely.
OutcomeUnknown: it may or may not be applied; retry with the same producer and sequence.
Fatal: the process must end (storage failed, data in doubt, a bug).
Foreign errors are translated once, where they enter, with `raise ... from`.
"""

from __future__ import annotations

from typing import ClassVar


class RaftberryError(Exception):
    """Base of all our errors. str(error) is complete: what failed, what was done, what to do."""

    leaves_doubt: ClassVar[bool] = False
    """A write of the caller's may have been applied, or may still be."""

    @property
    def message(self) -> str:
        return str(self)


class NotApplied(RaftberryError):
    """The request had no effect and never will have."""


class InvalidArgument(NotApplied):
    """A field of the request is wrong; field is its path as in the proto (`readings[0].sensor`)."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.description = message


class NoLeader(NotApplied):
    """No leader or no majority is reachable from here."""


class Overloaded(NotApplied):
    """A queue, quota or disk is full; retry later."""


class ConditionFailed(NotApplied):
    """The condition of a Put or Delete, or a setting made once, does not hold."""


class SequenceTooOld(NotApplied):
    """The sequence lies below the producer's window: this request did nothing, an earlier one with it may have."""

    leaves_doubt = True


class SequenceReused(NotApplied):
    """The producer's sequence was applied before with other content."""


class HistoryGone(NotApplied):
    """A watch wants to resume before the earliest retained index."""

    def __init__(self, message: str, earliest_index: int) -> None:
        super().__init__(message)
        self.earliest_index = earliest_index


class IndexNotReached(NotApplied):
    """A watch wants to resume behind an index that the cluster's log does not have."""

    def __init__(self, message: str, last_index: int) -> None:
        super().__init__(message)
        self.last_index = last_index


class ClientStalled(NotApplied):
    """The caller of a read has taken nothing of it for too long."""


class NotFound(NotApplied):
    """The named thing does not exist."""


class Quarantined(NotApplied):
    """This node is in doubt about its own data and does not serve."""


class Unauthenticated(NotApplied):
    """The request names no token, or one that is not known, was revoked or has ended."""


class PermissionDenied(NotApplied):
    """The token does not allow this."""


class RateLimited(Overloaded):
    """The token's rate is used up; retry_ms: when there is room again."""

    def __init__(self, message: str, retry_ms: int) -> None:
        super().__init__(message)
        self.retry_ms = retry_ms


class OutcomeUnknown(RaftberryError):
    """The deadline passed, or the trail was lost, while the request may still be applied."""

    leaves_doubt = True


class Fatal(RaftberryError):
    """The process cannot go on; exit without answering."""


class StorageFailed(Fatal):
    """LMDB or the file system refused a read, a commit or an open."""


class CorruptData(Fatal):
    """A checksum, a size or an invariant on disk is wrong. where names the record."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where


class DataDirectoryRefused(Fatal):
    """The data directory is not this node's: other node, machine, cluster, format, or in use."""


class InDoubt(DataDirectoryRefused):
    """It was this node's, and no node may vote with it any more: another machine's card, partly wiped, damaged."""


class WrittenByNewer(DataDirectoryRefused):
    """A later version wrote this: the data is well, and another program must read it."""


class ConfigurationError(RaftberryError):
    """An option is missing, unknown or out of range."""
