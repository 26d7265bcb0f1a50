"""The replicated state machine: `apply` for entries, reads, checkpoints.

Invariant: the logical content depends on the entries applied and nothing else. `apply` changes memory
only, is total (an operation is applied, a duplicate, or refused with nothing changed) and raises Fatal
for an entry that cannot be read, never for what a client wrote.
Contract of the caller, the loop thread alone: entries in order; a checkpoint is over before the next is begun; a
reader handed to `begin_query` or `begin_hash` was opened in the same turn of the loop.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from google.protobuf.unknown_fields import UnknownFieldSet

from appliance.errors import ConditionFailed, Fatal, InvalidArgument, NotApplied, WrittenByNewer
from appliance.model import CONFIGURATION, Configuration, Position, Verdict
from appliance.state.access import ACCESS_KINDS
from appliance.state.checkpoint import (
    CheckpointWork,
    begin_capture,
    capture_cost,
    read_outcome,
    restore_tables,
)
from appliance.state.configuration import decode_configuration, founding_configuration, to_member
from appliance.state.digest import PreparedHash, begin_hash
from appliance.state.entry import command_of
from appliance.state.keys import ELAPSED_MAX
from appliance.state.operations import decode_command
from appliance.state.producers import FirstTime, check_sequence
from appliance.state.query import PreparedQuery, begin_query
from appliance.state.reads import StateReads
from appliance.state.results import (
    Applied,
    EntryOutcome,
    KeyChange,
    OperationResult,
    QuerySpec,
    StateOptions,
)
from appliance.state.retention import RETENTION_KINDS
from appliance.state.series_table import decode_write, fingerprint_lone, fingerprint_write, is_lone
from appliance.state.tables import Tables
from appliance.storage.store import StoreReader
from raftberry.internal.v1 import command_pb2

_TOO_NEW: Final = (
    "log entry {index} needs a later version of Raftberry: this node stops, nothing is lost; install the version that "
    "the other nodes run"
)

DUE_MAX: Final = 1_000
"""Keys that one ExpireKeys names."""


class StateMachine(StateReads):
    def __init__(self, options: StateOptions | None = None) -> None:
        self._options = options or StateOptions()
        self._tables = Tables(self._options)
        self._checkpoint: CheckpointWork | None = None
        self._checkpointed = self._tables.position
        self._key_changes: list[KeyChange] = []
        self._ordinal = self._written_count = 0
        self._appliers: dict[str, Callable[[command_pb2.Operation], OperationResult]] = {
            "put": self._put,
            "delete": self._delete,
            "expire": self._expire,
            "set_series": self._set_series,
            "delete_series": self._delete_series,
            "found": self._found,
            **dict.fromkeys(ACCESS_KINDS, self._change_access),
            "verify_state": self._nothing,
            "raise_feature_level": self._raise_feature_level,
            **dict.fromkeys(RETENTION_KINDS, self._change_retention),
        }

    @classmethod
    def restore(cls, reader: StoreReader, options: StateOptions | None = None) -> StateMachine:
        """The state of a checkpoint. CorruptData when it makes no sense. Does not close reader."""
        machine = cls(options)
        restore_tables(machine._tables, reader)
        if machine.feature_level > machine._options.feature_level_max:
            raise WrittenByNewer(
                f"the cluster has feature level {machine.feature_level}, this version knows "
                f"{machine._options.feature_level_max}: nothing was changed; install the version of the other nodes"
            )
        machine._checkpointed = machine.position
        return machine

    def forget(self) -> None:
        """Another state took its place: let go of the series one by one, at once would take long. Any thread."""
        by_name = self._tables.series.by_name
        while by_name:
            by_name.popitem()

    # What has been applied

    @property
    def feature_level(self) -> int:
        """What every member of the cluster has learned: see features.py."""
        return self._tables.feature_level

    def apply(self, index: int, term: int, command: bytes) -> Applied:
        """command: an encoded Command without the type byte, b"" for a NO_OP.

        An entry at or below position is passed over: the checkpoint holds it.
        """
        tables = self._tables
        if index <= tables.position.index:
            return Applied(index, term)
        self._check_next(index, term)
        if not command:
            tables.position = Position(index, term)
            return Applied(index, term, outcome=EntryOutcome(index))
        message = decode_command(index, command)
        tables.position = Position(index, term)
        tables.elapsed_ns = min(tables.elapsed_ns + message.elapsed_nano, ELAPSED_MAX)
        plain = OperationResult(Verdict.APPLIED, index)
        results: list[OperationResult] = []
        self._written_count = 0
        for operation in message.operations:
            self._ordinal = len(results)
            results.append(self._apply_operation(operation, plain))
        skipped = tuple(
            ordinal for ordinal, result in enumerate(results) if result.verdict is not Verdict.APPLIED
        )
        outcome = EntryOutcome(index, skipped, tuple(self._key_changes))
        self._key_changes.clear()
        tables.outcomes.add(outcome)
        return Applied(index, term, tuple(results), outcome, message, self._written_count)

    def apply_entry(self, index: int, term: int, entry: bytes) -> Applied:
        """entry: as it stands in the log, with its type byte."""
        if entry.startswith(CONFIGURATION):
            return self.apply_configuration(index, term, decode_configuration(index, entry))
        return self.apply(index, term, command_of(index, entry))

    def apply_configuration(self, index: int, term: int, configuration: Configuration) -> Applied:
        """An entry that is a configuration: from here on it is the state's."""
        tables = self._tables
        if index > tables.position.index:
            self._check_next(index, term)
            tables.position = Position(index, term)
            tables.configuration, tables.configuration_changed = configuration, True
        return Applied(index, term, outcome=EntryOutcome(index))

    def _check_next(self, index: int, term: int) -> None:
        position = self._tables.position
        assert index == position.index + 1, f"entry {index} after {position.index}"
        assert term >= position.term, f"term {term} after {position.term}"

    # Reads

    def begin_query(self, spec: QuerySpec, reader: StoreReader) -> PreparedQuery:
        """The query on the state as it stands: capture it, then iterate it on any thread. It closes reader."""
        assert reader.position.index >= self._checkpointed.index, "reader is older than the checkpoint"
        return begin_query(self._tables.series, spec, reader, self.position)

    def prepare_query(self, spec: QuerySpec, reader: StoreReader) -> PreparedQuery:
        """As begin_query, captured at once: for few series."""
        prepared = self.begin_query(spec, reader)
        prepared.views.capture_all()
        return prepared

    def begin_hash(self, reader: StoreReader) -> PreparedHash:
        """The hash of the logical content as it stands: capture it, then run it on any thread. It closes reader."""
        assert reader.position.index >= self._checkpointed.index, "reader is older than the checkpoint"
        return begin_hash(self._tables, reader)

    def hash(self, reader: StoreReader) -> bytes:
        """SHA-256, the same on every node at the same position. Closes reader."""
        prepared = self.begin_hash(reader)
        while not prepared.capture_some():
            pass
        return prepared.run()

    def due_expirations(self) -> list[tuple[str, int]]:
        """(key, mod_revision) of at most DUE_MAX keys whose ttl has elapsed: for `expire_keys`."""
        return self._tables.keys.due(elapsed_ns=self._tables.elapsed_ns, limit=DUE_MAX)

    def next_expiry_elapsed_ns(self) -> int | None:
        """How much more time must elapse until a ttl is due; None: there is no ttl."""
        deadline = self._tables.keys.next_deadline()
        return None if deadline is None else max(deadline - self._tables.elapsed_ns, 0)

    def outcome(self, index: int, reader: StoreReader) -> EntryOutcome:
        """What of an applied entry took effect. Of entries forgotten or never applied: all of it."""
        fresh = self._tables.outcomes.fresh.get(index)
        return fresh or read_outcome(reader, index)

    def forget_outcomes_to(self, index: int) -> None:
        """The log holds no entry up to index any more: nobody asks for their outcomes."""
        self._tables.outcomes.forget_to(index)

    def forget_some(self) -> bool:
        """Give up the memory of some series that were deleted; True: that was all."""
        return self._tables.series.forget_some()

    # Checkpoints

    def begin_checkpoint(self) -> CheckpointWork:
        """What changed since the last one. Capture all of it; its batch is computed where it is called."""
        assert self._checkpoint is None, "a checkpoint is under way"
        self._checkpoint = begin_capture(self._tables, page_bytes=self._options.page_bytes)
        return self._checkpoint

    def capture_checkpoint(self) -> CheckpointWork:
        """As begin_checkpoint, captured at once."""
        work = self.begin_checkpoint()
        while not work.capture_some():
            pass
        return work

    def checkpoint_done(self, work: CheckpointWork) -> None:
        """work's batch is durable: what it holds leaves memory, at once."""
        while not self.release_some(work):
            pass

    def release_some(self, work: CheckpointWork) -> bool:
        """The same, a slice a turn; True: the checkpoint is over."""
        assert work is self._checkpoint, "not the checkpoint under way"
        self._checkpointed = work.position
        is_over = work.release_some(self._tables)
        if is_over:
            self._checkpoint = None
        return is_over

    def checkpoint_cost(self) -> int:
        """Estimate in bytes of what a checkpoint would write now."""
        return capture_cost(self._tables)

    # Operations

    def _apply_operation(self, operation: command_pb2.Operation, plain: OperationResult) -> OperationResult:
        try:
            if operation.HasField("write"):
                return self._write(operation, plain)
            kind = operation.WhichOneof("kind")
            if kind is None:
                if len(UnknownFieldSet(operation)):
                    raise Fatal(_TOO_NEW.format(index=plain.index))
                raise InvalidArgument("operation", "it holds nothing to do; nothing was done")
            return self._once(operation, kind)
        except NotApplied as error:
            return OperationResult(Verdict.REFUSED, plain.index, error)

    def _write(self, operation: command_pb2.Operation, plain: OperationResult) -> OperationResult:
        write = operation.write
        series = self._tables.series
        is_once = check_sequence(operation.producer_id, operation.sequence)
        if is_lone(write):
            fingerprint = fingerprint_lone(write) if is_once else 0
            first_time = self._first_time(operation, fingerprint) if is_once else None
            if first_time is not None:
                return OperationResult(Verdict.DUPLICATE, first_time.index)
            if not series.write_lone(write.columns):
                series.write(decode_write(write))
            self._written_count += len(write.columns)
        else:
            columns = decode_write(write)
            fingerprint = fingerprint_write(columns) if is_once else 0
            first_time = self._first_time(operation, fingerprint) if is_once else None
            if first_time is not None:
                return OperationResult(Verdict.DUPLICATE, first_time.index)
            series.write(columns)
            self._written_count += sum(message.count for message, _ in columns)
        if is_once:
            self._mark(operation, fingerprint, 0)
        return plain

    def _once(self, operation: command_pb2.Operation, kind: str) -> OperationResult:
        """Every kind but write: at most once for a producer's sequence."""
        applier = self._appliers[kind]
        if not check_sequence(operation.producer_id, operation.sequence):
            return applier(operation)
        content = getattr(operation, kind).SerializeToString(deterministic=True)
        fingerprint = zlib.crc32(content, zlib.crc32(kind.encode()))
        first_time = self._first_time(operation, fingerprint)
        if first_time is not None:
            return OperationResult(
                Verdict.DUPLICATE,
                first_time.index,
                mod_revision=first_time.result if kind == "put" else 0,
                deleted=kind == "delete" and bool(first_time.result),
                series_count=first_time.result if kind == "delete_series" else 0,
            )
        result = applier(operation)
        self._mark(operation, fingerprint, result.mod_revision or int(result.deleted) or result.series_count)
        return result

    def _first_time(self, operation: command_pb2.Operation, fingerprint: int) -> FirstTime | None:
        return self._tables.producers.find_first_time(operation.producer_id, operation.sequence, fingerprint)

    def _mark(self, operation: command_pb2.Operation, fingerprint: int, result: int) -> None:
        self._tables.producers.mark(
            operation.producer_id,
            operation.sequence,
            fingerprint=fingerprint,
            index=self.position.index,
            result=result,
        )

    def _put(self, operation: command_pb2.Operation) -> OperationResult:
        record = self._tables.keys.put(operation.put, elapsed_ns=self._tables.elapsed_ns)
        self._key_changes.append(
            KeyChange(self._ordinal, 0, record.mod_revision, record.create_revision, record.version)
        )
        return OperationResult(Verdict.APPLIED, self.position.index, mod_revision=record.mod_revision)

    def _delete(self, operation: command_pb2.Operation) -> OperationResult:
        delete = operation.delete
        condition = delete.if_mod_revision if delete.HasField("if_mod_revision") else None
        revision = self._tables.keys.delete(delete.key, if_mod_revision=condition)
        if revision is not None:
            self._key_changes.append(KeyChange(self._ordinal, 0, revision))
        return OperationResult(Verdict.APPLIED, self.position.index, deleted=revision is not None)

    def _expire(self, operation: command_pb2.Operation) -> OperationResult:
        expire = operation.expire
        if len(expire.keys) != len(expire.mod_revisions):
            raise InvalidArgument("mod_revisions", "not as many as keys; nothing was expired")
        for item, key in enumerate(expire.keys):
            revision = self._tables.keys.expire(key, mod_revision=expire.mod_revisions[item])
            if revision is not None:
                self._key_changes.append(KeyChange(self._ordinal, item, revision))
        return OperationResult(Verdict.APPLIED, self.position.index)

    def _set_series(self, operation: command_pb2.Operation) -> OperationResult:
        attributes = operation.set_series
        self._tables.series.set_attributes(
            attributes.sensor, attributes.metric, attributes.unit, attributes.labels
        )
        return OperationResult(Verdict.APPLIED, self.position.index)

    def _delete_series(self, operation: command_pb2.Operation) -> OperationResult:
        pattern = operation.delete_series
        count = self._tables.series.delete_matching(pattern.sensor, pattern.metric)
        return OperationResult(Verdict.APPLIED, self.position.index, series_count=count)

    def _change_retention(self, operation: command_pb2.Operation) -> OperationResult:
        self._tables.retention.apply(
            operation, index=self.position.index, feature_level=self._tables.feature_level
        )
        return OperationResult(Verdict.APPLIED, self.position.index)

    def _change_access(self, operation: command_pb2.Operation) -> OperationResult:
        self._tables.access.apply(operation, elapsed_ns=self._tables.elapsed_ns)
        return OperationResult(Verdict.APPLIED, self.position.index)

    def _nothing(self, _operation: command_pb2.Operation) -> OperationResult:
        """What concerns the nodes, not their state."""
        return OperationResult(Verdict.APPLIED, self.position.index)

    def _raise_feature_level(self, operation: command_pb2.Operation) -> OperationResult:
        level = operation.raise_feature_level.level
        if level > self._options.feature_level_max:
            raise Fatal(_TOO_NEW.format(index=self.position.index))
        self._tables.feature_level = max(self._tables.feature_level, level)
        return OperationResult(Verdict.APPLIED, self.position.index)

    def _found(self, operation: command_pb2.Operation) -> OperationResult:
        tables = self._tables
        if tables.configuration.version:
            raise ConditionFailed(
                f"the cluster was founded already with {len(tables.configuration.members)} members: nothing was changed"
            )
        if not operation.found.members:
            raise InvalidArgument("members", "a cluster has at least one member")
        members = map(to_member, operation.found.members)
        tables.configuration = founding_configuration(members, index=self.position.index)
        tables.configuration_changed = True
        return OperationResult(Verdict.APPLIED, self.position.index)
