"""The peer port itself: tells connections of our own from gRPC's, which are handed on to gRPC as they are.

Invariant: whoever connects has hello_timeout_s to say what this is and to show who it is; beyond CONNECTIONS_MAX a
connection is closed unread. One of our own begins with a prelude (dialling.py); everything else is gRPC's, whose server
listens on a Unix socket of this process: TLS, if any, goes through from end to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

from appliance.addresses import join_address
from appliance.listening import listening_sockets
from appliance.peers.credentials import PeerCredentials
from appliance.peers.dialling import watch_over
from appliance.peers.lanes import Incoming, IncomingMessages
from appliance.peers.messages import MessageStream
from appliance.peers.strangers import HandshakeBudget, Remarks
from appliance.peers.wire import (
    CONNECTIONS_MAX,
    LANE_OF_PRELUDE,
    PRELUDE_BYTES,
    PeerOptions,
)

RELAY_BYTES: Final = 256 << 10
ACCEPT_PAUSE_S: Final = 0.2
"""Where the system has no descriptors left."""

log = logging.getLogger(__name__)


class PeerPort:
    def __init__(
        self,
        address: str,
        *,
        serve: Callable[[Incoming], Awaitable[None]],
        grpc_socket: str,
        credentials: PeerCredentials | None,
        options: PeerOptions,
    ) -> None:
        """serve: a lane to its end. grpc_socket: where gRPC listens, as connect takes it."""
        self._address, self._serve, self._grpc_socket = address, serve, grpc_socket
        self._credentials, self._options = credentials, options
        self._listeners: list[socket.socket] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._relay_count = 0
        self._is_short = False
        """The system had no descriptor left for the last connection."""

        self._budget, self._remarks = HandshakeBudget(time.monotonic), Remarks(time.monotonic)

    def open(self) -> int:
        """The port bound; OSError, ValueError."""
        self._listeners = listening_sockets(self._address, backlog=CONNECTIONS_MAX, is_any_family=True)
        for listener in self._listeners:
            self._listen(listener)
        port: int = self._listeners[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Nobody is let in any more, and what is under way ends."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners = []
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _listen(self, listener: socket.socket) -> None:
        if self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, where = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if not self._is_short:
                log.warning("cannot take a peer's connection: reason=%s", error)
            self._is_short = True
            loop.remove_reader(listener)
            loop.call_later(ACCEPT_PAUSE_S, self._listen, listener)
            return
        self._is_short = False
        if len(self._connections) >= CONNECTIONS_MAX:
            connection.close()
            return
        task = loop.create_task(self._take(connection, where[0], where[1]))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _take(self, connection: socket.socket, host: str, port: int) -> None:
        """One connection to its end."""
        stream: MessageStream | None = None
        try:
            connection.setblocking(False)
            watch_over(connection, self._options)
            async with asyncio.timeout(self._options.hello_timeout_s):
                head = await _head_of(connection)
                lane = LANE_OF_PRELUDE.get(head)
                if lane is not None:
                    # Also to who is refused: without it we would be taken for a node that has only gRPC.
                    await asyncio.get_running_loop().sock_sendall(connection, head)
                    if self._may_begin(host):
                        stream = await self._begin(connection)
            if lane is None and head:
                await self._hand_on(connection, head, join_address(host, port))
            elif lane is not None and stream is not None:
                await self._serve(IncomingMessages(stream, lane))
        except ssl.SSLError as error:
            has_left = isinstance(error, ssl.SSLEOFError)
            if not has_left and self._remarks.is_new(host, str(error)):
                log.warning(
                    "refused a connection without a certificate of ours: peer=%s reason=%s", host, error
                )
        except OSError as error:  # the other end left, or said nothing
            log.debug("a connection to the peer port came to nothing: reason=%s", error)
        finally:
            if stream is None:
                connection.close()
            else:
                stream.close()

    def _may_begin(self, host: str) -> bool:
        """TLS takes its time on the loop, whoever asks for it."""
        if self._credentials is None or self._budget.take(host):
            return True
        if self._remarks.is_new(host, "too often"):
            log.warning("a host connects too often: peer=%s", host)
        return False

    async def _begin(self, connection: socket.socket) -> MessageStream:
        """The connection is the stream's from here on."""
        loop = asyncio.get_running_loop()
        tls = None if self._credentials is None else self._credentials.server_context()
        stream = MessageStream()
        # uvloop returns its own protocol where there is TLS, not ours.
        await loop.connect_accepted_socket(lambda: stream, connection, ssl=tls)
        return stream

    async def _hand_on(self, connection: socket.socket, head: bytes, origin: str) -> None:
        """To gRPC, until it has ended its side."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inner:
            inner.setblocking(False)
            self._relay_count += 1
            with contextlib.suppress(OSError):  # the name is for messages only
                inner.bind(f"{self._grpc_socket}/{self._relay_count}/{origin}")
            await loop.sock_connect(inner, self._grpc_socket)
            await loop.sock_sendall(inner, head)
            there = asyncio.create_task(_pump(connection, inner))
            try:
                await _pump(inner, connection)
            finally:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)


async def _head_of(connection: socket.socket) -> bytes:
    """A prelude, or as much as tells that it is none; empty: nothing came."""
    loop = asyncio.get_running_loop()
    head = b""
    while len(head) < PRELUDE_BYTES and any(prelude.startswith(head) for prelude in LANE_OF_PRELUDE):
        data = await loop.sock_recv(connection, PRELUDE_BYTES - len(head))
        if not data:
            break
        head += data
    return head


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, RELAY_BYTES):
            await loop.sock_sendall(sink, data)
    finally:
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
