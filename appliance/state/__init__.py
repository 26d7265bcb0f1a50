"""Floor 2: the deterministic, total, replicated state machine.

Invariant: the same entries in the same order give the same logical content on every node, whatever
was checkpointed, restored or installed in between; no entry makes `apply` fail but one that is corrupt.
"""

from appliance.state.checkpoint import CheckpointWork
from appliance.state.digest import PreparedHash
from appliance.state.effects import effects
from appliance.state.machine import StateMachine
from appliance.state.query import PreparedQuery
from appliance.state.results import (
    Aggregation,
    Applied,
    EntryEffects,
    EntryOutcome,
    KeyChange,
    KeyEvent,
    KeyEventKind,
    KeyRecord,
    OperationResult,
    QueryChunk,
    QuerySpec,
    SeriesInfo,
    SeriesLatest,
    StateOptions,
)

__all__ = [
    "Aggregation",
    "Applied",
    "CheckpointWork",
    "EntryEffects",
    "EntryOutcome",
    "KeyChange",
    "KeyEvent",
    "KeyEventKind",
    "KeyRecord",
    "OperationResult",
    "PreparedHash",
    "PreparedQuery",
    "QueryChunk",
    "QuerySpec",
    "SeriesInfo",
    "SeriesLatest",
    "StateMachine",
    "StateOptions",
    "effects",
]
