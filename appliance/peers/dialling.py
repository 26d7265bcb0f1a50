"""Dialling a peer for one lane: a connection of our own, or gRPC if the peer does not know these yet.

Invariant: with credentials, both ends have shown who they are, over TLS 1.3, before the first message.
The dialler sends a prelude in the clear, which names the lane; who takes it sends the same back, and TLS begins. A peer
that has only gRPC ends the connection, or answers something else: to it these bytes are garbage.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from typing import Any, Final

from appliance.peers.credentials import PeerCredentials
from appliance.peers.lanes import Outgoing, OutgoingCall, OutgoingMessages
from appliance.peers.messages import MessageStream
from appliance.peers.wire import (
    EXCHANGE,
    LANE_KEY,
    PRELUDE_BYTES,
    Lane,
    PeerAddress,
    PeerOptions,
    addresses_of,
    open_channel,
    prelude_of,
    split_address,
)

CONNECT_S_MAX: Final = 0.5
"""For an address, if there is another one to try."""

HOSTNAME_MISMATCH: Final = 62
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH."""


async def dial(
    peer: PeerAddress, lane: Lane, options: PeerOptions, credentials: PeerCredentials | None
) -> Outgoing:
    """OSError, AioRpcError; the caller sets the time. Of us the peer knows no more yet than our certificate."""
    taken = await _connect(peer.address, options)
    try:
        is_taken = await _is_prelude_taken(taken, prelude_of(lane))
        if is_taken:
            return OutgoingMessages(await _begin(taken, peer, credentials))
    except BaseException:
        taken.close()
        raise
    taken.close()
    channel = await open_channel(peer.address, options, credentials, peer.member_id)
    return OutgoingCall(channel, channel.stream_stream(EXCHANGE)(metadata=((LANE_KEY, lane.value),)))


async def _connect(address: str, options: PeerOptions) -> socket.socket:
    """To the first of the host's addresses that answers: a board with a cable and a radio has two, one may be dead."""
    places = await addresses_of(*split_address(address))
    failure = OSError(f"{address} has no address")
    for number, (family, where) in enumerate(places, start=1):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            watch_over(connection, options)
            async with asyncio.timeout(CONNECT_S_MAX if number < len(places) else None):
                await _connected(connection, where)
            return connection
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
    raise failure


async def _connected(connection: socket.socket, where: tuple[Any, ...]) -> None:
    """By hand: uvloop would have a thread look the address up, which names that lead nowhere keep busy."""
    code = connection.connect_ex(where)
    if code == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        is_writable = asyncio.Event()
        loop.add_writer(connection, is_writable.set)
        try:
            await is_writable.wait()
        finally:
            loop.remove_writer(connection)
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    if connection.getsockname() == connection.getpeername():
        # Where nobody listens on a port that the system also gives out, TCP may connect a socket to itself.
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


async def _is_prelude_taken(connection: socket.socket, prelude: bytes) -> bool:
    loop = asyncio.get_running_loop()
    answer = b""
    try:
        await loop.sock_sendall(connection, prelude)
        while len(answer) < PRELUDE_BYTES and prelude.startswith(answer):
            data = await loop.sock_recv(connection, PRELUDE_BYTES - len(answer))
            if not data:
                return False
            answer += data
    except ConnectionError:
        return False
    return answer == prelude


async def _begin(
    connection: socket.socket, peer: PeerAddress, credentials: PeerCredentials | None
) -> MessageStream:
    stream, loop = MessageStream(), asyncio.get_running_loop()
    if credentials is None:
        await loop.create_connection(lambda: stream, sock=connection)
        return stream
    host = credentials.host_of(peer.member_id)
    try:
        await loop.create_connection(
            lambda: stream, sock=connection, ssl=credentials.client_context(), server_hostname=host
        )
    except ssl.CertificateError as error:
        is_other = error.verify_code == HOSTNAME_MISMATCH
        what = f"its certificate is not that of {host}" if is_other else "its certificate is not valid here"
        raise OSError(f"{what}: {error.verify_message}") from error
    return stream


def watch_over(connection: socket.socket, options: PeerOptions) -> None:
    """What goes out goes out at once, and a peer that is no longer there is noticed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(options.keepalive_s)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    timeout_ms = int(options.keepalive_timeout_s * 1_000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
