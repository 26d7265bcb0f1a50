"""A node of nothing but the parts that are given: gRPC's Python package, protobuf, LMDB, an interpreter on uvloop.

It takes Write and StreamWrite from clients, forwards what comes to a follower, sends one batch at a time to the
others, has it committed by LMDB on a thread of its own, counts a majority, answers, and tells who watches. No Raft, no
state, no filters, no checks: what it cannot do on a machine nothing can that is made of these parts. Nodes speak over
the product's own connections, or with --grpc through gRPC. For the benchmark only; node 0 leads.

Invariant: an answer leaves after two of three nodes have the batch on disk, as in the real thing.
"""

from __future__ import annotations

import argparse
import asyncio
import queue
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import lmdb
import uvloop

from appliance.app import GIL_SWITCH_INTERVAL_S
from appliance.peers.messages import MessageStream
from appliance.rpc import Call, Immediate, ImmediateStream, Server
from raftberry.internal.v1 import wire_pb2
from raftberry.v1 import reading_pb2

EXCHANGE: Final = "/bare/Exchange"
_HEAD: Final = struct.Struct("<cBQ")
"""Kind, sender, number. A: append, K: on disk, F: forward, D: done, W: has watchers, C: committed."""

Then = Callable[[int], None]
"""Called with the index under which it is durable."""


class Disk:
    """LMDB, written by one thread: an entry and a record of the state a commit."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._environment = lmdb.Environment(str(folder), map_size=4 << 30, max_readers=8)
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[int, bytes, Callable[[], None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def commit(self, number: int, data: bytes, then: Callable[[], None]) -> None:
        self._jobs.put((number, data, then))

    def _run(self) -> None:
        while True:
            number, data, then = self._jobs.get()
            key = number.to_bytes(8, "big")
            with self._environment.begin(write=True) as transaction:
                transaction.put(key, data)
                transaction.put(b"state", key)
            self._loop.call_soon_threadsafe(then)


class Link:
    """To one other node, dialled once."""

    async def open(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        while True:
            try:
                _, stream = await asyncio.get_running_loop().create_connection(MessageStream, host, int(port))
            except OSError:
                await asyncio.sleep(0.05)
            else:
                self.send = stream.send
                return


class GrpcLink:
    """The same through gRPC."""

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._waiting = asyncio.Event()

    async def open(self, address: str) -> None:
        channel = grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])
        await channel.channel_ready()
        self._task = asyncio.create_task(self._run(channel.stream_stream(EXCHANGE)()))

    def send(self, message: bytes) -> None:
        self._queue.append(message)
        self._waiting.set()

    async def _run(self, stream: Any) -> None:
        while True:
            while not self._queue:
                self._waiting.clear()
                await self._waiting.wait()
            await stream.write(self._queue.popleft())


class Bare:
    def __init__(self, me: int, folder: Path) -> None:
        self._me, self._disk = me, Disk(folder)
        self._links: dict[int, Link | GrpcLink] = {}
        self._queue: list[tuple[bytes, Then]] = []
        self._round: list[Then] = []
        self._number = self._durable_count = 0
        self._is_due = False
        self._forwarded: dict[int, list[Then]] = {}
        self._watchers: list[Outbox] = []
        self._watching_places: set[int] = set()
        self._uncommitted = (0, b"")

    async def connect(self, peers: list[str], make: type[Link | GrpcLink]) -> None:
        for place, address in enumerate(peers):
            if place != self._me:
                link = make()
                await link.open(address)
                self._links[place] = link

    def submit(self, data: bytes, then: Then) -> None:
        self._queue.append((data, then))
        self._wake()

    def watch(self, call: Call) -> None:
        outbox = Outbox(call)
        self._watchers.append(outbox)
        call.on_abandon = partial(self._watchers.remove, outbox)
        if self._me:
            self._send(0, b"W", 0)

    def on_message(self, message: bytes) -> None:
        kind, sender, number = _HEAD.unpack_from(message)
        data = message[_HEAD.size :]
        if kind == b"A":
            self._uncommitted = (number, data)
            self._disk.commit(number, data, partial(self._send, sender, b"K", number))
        elif kind == b"K":
            self._is_durable(number)
        elif kind == b"F":
            self.submit(data, lambda index: self._send(sender, b"D", number, index.to_bytes(8, "little")))
        elif kind == b"W":
            self._watching_places.add(sender)
        elif kind == b"C":
            self._tell(number)
        else:
            for then in self._forwarded.pop(number):
                then(int.from_bytes(data, "little"))

    def _wake(self) -> None:
        """After all that arrived in this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_due = False
        if not self._queue or self._round:
            return
        taken, self._queue = self._queue, []
        self._number += 1
        data, waiting = b"".join(data for data, _ in taken), [then for _, then in taken]
        if self._me:
            self._forwarded[self._number] = waiting
            self._send(0, b"F", self._number, data)
            return
        self._round, self._durable_count, self._uncommitted = waiting, 0, (self._number, data)
        for place in self._links:
            self._send(place, b"A", self._number, data)
        self._disk.commit(self._number, data, partial(self._is_durable, self._number))

    def _is_durable(self, number: int) -> None:
        if number != self._number:
            return
        self._durable_count += 1
        if self._durable_count == 2:
            waiting, self._round = self._round, []
            for place in self._watching_places:
                self._send(place, b"C", number)
            for then in waiting:
                then(number)
            self._tell(number)
            self._go_on()

    def _tell(self, number: int) -> None:
        if not self._watchers or self._uncommitted[0] != number:
            return
        # Requests one after the other are one request with the readings of all.
        readings = reading_pb2.WriteRequest.FromString(self._uncommitted[1]).readings
        message = reading_pb2.WatchResponse(index=number, readings=readings).SerializeToString()
        for watcher in self._watchers:
            watcher.push(message)

    def _send(self, place: int, kind: bytes, number: int, data: bytes = b"") -> None:
        self._links[place].send(_HEAD.pack(kind, self._me, number) + data)


