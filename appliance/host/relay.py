"""A TCP relay between nodes on this machine, with links that can be cut and slowed: for drills.

Invariant: bytes are never changed, dropped or reordered within a connection, as TCP promises; a cut link holds what it
was given, like a cable that is out, and neither side is told. All nodes know the same address of a target, so who
dialled is asked of the kernel: the process that holds the other end. One asyncio loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psutil

HOST: Final = "127.0.0.1"
PIECE_BYTES: Final = 64 << 10
PIECES_MAX: Final = 64
"""On their way in one direction; beyond it the sender is held back."""

POLL_S: Final = 0.005
CALL_TIMEOUT_S: Final = 30.0


@dataclass(slots=True)
class Link:
    """Between two nodes, both ways."""

    delay_s: float = 0.0
    is_cut: bool = False


class Relay:
    """A port of its own before the peer port of each node."""

    def __init__(self, find_dialler: Callable[[int], str]) -> None:
        """find_dialler: name of the node that holds this local port of loopback; empty: nobody we know. May block."""
        self._find_dialler = find_dialler
        self._targets: list[str] = []
        self._links: dict[frozenset[str], Link] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()

    def link(self, one: str, other: str) -> Link:
        """Plain attributes; what is set holds for the bytes from then on."""
        return self._links.setdefault(frozenset((one, other)), Link())

    def cut_off(self, name: str) -> None:
        """From every other node; clients still reach it."""
        for link in self._links_of(name):
            link.is_cut = True

    def delay(self, name: str, delay_s: float) -> None:
        """All bytes between this node and the others, each way."""
        for link in self._links_of(name):
            link.delay_s = delay_s

    def mend(self) -> None:
        """Every link is as it was at first."""
        for link in list(self._links.values()):
            link.delay_s, link.is_cut = 0.0, False

    def listen(self, target: str, port: int) -> str:
        """HOST:PORT by which all others shall reach target, which listens on port."""
        self._targets.append(target)
        return asyncio.run_coroutine_threadsafe(self._listen(target, port), self._loop).result(CALL_TIMEOUT_S)

    def close(self) -> None:
        """Ends all connections and the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    def _links_of(self, name: str) -> list[Link]:
        return [self.link(name, other) for other in self._targets if other != name]

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _listen(self, target: str, port: int) -> str:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._serve(target, port, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, HOST, 0, limit=PIECE_BYTES)
        self._servers.append(server)
        return f"{HOST}:{server.sockets[0].getsockname()[1]}"

    async def _serve(
        self, target: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far_writer: asyncio.StreamWriter | None = None
        try:
            source = await asyncio.to_thread(self._find_dialler, writer.get_extra_info("peername")[1])
            if not source:
                return
            link = self.link(source, target)
            while link.is_cut:
                await asyncio.sleep(POLL_S)
            far_reader, far_writer = await asyncio.open_connection(HOST, port, limit=PIECE_BYTES)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_carry(reader, far_writer, link))
                ways.create_task(_carry(far_reader, writer, link))
        except* OSError:
            # The target is not there, or one side went: that is the end of the connection for both.
            pass
        finally:
            for end in (writer, far_writer):
                if end is not None:
                    end.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    """One direction. Raises ConnectionError at its end, so that the other ends with it."""
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_MAX)
    loop = asyncio.get_running_loop()

    async def take() -> None:
        while data := await reader.read(PIECE_BYTES):
            await pieces.put((loop.time() + link.delay_s, data))
        await pieces.put((loop.time() + link.delay_s, b""))

    taking = asyncio.create_task(take())
    try:
        while True:
            due_s, data = await pieces.get()
            while link.is_cut or loop.time() < due_s:
                await asyncio.sleep(POLL_S)
            if not data:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
    finally:
        taking.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await taking


def holds_port(process: int, port: int) -> bool:
    """Whether this process, or a child of it, has a TCP connection from this local port."""
    with suppress(psutil.Error):
        family = psutil.Process(process)
        return any(
            connection.laddr and connection.laddr.port == port
            for one in (family, *family.children(recursive=True))
            for connection in one.net_connections("tcp")
        )
    return False
