"""What the state machine hands out: outcomes of operations, records, specifications of queries.

Values only, immutable, so that any thread may hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from appliance import features, limits
from appliance.errors import NotApplied
from appliance.model import Verdict
from appliance.state.columns import Times, Values
from raftberry.internal.v1 import command_pb2


@dataclass(frozen=True, slots=True)
class StateOptions:
    """Bounds of the replicated state. They decide what is refused: the same on every member.

    page_bytes: of the store; blocks are cut to fill its pages. It may differ between members.
    """

    series_max: int = limits.SERIES_MAX
    keys_max: int = limits.KEYS_MAX
    key_value_bytes_max: int = limits.KEY_VALUE_BYTES_MAX
    producers_max: int = limits.PRODUCERS_MAX
    page_bytes: int = limits.PAGE_BYTES
    feature_level_max: int = features.LEVEL
    """What this software knows; only tests set another."""


@dataclass(frozen=True, slots=True)
class OperationResult:
    """What became of one operation. Its place in Applied.results is its ordinal.

    index: the entry; of a DUPLICATE that of the first time, 0 where it is no longer known.
    error: of REFUSED, to be raised to the caller. The numbers are those of the first time for a
    DUPLICATE, where known. mod_revision: of a Put. deleted: a Delete found its key.
    series_count: of DeleteMatchingSeries.
    """

    verdict: Verdict
    index: int
    error: NotApplied | None = None
    mod_revision: int = 0
    deleted: bool = False
    series_count: int = 0


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One change of one key, as far as the command itself does not tell it.

    item: place in ExpireKeys.keys, else 0. create_revision, version: 0 for a delete.
    """

    ordinal: int
    item: int
    mod_revision: int
    create_revision: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class EntryOutcome:
    """What of an entry took effect: all operations but the skipped ordinals, ascending."""

    index: int
    skipped: tuple[int, ...] = ()
    key_changes: tuple[KeyChange, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Everything took effect and no key changed: needs no record."""
        return not self.skipped and not self.key_changes


@dataclass(frozen=True, slots=True)
class Applied:
    """One applied entry. command is the decoded message, None of a NO_OP or a skipped entry.

    reading_count: what its writes added, those that overwrote another included.
    """

    index: int
    term: int
    results: tuple[OperationResult, ...] = ()
    outcome: EntryOutcome = field(default_factory=lambda: EntryOutcome(0))
    command: command_pb2.Command | None = field(default=None, repr=False)
    reading_count: int = 0


@dataclass(frozen=True, slots=True)
class SeriesLatest:
    """The reading with the greatest time; of equal times the one written later."""

    sensor: str
    metric: str
    integer: bool
    time: int
    value: float | int


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """reading_count counts readings written: one that overwrote another counts too.

    size_bytes: of blocks in the store as this node encoded them; may differ between nodes.
    Times are None while there is no reading; integer is None as long.
    """

    sensor: str
    metric: str
    integer: bool | None
    unit: str
    labels: Mapping[str, str]
    reading_count: int
    first_time: int | None
    last_time: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """deadline_ns: on the state's elapsed time; None: no ttl."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    ttl_seconds: int = 0
    deadline_ns: int | None = None


class KeyEventKind(Enum):
    PUT = "put"
    DELETE = "delete"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """Of a delete or expiry only key and mod_revision (the revision of the delete) are set."""

    kind: KeyEventKind
    key: str
    mod_revision: int
    value: bytes = b""
    create_revision: int = 0
    version: int = 0
    ttl_seconds: int = 0


@dataclass(frozen=True, slots=True)
class EntryEffects:
    """What watchers see of an entry, in the order of its operations."""

    readings: tuple[command_pb2.SeriesColumns, ...] = ()
    key_events: tuple[KeyEvent, ...] = ()


class Aggregation(IntEnum):
    """The numbers of raftberry.v1.Aggregation; RAW is its UNSPECIFIED."""

    RAW = 0
    MIN = 1
    MAX = 2
    MEAN = 3
    SUM = 4
    COUNT = 5
    FIRST = 6
    LAST = 7
    STDDEV = 8
    PERCENTILE = 9
    RATE = 10


@dataclass(frozen=True, slots=True)
class QuerySpec:
    """sensor, metric: globs, '' means '*'. Half-open [start, end) in ns, None: open.

    limit: readings or windows per series, 0: none. step_ns 0: one window over the range.
    quantile: of PERCENTILE, 0 to 1. is_visible: which series the caller may see; None: all.
    """

    sensor: str
    metric: str
    start: int | None = None
    end: int | None = None
    limit: int = 0
    descending: bool = False
    aggregations: tuple[Aggregation, ...] = ()
    quantile: float = 0.5
    step_ns: int = 0
    is_visible: Callable[[str, str], bool] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class QueryChunk:
    """At most QUERY_CHUNK_READINGS readings of one series; integer tells the dtype of values."""

    sensor: str
    metric: str
    integer: bool
    times: Times
    values: Values
    aggregation: Aggregation = Aggregation.RAW
