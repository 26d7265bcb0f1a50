"""A checkpoint on its way to a follower whose log ends before ours begins.

Invariant: one transfer a follower; the log behind the checkpoint is kept meanwhile (housekeeping bounds it); at most
WINDOW chunks are unanswered (the follower answers when a chunk is on its disk); one that is not answered for
PATIENCE_NS is given up, since its stream may break without the link. Chunks are read in the pool. Loop thread only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from appliance.clock import Clock
from appliance.consensus import Engine
from appliance.consensus.snapshot import checksum, encode_records
from appliance.model import MemberId, Position
from appliance.node.workers import Workers
from appliance.storage.store import StoreReader
from raftberry.internal.v1 import peer_pb2

WINDOW = 4

PATIENCE_NS = 10_000_000_000
"""A card may stall for five seconds; the follower waits meanwhile, and is sent a new transfer after it."""

SendBulk = Callable[[MemberId, peer_pb2.Frame], bool]


@dataclass(slots=True)
class _Transfer:
    transfer_id: int
    reader: StoreReader
    chunks: Iterator[bytes]
    moved_ns: int
    offset: int = 0
    unanswered: int = 0
    is_reading: bool = False
    is_last_sent: bool = False
    is_over: bool = False
    held: bytes | None = None
    """Read ahead, so that the last chunk is known to be the last."""

    ready: list[tuple[bytes, bool]] = field(default_factory=list)


class SnapshotSender:
    def __init__(
        self,
        engine: Engine,
        workers: Workers,
        new_frame: Callable[[], peer_pb2.Frame],
        send: SendBulk,
        clock: Clock,
        rng: random.Random,
        wake: Callable[[], None],
    ) -> None:
        self._engine, self._workers, self._new_frame = engine, workers, new_frame
        self._send, self._clock, self._rng, self._wake = send, clock, rng, wake
        self._transfers: dict[MemberId, _Transfer] = {}
        self.completed_count = 0

    def begin(self, member: MemberId, reader: StoreReader) -> None:
        transfer_id = self._rng.getrandbits(63) + 1
        chunks = encode_records(reader.records())
        self._transfers[member] = _Transfer(transfer_id, reader, chunks, self._clock.monotonic_ns())
        self._engine.begin_snapshot_for(member)

    def oldest_index(self) -> int | None:
        """The log behind this index is needed by a transfer under way."""
        return min((transfer.reader.position.index for transfer in self._transfers.values()), default=None)

    def cycle(self) -> None:
        """Send what the windows allow; end what does not move, and everything when this node leads no more."""
        now = self._clock.monotonic_ns()
        for member, transfer in list(self._transfers.items()):
            if not self._engine.is_leader or now - transfer.moved_ns > PATIENCE_NS:
                self._end(member, None)
            else:
                self._advance(member, transfer)

    def on_reply(self, member: MemberId, reply: peer_pb2.SnapshotReply) -> None:
        transfer = self._transfers.get(member)
        if transfer is None or reply.transfer_id != transfer.transfer_id:
            return
        transfer.moved_ns = self._clock.monotonic_ns()
        if reply.installed:
            self.completed_count += 1
            self._end(member, transfer.reader.position)
        elif reply.failed:
            self._end(member, None)
        else:
            transfer.unanswered = max(0, transfer.unanswered - 1)
            self._advance(member, transfer)

    def on_peer_down(self, member: MemberId) -> None:
        if member in self._transfers:
            self._end(member, None)

    def keep(self, members: Collection[MemberId]) -> None:
        """End what is on its way to anybody else: it was removed."""
        for member in [member for member in self._transfers if member not in members]:
            self._end(member, None)

    def _advance(self, member: MemberId, transfer: _Transfer) -> None:
        while transfer.ready and transfer.unanswered < WINDOW:
            data, is_last = transfer.ready[0]
            if not self._send(member, self._chunk(transfer, data, is_last=is_last)):
                break
            del transfer.ready[0]
            transfer.offset += len(data)
            transfer.unanswered += 1
            transfer.is_last_sent = is_last
        is_full = transfer.unanswered + len(transfer.ready) >= WINDOW
        if not is_full and not transfer.is_reading and not transfer.is_last_sent:
            transfer.is_reading = True
            self._workers.read(lambda: _read(transfer), lambda chunk: self._was_read(member, transfer, chunk))

    def _was_read(self, member: MemberId, transfer: _Transfer, chunk: tuple[bytes, bool] | None) -> None:
        transfer.is_reading = False
        if transfer.is_over:
            transfer.reader.close()
        elif chunk is not None:
            transfer.ready.append(chunk)
            self._advance(member, transfer)
            self._wake()

    def _chunk(self, transfer: _Transfer, data: bytes, *, is_last: bool) -> peer_pb2.Frame:
        frame = self._new_frame()
        chunk = frame.snapshot_chunk
        chunk.transfer_id, chunk.offset, chunk.data = transfer.transfer_id, transfer.offset, data
        chunk.snapshot_index, chunk.snapshot_term = (
            transfer.reader.position.index,
            transfer.reader.position.term,
        )
        chunk.checksum, chunk.last = checksum(data), is_last
        return frame

    def _end(self, member: MemberId, installed: Position | None) -> None:
        transfer = self._transfers.pop(member)
        transfer.is_over = True
        if not transfer.is_reading:
            transfer.reader.close()
        self._engine.end_snapshot_for(member, installed)
        self._wake()


def _read(transfer: _Transfer) -> tuple[bytes, bool] | None:
    """(chunk, is last), or None at the end. Reads one ahead."""
    data = transfer.held if transfer.held is not None else next(transfer.chunks, None)
    if data is None:
        return None
    transfer.held = next(transfer.chunks, None)
    return data, transfer.held is None
