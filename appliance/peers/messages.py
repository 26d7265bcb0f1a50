"""Messages over one TCP connection, each behind its length: what the lanes between nodes are made of.

Invariant: a message is whole or was never here; more than HELD_BYTES_MAX of messages that nobody has read is not taken
from the connection. TLS, where there is any, lies below.
Why not gRPC: each message costs it changes of threads, and of the interpreter's lock, on both ends. Three nodes that do
nothing else (benchmarks/bare.py) take twice the CPU for a write through it.
Loop thread only.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from appliance.addresses import join_address
from appliance.limits import MIB
from appliance.peers.wire import FRAME_BYTES_MAX, BadFrame

HELD_BYTES_MAX: Final = 1 * MIB
MESSAGE_OVERHEAD: Final = 64
"""Bytes that a message takes beside its own: one without any is not free."""

CLOSING_S: Final = 3.0
"""For the last words to leave."""

_LENGTH: Final = struct.Struct(">I")


class MessageStream(asyncio.Protocol):
    """One connection, from its first message on; the maker gives it to the loop as the connection's protocol."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._messages: list[bytes] = []
        self._held_bytes = 0
        self._is_held_back = self._has_ended = False
        self._bad: BadFrame | None = None
        self._reader: asyncio.Future[None] | None = None
        self._tell_end: Callable[[], None] | None = None
        self.end_reason = "the peer closed the connection"
        """Once `read` gave None."""

    # what a lane does with it ----------------------------------------------------------------------------

    async def read(self) -> Sequence[bytes] | None:
        """All messages that have come, at least one; None: the connection has ended. BadFrame."""
        while not self._messages:
            if self._bad is not None:
                raise self._bad
            if self._has_ended:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        messages, self._messages = self._messages, []
        self._held_bytes = 0
        if self._is_held_back:
            self._is_held_back = False
            assert self._transport is not None
            self._transport.resume_reading()
        return messages

    def tell_end(self, tell: Callable[[], None]) -> None:
        """tell is called once the connection has ended, while messages may still wait here."""
        if self._has_ended:
            tell()
        else:
            self._tell_end = tell

    def send(self, message: bytes) -> None:
        """Whoever sends bounds what is under way. After the end it goes nowhere."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_LENGTH.pack(len(message)) + message)

    def close(self) -> None:
        """What was sent leaves, unless the other end takes nothing any more. Idempotent."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            self._loop.call_later(CLOSING_S, transport.abort)

    def peer(self) -> str:
        """Where the other end is."""
        assert self._transport is not None
        where = self._transport.get_extra_info("peername")
        return join_address(where[0], where[1]) if where else "a connection that has ended"

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Whom the other end's certificate names, in the words of gRPC; empty without TLS."""
        assert self._transport is not None
        certificate: Mapping[str, Any] = self._transport.get_extra_info("peercert") or {}
        secured = self._transport.get_extra_info("ssl_object")
        if secured is None:
            return {}
        names = certificate.get("subjectAltName", ())
        return {
            "peer_uri": [value.encode() for kind, value in names if kind == "URI"],
            "ssl_tls_version": [str(secured.version()).encode()],
        }

    # what the loop calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._bad is not None:
            return
        place = 0
        if self._buffer:
            self._buffer += data
        source = self._buffer or data
        while len(source) - place >= _LENGTH.size:
            (size_bytes,) = _LENGTH.unpack_from(source, place)
            if size_bytes > FRAME_BYTES_MAX:
                self._bad = BadFrame(f"a message of {size_bytes} bytes; at most {FRAME_BYTES_MAX}")
                self._wake()
                return
            end = place + _LENGTH.size + size_bytes
            if len(source) < end:
                break
            self._messages.append(bytes(source[place + _LENGTH.size : end]))
            self._held_bytes += size_bytes + MESSAGE_OVERHEAD
            place = end
        if source is self._buffer:
            del self._buffer[:place]
        else:
            self._buffer += data[place:]
        if place:
            self._wake()
        if self._held_bytes > HELD_BYTES_MAX and not self._is_held_back:
            self._is_held_back = True
            assert self._transport is not None
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.end_reason = str(error) or type(error).__name__
        self._has_ended = True
        self._wake()
        if self._tell_end is not None:
            self._tell_end()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
