"""Links over real loopback sockets: a node that records what it is told, and ways to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable

from appliance.model import MemberId
from appliance.peers import FoundingDesk, PeerAddress, PeerLinks, PeerOptions, PeerServer
from raftberry.internal.v1 import peer_pb2

QUICK = PeerOptions(
    reconnect_delay_s_min=0.01,
    reconnect_delay_s_max=0.05,
    hello_timeout_s=2.0,
    # Far beyond any test: what a test sees was not noticed by keepalive.
    keepalive_s=600.0,
    keepalive_timeout_s=600.0,
)


class RecordingNode:
    """LinkEvents that keep what they are told, in order, as (event, peer, detail)."""

    def __init__(self, member_id: int, boot_nonce: int = 1) -> None:
        self.member_id = member_id
        self.boot_nonce = boot_nonce
        self.log: list[tuple[str, int, object]] = []
        self.refuse: peer_pb2.Refusal | None = None
        self.changed = asyncio.Event()

    def hello(self, to_member: MemberId) -> peer_pb2.Frame:
        frame = peer_pb2.Frame(from_member=self.member_id)
        frame.hello.name = f"node-{self.member_id}"
        frame.hello.to_member = to_member
        frame.hello.boot_nonce = self.boot_nonce
        return frame

    def check_hello(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        return self.refuse

    def on_frame(self, member_id: MemberId, frame: peer_pb2.Frame) -> None:
        self._note("frame", member_id, frame)

    def on_up(self, member_id: MemberId) -> None:
        self._note("up", member_id, None)

    def on_down(self, member_id: MemberId, reason: str) -> None:
        self._note("down", member_id, reason)

    def on_refused(self, member_id: MemberId, refusal: peer_pb2.Refusal) -> None:
        self._note("refused", member_id, refusal)

    def _note(self, event: str, member_id: int, detail: object) -> None:
        self.log.append((event, member_id, detail))
        self.changed.set()

    def count(self, event: str) -> int:
        return sum(1 for noted, _, _ in self.log if noted == event)

    def states(self) -> list[str]:
        return [event for event, _, _ in self.log if event in ("up", "down")]

    def terms(self) -> list[int]:
        """The term of each frame received: what the tests number their frames with."""
        return [frame.term for _, _, frame in self.log if isinstance(frame, peer_pb2.Frame)]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


def numbered(sender: int, number: int, size_bytes: int = 0) -> peer_pb2.Frame:
    """A frame of about that size, told apart by its term."""
    frame = peer_pb2.Frame(from_member=sender, term=number)
    if size_bytes:
        frame.snapshot_chunk.data = bytes(size_bytes)
    else:
        frame.heartbeat.round = number
    return frame


def framed(*contents: bytes) -> bytes:
    """As messages on a connection of our own."""
    return b"".join(struct.pack(">I", len(content)) + content for content in contents)


async def serve(member_id: int, port: int = 0, options: PeerOptions = QUICK) -> PeerServer:
    desk = FoundingDesk(f"node-{member_id}", MemberId(member_id), [])
    server = PeerServer(f"127.0.0.1:{port}", desk.answer, options=options)
    await server.start()
    return server


def address(member_id: int, port: int) -> PeerAddress:
    return PeerAddress(MemberId(member_id), f"node-{member_id}", f"127.0.0.1:{port}")


class Pair:
    """Nodes 1 and 2, linked."""

    def __init__(self, servers: list[PeerServer], options: PeerOptions) -> None:
        self.options = options
        self.servers = servers
        self.ports = [server.port for server in servers]
        self.nodes = [RecordingNode(1), RecordingNode(2)]
        self.links = [self._link(0), self._link(1)]

    def _link(self, index: int) -> PeerLinks:
        peer = address(2 - index, self.ports[1 - index])
        return PeerLinks(self.servers[index], [peer], self.nodes[index], rng=random.Random(index))

    async def start(self) -> None:
        for links in self.links:
            await links.start()

    async def up(self) -> None:
        for node in self.nodes:
            await node.until(lambda node=node: node.states()[-1:] == ["up"])  # type: ignore[misc]

    async def stop(self, index: int) -> None:
        await self.links[index].stop()
        await self.servers[index].stop()

    async def restart(self, index: int) -> None:
        """What a new process on the same port does."""
        self.servers[index] = await serve(index + 1, self.ports[index], self.options)
        self.nodes[index] = RecordingNode(index + 1, boot_nonce=2)
        self.links[index] = self._link(index)
        await self.links[index].start()


@contextlib.asynccontextmanager
async def pair(options: PeerOptions = QUICK, *, is_started: bool = True) -> AsyncIterator[Pair]:
    linked = Pair([await serve(1, options=options), await serve(2, options=options)], options)
    try:
        if is_started:
            await linked.start()
            await linked.up()
        yield linked
    finally:
        for index in (0, 1):
            await linked.stop(index)
