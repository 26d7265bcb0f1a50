"""A steady load that survives failures: numbered writes at a given rate, each sent until it is acknowledged.

Invariant: a writer goes on to its next write only when the one before was acknowledged, and sends a write again only
with the same producer and sequence. Readings carry no time of their own, so a write that counted twice would be there
twice: that is how reading back knows. One asyncio loop in a thread of its own; its lists may be read at any time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import grpc

from appliance.client.credentials import NO_CREDENTIALS, ClientCredentials
from appliance.client.failures import NotServed, Unfinished
from appliance.client.methods import GET_STATUS, STREAM_WRITE, WRITE
from appliance.errors import RaftberryError
from raftberry.v1 import cluster_pb2, reading_pb2

ATTEMPT_S: Final = 0.5
"""Then the next node is asked: as long as an election takes, so that a stopped node costs no more than a dead one."""

PAUSE_S: Final = 0.02
IN_FLIGHT: Final = 4
"""Messages of a stream on their way."""

ROOM_S: Final = 0.001
"""Between two looks whether a stream has room, or something to wait for."""

LOOK_S: Final = 0.1
POLL_S: Final = 0.05

LAST_WRITES_S: Final = 60.0
"""For what is on its way when the load ends."""

END_S: Final = 10.0
"""For the thread to end after that."""

_OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)
"""What may be otherwise at the next attempt or the next node."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One write. at_s: time.monotonic() of the answer; latency_s: since it was first sent, attempts included."""

    at_s: float
    latency_s: float
    writer: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one node said of itself. at_s: time.monotonic() of the answer."""

    at_s: float
    name: str
    is_leader: bool
    term: int
    commit_index: int
    applied_index: int
    leader: str


@dataclass(slots=True)
class _Writer:
    name: str
    position: int
    due_s: float
    sequence: int = 0


_Stream: TypeAlias = (
    "grpc.aio.StreamStreamCall[reading_pb2.StreamWriteRequest, reading_pb2.StreamWriteResponse]"
)
_Pending = dict[int, tuple[reading_pb2.StreamWriteRequest, float]]
"""By sequence: what was sent, and when first."""


class SteadyLoad:
    """clients write unary, streams through StreamWrite; writes_per_second over all of them."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        sensor: str,
        clients: int,
        streams: int,
        writes_per_second: float,
        credentials: ClientCredentials = NO_CREDENTIALS,
    ) -> None:
        assert endpoints
        assert clients + streams > 0
        self.sensor = sensor
        self.acknowledgements: list[Acknowledged] = []
        self.looks: list[Look] = []
        self.error: RaftberryError | None = None
        """A refusal that will not go away: the writer that met it stopped."""

        self.unanswered: dict[str, set[int]] = {}
        """Sequences by writer that were sent and never answered before the end."""

        self._endpoints, self._credentials = list(endpoints), credentials
        self._metadata = credentials.metadata()
        self._counts = (clients, streams)
        self._interval_s = (clients + streams) / writes_per_second
        self._channels: list[grpc.aio.Channel] = []
        self._is_ending = False
        self._patience_s = LAST_WRITES_S
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    @property
    def writers(self) -> list[str]:
        """Their names: producers and metrics are named like them."""
        clients, streams = self._counts
        return [*(f"client-{n}" for n in range(clients)), *(f"stream-{n}" for n in range(streams))]

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, patience_s: float = LAST_WRITES_S) -> None:
        """No new write; waits that long for the answers to those on their way. Idempotent."""
        self._patience_s = patience_s
        self._is_ending = True
        if self._thread.ident is not None:
            self._thread.join(patience_s + END_S)

    def _run(self) -> None:
        asyncio.run(self._load())

    async def _load(self) -> None:
        self._channels = [self._credentials.aio_channel(one, _OPTIONS) for one in self._endpoints]
        begin_s = time.monotonic()
        clients, _ = self._counts
        working: list[asyncio.Task[None]] = []
        for number, name in enumerate(self.writers):
            writer = _Writer(
                name, number % len(self._endpoints), begin_s + self._interval_s * number / len(self.writers)
            )
            write = self._write_alone if number < clients else self._write_stream
            working.append(asyncio.create_task(self._guarded(write(writer))))
        looking = [asyncio.create_task(self._look(channel)) for channel in self._channels]
        while not self._is_ending:
            await asyncio.sleep(POLL_S)
        _, late = await asyncio.wait(working, timeout=self._patience_s)
        for task in (*late, *looking):
            task.cancel()
        await asyncio.wait([*working, *looking])
        for channel in self._channels:
            await channel.close()

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except RaftberryError as error:
            self.error = self.error or error

    async def _write_alone(self, writer: _Writer) -> None:
        while await self._is_due(writer):
            writer.sequence += 1
            request = reading_pb2.WriteRequest(
                readings=[self._reading(writer)], producer_id=self._producer(writer), sequence=writer.sequence
            )
            waiting = self.unanswered.setdefault(writer.name, set())
            waiting.add(writer.sequence)
            began_s = time.monotonic()
            while not await self._is_written(writer, request):
                writer.position = (writer.position + 1) % len(self._channels)
                await asyncio.sleep(PAUSE_S)
            self._note(writer, writer.sequence, began_s)
            waiting.discard(writer.sequence)

    async def _is_written(self, writer: _Writer, request: reading_pb2.WriteRequest) -> bool:
        method: grpc.aio.UnaryUnaryMultiCallable[reading_pb2.WriteRequest, reading_pb2.WriteResponse]
        method = self._channels[writer.position].unary_unary(
            WRITE.path, WRITE.request.SerializeToString, WRITE.response.FromString
        )
        try:
            await method(request, timeout=ATTEMPT_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            self._judge(error, writer)
            return False
        return True

    async def _write_stream(self, writer: _Writer) -> None:
        """IN_FLIGHT messages on their way; what has no answer when the stream breaks goes into the next one."""
        pending: _Pending = {}
        while not self._is_ending or pending:
            method: grpc.aio.StreamStreamMultiCallable[
                reading_pb2.StreamWriteRequest, reading_pb2.StreamWriteResponse
            ]
            method = self._channels[writer.position].stream_stream(
                STREAM_WRITE.path, STREAM_WRITE.request.SerializeToString, STREAM_WRITE.response.FromString
            )
            call = method(metadata=self._metadata)
            sending = asyncio.create_task(self._send(writer, call, pending))
            try:
                await self._take_answers(writer, call, pending, sending)
            except grpc.aio.AioRpcError as error:
                self._judge(error, writer)
            except (TimeoutError, Unfinished):
                # Stopped, or refused for now: the next node, with the same sequences.
                pass
            finally:
                sending.cancel()
                call.cancel()
                await asyncio.wait({sending})
                if not sending.cancelled():
                    # What broke the sending breaks the reading as well: it was judged there.
                    sending.exception()
            writer.position = (writer.position + 1) % len(self._channels)
            await asyncio.sleep(PAUSE_S)

    async def _send(self, writer: _Writer, call: _Stream, pending: _Pending) -> None:
        """First what an earlier stream left, then each write when it is due."""
        for request, _ in list(pending.values()):
            await call.write(request)
        while True:
            while len(pending) >= IN_FLIGHT:
                await asyncio.sleep(ROOM_S)
            if not await self._is_due(writer):
                return
            writer.sequence += 1
            request = reading_pb2.StreamWriteRequest(
                readings=[self._reading(writer)], producer_id=self._producer(writer), sequence=writer.sequence
            )
            pending[writer.sequence] = (request, time.monotonic())
            self.unanswered.setdefault(writer.name, set()).add(writer.sequence)
            await call.write(request)

    async def _take_answers(
        self, writer: _Writer, call: _Stream, pending: _Pending, sending: asyncio.Task[None]
    ) -> None:
        """Until all is sent and answered. Raises TimeoutError if an answer takes longer than ATTEMPT_S."""
        while not sending.done() or pending:
            if not pending:
                await asyncio.sleep(ROOM_S)
                continue
            async with asyncio.timeout(ATTEMPT_S):
                response = await call.read()
            if not isinstance(response, reading_pb2.StreamWriteResponse) or response.status.code:
                raise Unfinished("the stream ended or refused")
            _, began_s = pending.pop(response.sequence)
            self._note(writer, response.sequence, began_s)
            self.unanswered[writer.name].discard(response.sequence)

    async def _look(self, channel: grpc.aio.Channel) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[cluster_pb2.GetStatusRequest, cluster_pb2.GetStatusResponse]
        method = channel.unary_unary(
            GET_STATUS.path, GET_STATUS.request.SerializeToString, GET_STATUS.response.FromString
        )
        while True:
            try:
                status = await method(
                    cluster_pb2.GetStatusRequest(), timeout=ATTEMPT_S, metadata=self._metadata
                )
            except grpc.aio.AioRpcError:
                # Away; that nothing is seen of it says so.
                pass
            else:
                self.looks.append(
                    Look(
                        at_s=time.monotonic(),
                        name=status.name,
                        is_leader=status.role == cluster_pb2.ROLE_LEADER,
                        term=status.term,
                        commit_index=status.commit_index,
                        applied_index=status.applied_index,
                        leader=status.leader,
                    )
                )
            await asyncio.sleep(LOOK_S)

    async def _is_due(self, writer: _Writer) -> bool:
        """Waits for the writer's next turn, without making up for turns that a failure took; False: the end."""
        now_s = time.monotonic()
        if writer.due_s > now_s:
            await asyncio.sleep(writer.due_s - now_s)
        writer.due_s = max(writer.due_s, now_s - self._interval_s) + self._interval_s
        return not self._is_ending

    def _reading(self, writer: _Writer) -> reading_pb2.Readings:
        return reading_pb2.Readings(sensor=self.sensor, metric=writer.name, int_value=[writer.sequence])

    def _producer(self, writer: _Writer) -> str:
        return f"{self.sensor}/{writer.name}"

    def _note(self, writer: _Writer, sequence: int, began_s: float) -> None:
        now_s = time.monotonic()
        self.acknowledgements.append(Acknowledged(now_s, now_s - began_s, writer.name, sequence))

    def _judge(self, error: grpc.aio.AioRpcError, writer: _Writer) -> None:
        """Raises what will not go away."""
        if error.code() not in _PASSING:
            endpoint = self._endpoints[writer.position]
            raise NotServed(f"{endpoint}: {error.code().name}: {error.details()}") from error
