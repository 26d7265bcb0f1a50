"""What the two ends of a peer link agree on: method names, encoding, options of the channels.

Invariant: bytes from a peer become messages by protobuf's parser alone; nothing is unpickled.
Messages pass through gRPC as bytes (no serializers there), so that a frame is encoded once.
Source: gRPC core's channel arguments (grpc/impl/channel_arg_names.h), RFC 9113 section 6.7 (PING).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from appliance.addresses import join_address
from appliance.limits import ENTRY_BYTES_MAX, KIB, MIB, PEER_IN_FLIGHT_BYTES_MAX
from appliance.model import MemberId
from appliance.peers.credentials import PeerCredentials
from raftberry.internal.v1 import peer_pb2

SERVICE: Final = "raftberry.internal.v1.PeerService"
EXCHANGE: Final = f"/{SERVICE}/Exchange"
FOUND: Final = f"/{SERVICE}/Found"
REPLACE: Final = f"/{SERVICE}/Replace"
FETCH_AUTHORITY: Final = f"/{SERVICE}/FetchAuthority"
LANE_KEY: Final = "lane"

BATCH_BYTES: Final = 256 * KIB
"""Frames that wait are joined into one message of gRPC up to this size."""

FRAME_BYTES_MAX: Final = ENTRY_BYTES_MAX + 1 * MIB
"""One frame: an entry of the largest size and what travels around it."""

MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX + 1 * MIB
"""One FrameBatch: a frame of the largest size behind a full batch of small ones."""

CONNECTIONS_MAX: Final = 256
"""Sixteen members take four each; more are strangers, and refused before they are read."""

R = TypeVar("R")


class Lane(Enum):
    """The two connections to a peer: a heartbeat never queues behind a snapshot chunk."""

    LIVE = "live"
    BULK = "bulk"


LANE_OF_PRELUDE: Final = {f"raftberry 1 {lane.value}\n".encode(): lane for lane in Lane}
"""How a connection of our own begins: the version of what follows, and the lane."""

PRELUDE_BYTES: Final = 17

assert all(len(prelude) == PRELUDE_BYTES for prelude in LANE_OF_PRELUDE)
assert BATCH_BYTES < MESSAGE_BYTES_MAX - FRAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer listens. address is HOST:PORT; the host may be a name, looked up at each dial."""

    member_id: MemberId
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Bounds and times of the links; the defaults are what a cluster on a LAN wants."""

    in_flight_bytes_max: int = PEER_IN_FLIGHT_BYTES_MAX
    credit_bytes: int = 64 * KIB
    """The receiver reports what it took each time this much has come together."""
    reconnect_delay_s_min: float = 0.05
    reconnect_delay_s_max: float = 1.0
    hello_timeout_s: float = 3.0
    """From the dial, or the first byte, to the verdict on Hello."""
    keepalive_s: float = 2.0
    keepalive_timeout_s: float = 4.0
    """Without a TCP acknowledgement. A paused process keeps its connections while what it is sent fits the buffers."""

    def __post_init__(self) -> None:
        assert 0 < self.credit_bytes < self.in_flight_bytes_max
        assert 0 < self.reconnect_delay_s_min <= self.reconnect_delay_s_max


class BadFrame(Exception):
    """A peer sent what is not a frame of its own; the stream ends."""


def prelude_of(lane: Lane) -> bytes:
    return next(prelude for prelude, named in LANE_OF_PRELUDE.items() if named is lane)


def encode_batch(frames: Sequence[bytes]) -> bytes:
    """The frames, each an encoded Frame, as one encoded FrameBatch."""
    return peer_pb2.FrameBatch(frames=frames).SerializeToString()


def split_batch(data: bytes) -> Sequence[bytes]:
    """The encoded frames of one message; BadFrame."""
    try:
        return peer_pb2.FrameBatch.FromString(data).frames
    except DecodeError as error:
        raise BadFrame(f"{len(data)} bytes that are no FrameBatch") from error


def decode_frame(data: bytes, *, sender: MemberId | None) -> peer_pb2.Frame:
    """One frame; BadFrame when it does not parse, or is not from sender (None: from anyone)."""
    try:
        frame = peer_pb2.Frame.FromString(data)
    except DecodeError as error:
        raise BadFrame(f"{len(data)} bytes that are no Frame") from error
    if sender is not None and frame.from_member != sender:
        raise BadFrame(f"a frame in the name of {frame.from_member:016x}")
    return frame


def decode_response(data: bytes) -> peer_pb2.ExchangeResponse:
    """What the receiving end of a stream says; BadFrame."""
    try:
        return peer_pb2.ExchangeResponse.FromString(data)
    except DecodeError as error:
        raise BadFrame(f"{len(data)} bytes that are no ExchangeResponse") from error


def _keepalive(options: PeerOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", int(options.keepalive_s * 1_000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout_s * 1_000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def server_options(options: PeerOptions) -> list[tuple[str, int]]:
    """A port in use is an error, and a peer's pings are welcome at our keepalive's rate."""
    return [
        *_keepalive(options),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", int(options.keepalive_s * 500)),
        ("grpc.http2.max_ping_strikes", 0),
        # Whoever connects and says nothing, or a byte a second, is gone after this.
        ("grpc.server_handshake_timeout_ms", int(options.hello_timeout_s * 1_000)),
        ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
    ]


async def open_channel(
    address: str, options: PeerOptions, credentials: PeerCredentials | None, member_id: MemberId | None = None
) -> grpc.aio.Channel:
    """A channel with a TCP connection of its own; OSError when the host has no address.

    With credentials only member_id (None: any member) is spoken to, wherever the address leads.

    The name is looked up by the system's resolver (gRPC's own knows no mDNS). A channel serves one attempt, so
    gRPC's own reconnecting and its backoff never come into play.
    """
    host, port = split_address(address)
    target = await _resolve(host, port)
    arguments: list[tuple[str, int | str]] = [
        *_keepalive(options),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.min_reconnect_backoff_ms", int(options.hello_timeout_s * 1_000)),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.default_authority", address),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=arguments)
    arguments.append(("grpc.ssl_target_name_override", credentials.host_of(member_id)))
    return grpc.aio.secure_channel(target, credentials.channel(), options=arguments)


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT or [IPV6]:PORT as its parts; ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 <= int(port) < 1 << 16:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def addresses_of(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """What to connect to, IPv4 first; OSError when there is nothing.

    The name is looked up by the system's resolver, which knows mDNS (`pi-1.local`).
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = [
        (item[0], item[4]) for item in found if item[0] in (socket.AF_INET, socket.AF_INET6)
    ]
    if not places:
        raise OSError(f"{host} has neither an IPv4 nor an IPv6 address")
    return sorted(places, key=lambda place: place[0] is not socket.AF_INET)


async def _resolve(host: str, port: int) -> str:
    """As gRPC takes it: addresses of one family."""
    places = await addresses_of(host, port)
    family = places[0][0]
    targets = [join_address(str(where[0]), port) for kind, where in places if kind is family]
    return f"{'ipv4' if family is socket.AF_INET else 'ipv6'}:{','.join(targets)}"


def tell_node(call: Callable[..., R], *arguments: object) -> R:
    """Call one of the node's LinkEvents. An error there is a bug: the loop's handler ends the process."""
    try:
        return call(*arguments)
    except Exception as error:
        context = {"message": f"peer links: the node failed in {call.__name__}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
        raise
