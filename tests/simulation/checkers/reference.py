"""The simplest state machine that could be: what the log means, told from the operations and their verdicts.

Invariant: entries are taken once each, in order, from whichever node applies them first.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass

from appliance.model import Verdict
from appliance.state import Applied, OperationResult
from appliance.state.columns import decode_columns
from raftberry.internal.v1 import command_pb2
from tests.simulation.failure import CheckFailed

OperationId = int


@dataclass(frozen=True, slots=True)
class KeyState:
    index: int
    mod_revision: int
    value: bytes | None


class Reference:
    def __init__(self) -> None:
        self.index = 1
        self.signatures: list[object] = []
        self.applied_at: dict[OperationId, int] = {}
        self.by_sequence: dict[tuple[str, int], OperationId] = {}
        """Filled by the workload: who sent a producer's sequence."""

        self.void: set[OperationId] = set()
        """Operations whose callers were told that they have no effect and never will."""

        self.keys: dict[str, list[KeyState]] = {}
        self.readings: dict[tuple[str, str], dict[int, int]] = {}
        self.changes: dict[int, list[tuple[str, int, bytes | None]]] = {}
        """Index of an entry -> keys it changed: name, revision, value."""

        self.written: dict[int, list[tuple[str, str, int]]] = {}
        """Index of an entry -> readings it wrote: sensor, metric, how many."""

        self._sequences: set[tuple[str, int]] = set()
        self._revision = 0

    def key_at(self, key: str, index: int) -> KeyState:
        """The key as of the entry at index."""
        states = self.keys.get(key, [])
        place = bisect_right(states, index, key=lambda state: state.index)
        return states[place - 1] if place else KeyState(0, 0, None)

    def live_keys(self) -> dict[str, tuple[bytes, int]]:
        last = {key: states[-1] for key, states in self.keys.items()}
        return {key: (s.value, s.mod_revision) for key, s in sorted(last.items()) if s.value is not None}

    def apply(self, applied: Applied) -> None:
        self.index = applied.index
        self.signatures.append(signature(applied))
        if applied.command is None:
            return
        for operation, result in zip(applied.command.operations, applied.results, strict=True):
            self._check_once(operation, result)
            if result.verdict is Verdict.APPLIED:
                self._note(operation, applied.index)
                self._change(operation, applied.index)

    def _check_once(self, operation: command_pb2.Operation, result: OperationResult) -> None:
        if not operation.sequence:
            return
        sequence = (operation.producer_id, operation.sequence)
        if result.verdict is Verdict.APPLIED and sequence in self._sequences:
            raise CheckFailed("exactly_once", f"producer and sequence {sequence} were applied twice")
        if result.verdict is Verdict.DUPLICATE and sequence not in self._sequences:
            raise CheckFailed("exactly_once", f"{sequence} was called a duplicate the first time")
        if result.verdict is Verdict.APPLIED:
            self._sequences.add(sequence)

    def _note(self, operation: command_pb2.Operation, index: int) -> None:
        identity = identify(operation, self.by_sequence)
        if identity is None:
            return
        if identity in self.applied_at:
            raise CheckFailed(
                "exactly_once",
                f"operation {identity} was applied at {self.applied_at[identity]} and at {index}",
            )
        if identity in self.void:
            raise CheckFailed(
                "not_applied_is_final", f"operation {identity} was refused, and applied at {index}"
            )
        self.applied_at[identity] = index

    def _change(self, operation: command_pb2.Operation, index: int) -> None:
        match operation.WhichOneof("kind"):
            case "put":
                self._set_key(operation.put.key, index, operation.put.value)
            case "delete":
                if self.key_at(operation.delete.key, index).value is not None:
                    self._set_key(operation.delete.key, index, None)
            case "expire":
                expire = operation.expire
                for key, revision in zip(expire.keys, expire.mod_revisions, strict=True):
                    held = self.key_at(key, index)
                    if held.value is not None and held.mod_revision == revision:
                        self._set_key(key, index, None)
            case "write":
                for columns in operation.write.columns:
                    written = (columns.sensor, columns.metric, columns.count)
                    self.written.setdefault(index, []).append(written)
                    decoded = decode_columns(columns)
                    series = self.readings.setdefault((columns.sensor, columns.metric), {})
                    series.update(zip(decoded.times.tolist(), decoded.values.tolist(), strict=True))

    def _set_key(self, key: str, index: int, value: bytes | None) -> None:
        self._revision += 1
        self.changes.setdefault(index, []).append((key, self._revision, value))
        self.keys.setdefault(key, []).append(KeyState(index, self._revision, value))


def identify(
    operation: command_pb2.Operation, by_sequence: dict[tuple[str, int], OperationId]
) -> OperationId | None:
    """Which operation of the workload this is, told from its content; None: of no client."""
    if operation.sequence:
        return by_sequence[operation.producer_id, operation.sequence]
    match operation.WhichOneof("kind"):
        case "put":
            return int(operation.put.value.split(b" ")[0])
        case "write":
            first: int = struct.unpack_from("<q", operation.write.columns[0].values)[0]
            return first
        case _:
            return None


def signature(applied: Applied) -> object:
    """What every node must agree upon."""
    results = tuple(
        (result.verdict.value, result.mod_revision, result.deleted, result.series_count)
        for result in applied.results
    )
    return applied.term, results
