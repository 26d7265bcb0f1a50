"""A snapshot on its way in (Raft paper, section 7; H7, H8).

Invariant: the state and the log change only when the whole snapshot is durable in its own place; a failed or
overtaken transfer leaves no trace and is never acknowledged as installed. A card without room for a second store
beside the first is no reason to end: what came is thrown away, and for RETRY_NS nothing is answered, so that the
card is not written full again and again. Loop thread only; the installer works on the committer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from appliance.clock import Clock
from appliance.consensus.snapshot import RecordDecoder, checksum
from appliance.errors import CorruptData, StorageFailed
from appliance.model import MemberId, Position
from appliance.node.workers import Workers
from appliance.state import StateMachine
from appliance.storage.store import Installer, Record, Store
from raftberry.internal.v1 import peer_pb2

Reply = Callable[[MemberId, peer_pb2.SnapshotReply], None]

RETRY_NS: Final = 300_000_000_000
"""Until a snapshot is taken again after one that the card did not take."""


@dataclass(slots=True)
class _Incoming:
    member: MemberId
    transfer_id: int
    position: Position
    installer: _LateInstaller
    decoder: RecordDecoder = field(default_factory=RecordDecoder)
    offset: int = 0


class SnapshotReceiver:
    """is_needed says whether a snapshot at a position is news; restore reads the state out of a new store, on the
    committer, and installed is called with both.

    reply must hold back an `installed` until all that the log says then is durable.
    """

    def __init__(
        self,
        workers: Workers,
        store: Callable[[], Store],
        is_needed: Callable[[Position], bool],
        restore: Callable[[Store], StateMachine],
        installed: Callable[[Store, StateMachine, Position], None],
        reply: Reply,
        clock: Clock,
    ) -> None:
        self._workers, self._store, self._is_needed = workers, store, is_needed
        self._restore, self._installed, self._reply, self._clock = restore, installed, reply, clock
        self._incoming: _Incoming | None = None
        self.is_finishing = False
        """The new store is being switched to: the log must not move meanwhile."""

        self.failed_count = 0
        self._failure, self._failed_ns = "", 0

    @property
    def obstacle(self) -> str:
        """Why this node does not catch up; empty: nothing is known that stands in its way."""
        if not self._failure or self._clock.monotonic_ns() - self._failed_ns > 2 * RETRY_NS:
            return ""
        return (
            f"this node needs a snapshot, which could not be written: {self._failure}; nothing was changed; a second "
            "copy of the store needs room beside the first: it is tried again every five minutes"
        )

    @property
    def is_receiving(self) -> bool:
        return self._incoming is not None

    def cycle(self) -> None:
        """Let a transfer go that the log has overtaken: while one is under way no checkpoint is written."""
        if (
            self._incoming is not None
            and not self.is_finishing
            and not self._is_needed(self._incoming.position)
        ):
            self.abandon()

    def on_chunk(self, member: MemberId, chunk: peer_pb2.SnapshotChunk) -> None:
        position = Position(chunk.snapshot_index, chunk.snapshot_term)
        if self.is_finishing:
            return
        if not self._is_needed(position):
            self.abandon()
            self._answer(member, chunk.transfer_id, offset=chunk.offset + len(chunk.data), installed=True)
            return
        if self._failure and self._clock.monotonic_ns() - self._failed_ns < RETRY_NS:
            return
        incoming = self._incoming
        if incoming is None or incoming.transfer_id != chunk.transfer_id or incoming.member != member:
            if chunk.offset != 0:
                self._answer(member, chunk.transfer_id, failed=True)
                return
            self.abandon()
            incoming = self._incoming = self._begin(member, chunk.transfer_id, position)
        try:
            records = self._take(incoming, chunk)
        except CorruptData:
            self.failed_count += 1
            self.abandon()
            self._answer(member, chunk.transfer_id, failed=True)
            return
        if chunk.last:
            self._finish(incoming, records)
        else:
            transfer_id, offset = chunk.transfer_id, incoming.offset
            self._workers.write(
                "install",
                lambda: incoming.installer.add(records),
                lambda failure: self._added(incoming, transfer_id, offset, failure),
            )

    def abandon(self) -> None:
        """Throw away what came so far."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self._workers.write("install", incoming.installer.abort, lambda _: None)

    def on_peer_down(self, member: MemberId) -> None:
        if self._incoming is not None and self._incoming.member == member and not self.is_finishing:
            self.abandon()

    def _begin(self, member: MemberId, transfer_id: int, position: Position) -> _Incoming:
        return _Incoming(member, transfer_id, position, _LateInstaller(self._store(), position))

    def _take(self, incoming: _Incoming, chunk: peer_pb2.SnapshotChunk) -> list[Record]:
        if chunk.offset != incoming.offset:
            raise CorruptData(
                "snapshot", f"chunk at {chunk.offset} where {incoming.offset} was next; transfer ended"
            )
        if checksum(chunk.data) != chunk.checksum:
            raise CorruptData("snapshot", f"chunk at {chunk.offset} has a wrong checksum; transfer ended")
        incoming.offset += len(chunk.data)
        records = incoming.decoder.feed(chunk.data)
        if chunk.last and not incoming.decoder.is_complete:
            raise CorruptData("snapshot", "it ends within a record; transfer ended")
        return records

    def _added(self, incoming: _Incoming, transfer_id: int, offset: int, failure: str) -> None:
        if not failure:
            self._answer(incoming.member, transfer_id, offset=offset)
        elif incoming is self._incoming:
            self._fail(failure)

    def _finish(self, incoming: _Incoming, records: list[Record]) -> None:
        self.is_finishing = True

        def finish() -> tuple[Store, StateMachine] | str:
            failure = incoming.installer.add(records)
            if failure:
                return failure
            store = incoming.installer.finish()
            return store, self._restore(store)

        self._workers.write("install", finish, lambda result: self._finished(incoming, result))

    def _finished(self, incoming: _Incoming, result: tuple[Store, StateMachine] | str) -> None:
        if isinstance(result, str):
            self.is_finishing = False
            self._fail(result)
            return
        self._incoming, self._failure = None, ""
        self._installed(*result, incoming.position)
        self.is_finishing = False
        self._answer(incoming.member, incoming.transfer_id, offset=incoming.offset, installed=True)

    def _fail(self, failure: str) -> None:
        self._failure, self._failed_ns = failure, self._clock.monotonic_ns()
        self.failed_count += 1
        self.abandon()

    def _answer(
        self,
        member: MemberId,
        transfer_id: int,
        *,
        offset: int = 0,
        installed: bool = False,
        failed: bool = False,
    ) -> None:
        self._reply(
            member,
            peer_pb2.SnapshotReply(
                transfer_id=transfer_id, offset=offset, installed=installed, failed=failed
            ),
        )


class _LateInstaller:
    """Begins the install on the committer's thread, with the first call there."""

    def __init__(self, store: Store, position: Position) -> None:
        self._store, self._position = store, position
        self._installer: Installer | None = None
        self._failure = ""

    def _begun(self) -> Installer:
        if self._installer is None:
            self._installer = self._store.begin_install(self._position)
        return self._installer

    def add(self, records: Iterable[Record]) -> str:
        """Why they, or some before them, could not be written; empty: all are."""
        if not self._failure:
            try:
                self._begun().add(records)
            except StorageFailed as error:
                self._failure = str(error)
        return self._failure

    def finish(self) -> Store:
        return self._begun().finish()

    def abort(self) -> None:
        if self._installer is not None:
            self._installer.abort()
