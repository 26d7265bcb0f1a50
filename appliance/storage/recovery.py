"""Brings journal and store together at start, before the first message is sent.

Invariant: afterwards the log begins at or below the checkpoint and holds its (index, term), and
nothing between the checkpoint and the commit index is missing. The journal is written before the
store, but for a snapshot install: so a store ahead of the log is an install whose crash came
before the journal's reset, and a store behind the log's start is damage.
`plan_recovery` is pure; `recover` applies it. Called once, by whoever starts the node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from appliance.errors import CorruptData
from appliance.model import HardState, Position
from appliance.storage.batch import JournalOperation, Reset, SetHardState
from appliance.storage.journal import Journal, RecoveredJournal
from appliance.storage.records import REBUILD_HINT
from appliance.storage.store import Store


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """Where the node starts once operations are durable.

    The state is the store's, at checkpoint; entries from checkpoint.index + 1 up to
    hard_state.commit_index are replayed onto it.
    """

    operations: tuple[JournalOperation, ...]
    anchor: Position
    last: Position
    checkpoint: Position
    hard_state: HardState

    @property
    def first_index_to_replay(self) -> int:
        return self.checkpoint.index + 1


def recover(journal: Journal, store: Store) -> tuple[RecoveredJournal, RecoveryPlan]:
    """Verify, plan, make the plan durable. The journal's memory of peers and boots is returned too."""
    recovered = journal.recover()
    checkpoint = store.checkpoint()
    plan = plan_recovery(recovered, checkpoint, term_at_checkpoint=_term_at(journal, recovered, checkpoint))
    if plan.operations:
        journal.commit(plan.operations)
    return recovered, plan


def plan_recovery(
    recovered: RecoveredJournal, checkpoint: Position, *, term_at_checkpoint: int | None
) -> RecoveryPlan:
    """term_at_checkpoint: what the log holds at checkpoint.index (or its anchor says); None: nothing.

    Hard state survives: the term rises to what log and checkpoint prove was reached, which voids
    the vote; the commit hint is clamped between checkpoint and log's end.
    """
    if checkpoint.index < recovered.anchor.index:
        raise CorruptData(
            "store",
            f"checkpoint is at index {checkpoint.index}, but the journal begins after "
            f"{recovered.anchor.index}: entries between are gone, the store is older than its "
            f"journal; {REBUILD_HINT}",
        )
    operations: list[JournalOperation] = []
    anchor, last = recovered.anchor, recovered.last
    hard_state = recovered.hard_state
    if term_at_checkpoint != checkpoint.term:
        anchor = last = checkpoint
        operations.append(Reset(checkpoint.index, checkpoint.term))
    term = max(hard_state.term, checkpoint.term, recovered.last.term)
    hard_state = replace(
        hard_state,
        term=term,
        vote=hard_state.vote if term == hard_state.term else None,
        commit_index=max(checkpoint.index, min(hard_state.commit_index, last.index)),
        high_index=max(hard_state.high_index, checkpoint.index),
    )
    if hard_state != recovered.hard_state:
        operations.append(SetHardState(hard_state))
    return RecoveryPlan(tuple(operations), anchor, last, checkpoint, hard_state)


def _term_at(journal: Journal, recovered: RecoveredJournal, checkpoint: Position) -> int | None:
    if checkpoint.index == recovered.anchor.index:
        return recovered.anchor.term
    entries = journal.read(checkpoint.index, count_max=1, bytes_max=0)
    return entries[0][2] if entries else None
