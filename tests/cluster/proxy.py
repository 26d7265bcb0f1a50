"""A TCP proxy between two nodes that delays, throttles, stalls and cuts: what a slow and lossy link does to streams.

Invariant: bytes are never changed, dropped or reordered within a connection, as TCP promises; what a lossy network does
is seen as delay, as a stall, or as the end of the connection. One asyncio loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

READ_BYTES: Final = 64 << 10
WAITING_PIECES_MAX: Final = 64
"""Pieces on their way in one direction: beyond it the sender is held back."""

POLL_S: Final = 0.01


@dataclass(slots=True)
class Path:
    """What happens to bytes from one node to another, in whatever connection they travel."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    """0: as fast as it goes."""

    is_blocked: bool = False
    carried_bytes: int = 0

    def mend(self) -> None:
        self.delay_s = self.jitter_s = self.bytes_per_s = 0.0
        self.is_blocked = False


@dataclass(slots=True)
class _Relay:
    """One listening port: whoever dials `target` dials it here. writers: of each connection, by who dialled."""

    target: str
    address: tuple[str, int]
    server: asyncio.Server | None = None
    writers: dict[asyncio.StreamWriter, str] = field(default_factory=dict)


class Proxy:
    """Ports of its own in front of other addresses."""

    def __init__(self, host: str, rng: random.Random, source_of: Callable[[str], str]) -> None:
        """source_of: the node that a connection's far address belongs to."""
        self._host, self._rng, self._source_of = host, rng, source_of
        self._paths: dict[tuple[str, str], Path] = {}
        self._relays: list[_Relay] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def path(self, source: str, target: str) -> Path:
        """Plain attributes, read by the proxy's thread for each piece of data."""
        return self._paths.setdefault((source, target), Path())

    def listen(self, target: str, address: tuple[str, int]) -> str:
        """HOST:PORT that others shall dial instead of address, which is target's."""
        relay = _Relay(target, address)
        self._relays.append(relay)
        return asyncio.run_coroutine_threadsafe(self._listen(relay), self._loop).result(30)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> int:
        """Break the connections of these pairs, in either direction; how many there were."""
        ends = {frozenset(pair) for pair in pairs}
        return self._call(lambda: sum(_abort(relay, ends) for relay in self._relays))

    def mend(self) -> None:
        for path in list(self._paths.values()):
            path.mend()

    @property
    def carried_bytes(self) -> int:
        return sum(path.carried_bytes for path in list(self._paths.values()))

    def close(self) -> None:
        def end() -> int:
            for relay in self._relays:
                if relay.server is not None:
                    relay.server.close()
                _abort(relay, None)
            return 0

        self._call(end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _call(self, work: Callable[[], int]) -> int:
        async def run() -> int:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _listen(self, relay: _Relay) -> str:
        relay.server = await asyncio.start_server(
            lambda reader, writer: self._serve(relay, reader, writer), self._host, 0, limit=READ_BYTES
        )
        host, port = relay.server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def _serve(self, relay: _Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = self._source_of(writer.get_extra_info("peername")[0])
        there, back = self.path(source, relay.target), self.path(relay.target, source)
        relay.writers[writer] = source
        far_writer: asyncio.StreamWriter | None = None
        try:
            while there.is_blocked or back.is_blocked:
                await asyncio.sleep(POLL_S)
            far_reader, far_writer = await asyncio.open_connection(*relay.address, limit=READ_BYTES)
            relay.writers[far_writer] = source
            pumps = {
                asyncio.create_task(self._pump(reader, far_writer, there)),
                asyncio.create_task(self._pump(far_reader, writer, back)),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
        except OSError:
            # The target is not there: its refusal becomes the end of the connection.
            pass
        finally:
            for end in (writer, far_writer):
                if end is not None:
                    relay.writers.pop(end, None)
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WAITING_PIECES_MAX)
        sender = asyncio.create_task(_send(pieces, writer, path))
        try:
            while (data := await reader.read(READ_BYTES)) and not sender.done():
                due = self._loop.time() + path.delay_s + self._rng.random() * path.jitter_s
                await pieces.put((due, data))
            while not pieces.empty() and not sender.done():
                await asyncio.sleep(POLL_S)
        except OSError:
            # Aborted or reset: the other direction ends with it.
            pass
        finally:
            sender.cancel()
            await asyncio.wait({sender})
            if not sender.cancelled():
                sender.exception()


async def _send(pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, path: Path) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await pieces.get()
        while path.is_blocked or loop.time() < due:
            await asyncio.sleep(min(POLL_S, max(due - loop.time(), 0.001)))
        if writer.transport.is_closing():
            return
        writer.write(data)
        path.carried_bytes += len(data)
        with suppress(ConnectionError):
            await writer.drain()
        if path.bytes_per_s:
            await asyncio.sleep(len(data) / path.bytes_per_s)


def _abort(relay: _Relay, pairs: set[frozenset[str]] | None) -> int:
    """Of these pairs only, if given; how many connections."""
    found = [
        writer
        for writer, source in relay.writers.items()
        if pairs is None or frozenset((source, relay.target)) in pairs
    ]
    for writer in found:
        writer.transport.abort()
    return len(found) // 2
