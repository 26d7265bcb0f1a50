"""What clients did and heard, in the order of simulated time.

Invariant: an outcome is one of applied (with an index), not applied, unknown. `latest_index` is the highest index any
client was told of so far: what begins later must not be older (strict serializability, with the log as the witness).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.checkers.reference import Reference
from tests.simulation.failure import CheckFailed, require


@dataclass(slots=True)
class Attempted:
    """One operation of a client, over all its attempts."""

    identity: int
    kind: str
    begun_after_index: int
    begun_ns: int
    is_in_doubt: bool = False
    """An attempt ended unknown: no later answer can say that it has no effect."""


@dataclass(frozen=True, slots=True)
class RegisterWrite:
    """A Put of a unique value. ended_ns None: its outcome is not known."""

    key: str
    identity: int
    begun_ns: int
    ended_ns: int | None


@dataclass(frozen=True, slots=True)
class RegisterRead:
    """identity: of the Put it returned; 0: nothing was there."""

    key: str
    identity: int
    begun_ns: int
    ended_ns: int


@dataclass(slots=True)
class History:
    reference: Reference
    latest_index: int = 1
    counts: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[int, int] = field(default_factory=dict)
    writes: list[RegisterWrite] = field(default_factory=list)
    reads: list[RegisterRead] = field(default_factory=list)
    _read_here: dict[tuple[int, int], int] = field(default_factory=dict)

    def was_applied(self, operation: Attempted, index: int, *, is_duplicate: bool) -> None:
        """A client was told that its operation is in the log at index."""
        self.counts["acknowledged"] += 1
        at = self.reference.applied_at.get(operation.identity)
        if at is None or (index != at and not (is_duplicate and index == 0)):
            raise CheckFailed(
                "acknowledged_is_applied",
                f"{operation.kind} {operation.identity} was acknowledged at {index} and applied at {at}",
            )
        if at <= operation.begun_after_index:
            raise CheckFailed(
                "linearizable_writes",
                f"{operation.kind} {operation.identity} began after {operation.begun_after_index} was known, and "
                f"stands at {at}",
            )
        self.acknowledged[operation.identity] = at
        self.latest_index = max(self.latest_index, at)

    def was_not_applied(self, operation: Attempted) -> None:
        """A client was told that its operation has no effect and never will have."""
        self.counts["not_applied"] += 1
        if operation.identity in self.reference.applied_at:
            raise CheckFailed(
                "not_applied_is_final",
                f"{operation.kind} {operation.identity} was refused, but applied at "
                f"{self.reference.applied_at[operation.identity]}",
            )
        self.reference.void.add(operation.identity)

    def was_lost(self, operation: Attempted) -> None:
        self.counts["unknown"] += 1

    def was_read(
        self, key: str, value: bytes | None, mod_revision: int, index: int, after_index: int
    ) -> None:
        """A linearizable read returned what the node held at index."""
        self.counts["read"] += 1
        if index < after_index:
            raise CheckFailed(
                "linearizable_reads",
                f"a read of {key} saw index {index}; {after_index} was known before it began",
            )
        self._check_value("linearizable_reads", key, value, mod_revision, index)
        self.latest_index = max(self.latest_index, index)

    def was_read_here(
        self, life: tuple[int, int], key: str, value: bytes | None, mod_revision: int, index: int
    ) -> None:
        """A local read in one life of a node."""
        self.counts["read_here"] += 1
        if index < self._read_here.get(life, 0):
            raise CheckFailed(
                "local_reads_monotonic", f"{key} was read at {index} after {self._read_here[life]}"
            )
        self._read_here[life] = index
        self._check_value("local_reads", key, value, mod_revision, index)

    def _check_value(self, check: str, key: str, value: bytes | None, mod_revision: int, index: int) -> None:
        expected = self.reference.key_at(key, index)
        held = expected.mod_revision if expected.value is not None else 0
        if (value, mod_revision) != (expected.value, held):
            raise CheckFailed(check, f"{key} at {index} read as revision {mod_revision}, the log says {held}")

    def check_nothing_lost(self) -> None:
        """At the end: all that was acknowledged is in the log."""
        missing = [identity for identity in self.acknowledged if identity not in self.reference.applied_at]
        require(not missing, "acknowledged_is_applied", f"{len(missing)} acknowledged operations are lost")
