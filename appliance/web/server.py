"""The web port: uvicorn's HTTP protocol on the node's own loop, without uvicorn's server around it.

uvicorn.Server takes the signals, wakes ten times a second and ends the process when the port is taken; a node wants
none of that, so only its protocol class is used.
Invariant: at most CONNECTIONS_MAX connections, each bounded in what it sends before it is answered and in how long
it may take; the port is open only between start() and stop(). Loop thread; no other thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from appliance.errors import ConfigurationError
from appliance.listening import listening_sockets

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 128
"""A browser opens six; a page holds one open for its events."""

HEADERS_BYTES_MAX: Final = 16 * 1024
FIRST_REQUEST_S: Final = 10.0
"""From the connection to the end of the first request's head."""

KEEP_ALIVE_S: Final = 20
UNACKNOWLEDGED_MS: Final = 30_000
"""TCP_USER_TIMEOUT: a page whose machine lost its power gives its connection back."""

STOP_S: Final = 2.0
BACKLOG: Final = 64


class _Protocol(H11Protocol):
    """One connection, bounded."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= CONNECTIONS_MAX:
            transport.abort()
            return
        connection = transport.get_extra_info("socket")
        if connection is not None:
            # uvloop's socket object knows setsockopt; a test's transport may have none.
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        super().connection_made(transport)
        self._deadline = self.loop.call_later(FIRST_REQUEST_S, self._end_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.transport is not None:
            super().connection_lost(exc)

    def _end_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.abort()


class WebServer:
    """Serves app at address (HOST:PORT; port 0: any free one). tls None: plaintext."""

    def __init__(self, app: ASGIApp, address: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._address, self._tls = address, tls
        self._config = Config(
            cast(Any, app),
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=HEADERS_BYTES_MAX,
        )
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self.port = 0

    async def start(self) -> None:
        """Opens the port and serves. ConfigurationError if the port cannot be had."""
        # What a stranger sends is no event of this node; what our handlers raise is logged by app.py of this package.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._config.load()
        loop = asyncio.get_running_loop()
        make = partial(_Protocol, config=self._config, server_state=self._state, app_state={}, _loop=loop)
        try:
            for listener in listening_sockets(self._address, backlog=BACKLOG):
                self._servers.append(
                    await loop.create_server(make, sock=listener, ssl=self._tls, backlog=BACKLOG)
                )
        except OSError as error:
            raise ConfigurationError(
                f"web.address {self._address} cannot be opened: another process uses the port, or the host is none "
                f"of this machine's ({error.strerror or error}); see `ss -ltnp`, stop that process, or choose another "
                "with --web-address"
            ) from error
        self.port = self._servers[0].sockets[0].getsockname()[1]
        log.info("web port opened address=%s port=%d tls=%s", self._address, self.port, bool(self._tls))

    async def stop(self) -> None:
        """Closes the port; answers under way get STOP_S. Idempotent."""
        if not self._servers:
            return
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            _, late = await asyncio.wait(self._state.tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        log.info("web port closed address=%s port=%d", self._address, self.port)