class Outbox:
    """Messages to one client, the next when the one before has left."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._waiting: deque[bytes] = deque()
        self._is_sending = False

    def push(self, message: bytes) -> None:
        self._waiting.append(message)
        if not self._is_sending:
            self._sent(True)

    def _sent(self, is_taken: bool) -> None:
        self._is_sending = is_taken and bool(self._waiting)
        if self._is_sending:
            self._call.send(self._waiting.popleft(), self._sent)


class Stream:
    """StreamWrite: answers in the order of the requests."""

    def __init__(self, node: Bare, call: Call) -> None:
        self._node, self._call, self._outbox = node, call, Outbox(call)

    @classmethod
    def begin(cls, node: Bare, call: Call) -> None:
        call.receive(cls(node, call)._received)

    def _received(self, raw: bytes | None) -> None:
        if raw is None:
            self._call.finish()
            return
        sequence = wire_pb2.WriteRequestColumns.FromString(raw).sequence
        self._node.submit(raw, partial(self._answer, sequence))
        self._call.receive(self._received)

    def _answer(self, sequence: int, index: int) -> None:
        self._outbox.push(
            reading_pb2.StreamWriteResponse(sequence=sequence, index=index, term=1).SerializeToString()
        )


def _watch(node: Bare, call: Call) -> None:
    """Of all that is written, whatever is asked for."""
    call.receive(lambda _request: node.watch(call))


def _write(node: Bare, raw: bytes, call: Call) -> None:
    wire_pb2.WriteRequestColumns.FromString(raw)
    node.submit(
        raw, lambda index: call.finish(reading_pb2.WriteResponse(index=index, term=1).SerializeToString())
    )


async def _exchange(node: Bare, _requests: object, call: Call) -> None:
    while (message := await call.read()) is not None:
        node.on_message(message)


async def _receive(node: Bare, stream: MessageStream) -> None:
    while (messages := await stream.read()) is not None:
        for message in messages:
            node.on_message(message)


def _service(name: str, handlers: dict[str, Any]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(name, handlers)


async def _serve(me: int, clients: str, peers: list[str], folder: Path, *, is_grpc: bool) -> None:
    loop, node, tasks = asyncio.get_running_loop(), Bare(me, folder), set[asyncio.Task[None]]()
    if is_grpc:
        exchange: dict[str, Any] = {
            "Exchange": grpc.stream_stream_rpc_method_handler(partial(_exchange, node))
        }
        others = Server((_service("bare", exchange),), options=[("grpc.max_receive_message_length", -1)])
        others.listen(peers[me])
        others.start()
    else:

        def taken() -> MessageStream:
            stream = MessageStream()
            tasks.add(loop.create_task(_receive(node, stream)))
            return stream

        host, _, port = peers[me].rpartition(":")
        await loop.create_server(taken, host, int(port))
    await node.connect(peers, GrpcLink if is_grpc else Link)
    writes = {
        "Write": Immediate(partial(_write, node)),
        "StreamWrite": ImmediateStream(partial(Stream.begin, node)),
        "Watch": ImmediateStream(partial(_watch, node)),
    }
    server = Server((_service("raftberry.v1.ReadingService", writes),))
    server.listen(clients)
    server.start()
    await loop.create_future()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.bare", description=__doc__)
    parser.add_argument("--me", type=int, required=True, help="position among the peers")
    parser.add_argument("--clients", required=True, help="HOST:PORT for clients")
    parser.add_argument("--peers", required=True, help="HOST:PORT of each node for the others, with commas")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--grpc", action="store_true", help="between the nodes as well")
    arguments = parser.parse_args()
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    peers = arguments.peers.split(",")
    uvloop.run(_serve(arguments.me, arguments.clients, peers, arguments.folder, is_grpc=arguments.grpc))


if __name__ == "__main__":
    main()
