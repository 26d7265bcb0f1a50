"""What of an entry took effect, for watchers: live, and again when a watch is replayed from the journal.

Invariant: `effects` depends on the command and its outcome only, so that both ways give the same events.
The outcomes that say more than "all of it" are kept until the log is trimmed past them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from appliance.state.operations import decode_command
from appliance.state.results import EntryEffects, EntryOutcome, KeyChange, KeyEvent, KeyEventKind
from raftberry.internal.v1 import command_pb2


def effects(command: bytes | command_pb2.Command | None, outcome: EntryOutcome) -> EntryEffects:
    """command: without the type byte, or Applied.command; nothing of a NO_OP."""
    if not command:
        return EntryEffects()
    message = decode_command(outcome.index, command) if isinstance(command, bytes) else command
    skipped = frozenset(outcome.skipped)
    readings: list[command_pb2.SeriesColumns] = []
    for ordinal, operation in enumerate(message.operations):
        if operation.HasField("write") and ordinal not in skipped:
            readings.extend(operation.write.columns)
        elif operation.HasField("roll_up") and ordinal not in skipped:
            readings.extend(operation.roll_up.columns)
    key_events = tuple(
        _key_event(message.operations[change.ordinal], change) for change in outcome.key_changes
    )
    return EntryEffects(tuple(readings), key_events)


class OutcomeTable:
    """Outcomes of entries, those that are not plain. fresh: not in a checkpoint yet."""

    def __init__(self) -> None:
        self.fresh: dict[int, EntryOutcome] = {}
        self.stored: deque[int] = deque()
        self.forgotten: list[int] = []

    def load(self, indexes: Iterable[int]) -> None:
        """The indexes whose outcomes a checkpoint holds, ascending."""
        self.stored.extend(indexes)

    def add(self, outcome: EntryOutcome) -> None:
        if not outcome.is_plain:
            self.fresh[outcome.index] = outcome

    def forget_to(self, index: int) -> None:
        """Outcomes up to index are not asked for again: the log no longer holds their entries."""
        while self.stored and self.stored[0] <= index:
            self.forgotten.append(self.stored.popleft())
        for fresh in [fresh for fresh in self.fresh if fresh <= index]:
            del self.fresh[fresh]


def _key_event(operation: command_pb2.Operation, change: KeyChange) -> KeyEvent:
    if operation.HasField("put"):
        put = operation.put
        return KeyEvent(
            kind=KeyEventKind.PUT,
            key=put.key,
            mod_revision=change.mod_revision,
            value=put.value,
            create_revision=change.create_revision,
            version=change.version,
            ttl_seconds=put.ttl_seconds,
        )
    if operation.HasField("expire"):
        return KeyEvent(KeyEventKind.EXPIRE, operation.expire.keys[change.item], change.mod_revision)
    return KeyEvent(KeyEventKind.DELETE, operation.delete.key, change.mod_revision)
