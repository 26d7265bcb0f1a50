"""What the client API needs of the node: the port between floor 4 and floor 5.

Every method is called on the asyncio loop thread. deadline_ns is absolute, on time.monotonic_ns(); None: none.
Errors are those of appliance/errors.py. A cancelled caller only stops waiting: what it proposed may still happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from appliance.model import Configuration, Member, Position, Role
from appliance.node.outcome import Tell
from appliance.node.scan import Capturing, Share
from appliance.state import EntryEffects, KeyRecord, QueryChunk, QuerySpec, SeriesInfo, SeriesLatest
from appliance.state.access import AccessTable
from appliance.state.membership import Change
from appliance.state.retention import Retention
from raftberry.internal.v1 import command_pb2

IsVisible = Callable[[str, str], bool]
Taken = TypeVar("Taken", covariant=True)


class AppliedEffects(Protocol):
    """What one applied entry changed."""

    @property
    def index(self) -> int: ...
    @property
    def effects(self) -> EntryEffects: ...


class Watcher(Protocol):
    def take(self, applied: AppliedEffects) -> bool:
        """Begins to send what it wants of an entry. False: the next one shall wait until it is ready."""

    async def ready(self) -> None: ...


class QueryResult(Protocol):
    """A running query: consistent as of position. aclose() gives its read transaction back; call it always."""

    @property
    def position(self) -> Position: ...
    def __aiter__(self) -> AsyncIterator[Sequence[QueryChunk]]: ...
    async def aclose(self) -> None: ...


class Comparison(Protocol):
    """The hashes of all members at position; b"" of one that did not answer."""

    @property
    def position(self) -> Position: ...
    @property
    def own(self) -> bytes: ...
    @property
    def hashes(self) -> Sequence[tuple[str, bytes]]: ...
    @property
    def is_equal(self) -> bool: ...


class RunningBackup(Protocol):
    """The bytes of a backup file, piece by piece. aclose() gives its read transaction back; call it always."""

    def __aiter__(self) -> AsyncIterator[Sequence[bytes]]: ...
    async def aclose(self) -> None: ...


class ConsensusEvent(Protocol):
    """One thing consensus did on this node; the fields of raftberry.v1.ConsensusEvent."""

    @property
    def node(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def term(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def peer(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def time_unix_nano(self) -> int: ...
    @property
    def number(self) -> int: ...


class EventSubscription(Protocol):
    """Events from now on, several at a time; missed_count rises when this subscriber was too slow."""

    @property
    def missed_count(self) -> int: ...
    def __aiter__(self) -> AsyncIterator[Sequence[ConsensusEvent]]: ...
    async def aclose(self) -> None: ...


class PeerStatus(Protocol):
    """A member as this node sees it; the fields of raftberry.v1.Peer. heard_ms_ago None: never heard."""

    @property
    def name(self) -> str: ...
    @property
    def member_id(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def peer_address(self) -> str: ...
    @property
    def connected(self) -> bool: ...
    @property
    def match_index(self) -> int: ...
    @property
    def heard_ms_ago(self) -> int | None: ...
    @property
    def voter(self) -> bool: ...
    @property
    def refused(self) -> str: ...


class NodeStatus(Protocol):
    """Every field of raftberry.v1.GetStatusResponse by its name; read by name, so only a few are spelled here."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def cluster_id(self) -> str: ...
    @property
    def peers(self) -> Sequence[PeerStatus]: ...
    @property
    def alarms(self) -> Sequence[str]: ...


class Slices(Capturing, Protocol[Taken]):
    def results(self) -> Iterator[Taken]:
        """Once all is captured; in order."""


class SeriesSlices(Slices[Taken], Protocol[Taken]):
    @property
    def taken_count(self) -> int:
        """Once all is captured, before results."""


class State(Protocol):
    """What calls read of the state machine, between two applied entries. Globs: '' means '*'."""

    @property
    def position(self) -> Position: ...
    def latest(self, sensor: str, metric: str) -> Iterable[SeriesLatest]: ...
    def series(self, sensor: str, metric: str) -> Iterable[SeriesInfo]: ...
    def begin_latest(
        self, sensor: str, metric: str, is_visible: IsVisible | None = None
    ) -> SeriesSlices[SeriesLatest]: ...
    def begin_series(
        self, sensor: str, metric: str, is_visible: IsVisible | None = None
    ) -> SeriesSlices[SeriesInfo]: ...
    def producer_highest(self, producer_id: str) -> int: ...
    def key(self, key: str) -> KeyRecord | None: ...
    def begin_keys(
        self, prefix: str, limit: int, is_visible: Callable[[str], bool] | None = None
    ) -> Slices[KeyRecord]: ...
    def members(self) -> Sequence[Member]: ...
    @property
    def retention(self) -> Retention: ...
    @property
    def configuration(self) -> Configuration: ...
    @property
    def access(self) -> AccessTable: ...


class Node(Protocol):
    """The running node as the client API sees it."""

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> State:
        """Read on the loop only."""

    @property
    def on_serving_change(self) -> list[Callable[[bool], None]]: ...

    def submit(self, operation: command_pb2.Operation, tell: Tell, *, deadline_ns: int | None) -> None:
        """tell is called once, in a later turn of the loop. NotApplied may be raised at once: then it is not."""

    def write(self, operation: command_pb2.Operation, *, deadline_ns: int | None) -> asyncio.Future[Any]:
        """The same as a future of WriteOutcome (Any: Future is invariant).

        Whoever waits may cancel or drop the future: the write goes on.
        """

    async def read_barrier(self, consistency: int, *, deadline_ns: int | None) -> Position: ...

    async def query(self, spec: QuerySpec) -> QueryResult: ...

    async def room_to_list(self, sensor: str, metric: str) -> Share:
        """To hold for a client what a read by these globs finds; give it back. Few series need none. Overloaded."""

    async def serve_watch(self, *, after_index: int, watcher: Watcher) -> None:
        """watcher takes every applied entry behind after_index; without end."""

    def status(self) -> NodeStatus: ...

    async def transfer_leadership(self, target: str, *, deadline_ns: int | None) -> tuple[str, int]: ...

    @property
    def configuration(self) -> Configuration: ...

    async def change_members(self, change: Change, *, deadline_ns: int | None) -> Configuration: ...

    def events(self) -> EventSubscription: ...

    async def checkpoint(self) -> Position: ...

    async def backup(self, consistency: int, *, deadline_ns: int | None) -> RunningBackup: ...

    async def verify(self, *, deadline_ns: int | None) -> Comparison: ...

    async def state_hash(self) -> tuple[Position, bytes]: ...

    def is_serving(self) -> bool: ...

    def wall_ns(self) -> int: ...

    def retention_doubt(self) -> str:
        """Why this leader drops and rolls up nothing at present; empty: it does, or does not lead."""
