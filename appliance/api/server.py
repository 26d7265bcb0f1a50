"""The client port: all services on one gRPC server, with health and reflection.

Invariant: the port is open only between start() and stop(), and never shared with another process. Loop thread.
Source for the options: grpc's doc/keepalive.md and include/grpc/impl/channel_arg_names.h.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from appliance import limits
from appliance.api import cluster, key_value, policy, reading, sample, tokens
from appliance.api.access import GatedHandlers
from appliance.api.calls import Handlers, log
from appliance.api.port import Node
from appliance.api.tally import Tally, counter_of
from appliance.errors import ConfigurationError
from appliance.node.access import Access
from appliance.node.tokens import NO_FINGERPRINT
from appliance.rpc import Server

CONCURRENT_CALLS_PER_CONNECTION_MAX: Final = 1_000
"""HTTP/2 streams of one connection; a client that wants more waits in its own library."""

CONNECTIONS_MAX: Final = 2_000
"""Of one port; more are closed unread. Some 100 MB at worst, and far below the service's descriptors."""

HANDSHAKE_TIMEOUT_MS: Final = 5_000
"""A Pi Zero takes 100 ms for TLS; a sensor on a bad radio a second or two."""

IDLE_MS: Final = 300_000

UNIX_PREFIX: Final = "unix:"
SOCKET_MODE: Final = 0o660

GATED_SERVICES: Final = (reading.SERVICE, key_value.SERVICE)
"""SERVING only while a commit or a ReadIndex round was confirmed within two election timeouts."""

_OPTIONS: Final = (
    # Without this a second process binds the same port silently and takes half of the connections.
    ("grpc.so_reuseport", 0),
    # gRPC itself refuses a larger request before any handler sees it: RESOURCE_EXHAUSTED, "SERVER: Received
    # message larger than max (5000000 vs. 4194304)", without ErrorInfo. Nothing was applied.
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", CONCURRENT_CALLS_PER_CONNECTION_MAX),
    # A watcher whose machine lost its power is found out within 80 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Clients may ping every 10 s, also a watcher that is idle.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Whoever connects and says nothing, or a byte a second, is gone after this; gRPC's default is two minutes.
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    # A connection without a call costs some 50 KB: a client that comes back after five minutes connects anew.
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
)


class ClientServer:
    """Serves node at address (HOST:PORT; port 0: any free one). credentials None: plaintext."""

    def __init__(
        self,
        node: Node,
        address: str,
        *,
        credentials: grpc.ServerCredentials | None = None,
        access: Access | None = None,
        fingerprint: bytes = NO_FINGERPRINT,
        inviter: tokens.Inviter | None = None,
        extras: Mapping[str, Handlers] | None = None,
    ) -> None:
        """address may be unix:PATH. access None: no token is asked for. fingerprint: of the cluster's CA.

        extras: services beside those that every port of a node has.
        """
        self._fingerprint, self._inviter, self._extras = fingerprint, inviter, extras or {}
        self._node = node
        self._access = access
        self._address = address
        self._credentials = credentials
        self._health = health.aio.HealthServicer()
        self._health_changes: asyncio.Queue[bool] = asyncio.Queue()
        self._health_task: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self.port = 0
        self.tally: Tally = Tally()
        """Calls that ended, by method and code."""

    async def start(self) -> None:
        """Opens the port and serves. ConfigurationError if the port cannot be had."""
        assert self._server is None
        server = self._new_server()
        try:
            self.port = self._bind(server)
        except ConfigurationError:
            await server.stop(None)
            raise
        self._server = server
        await self._set_health(is_serving=self._node.is_serving())
        self._node.on_serving_change.append(self._health_changes.put_nowait)
        self._health_task = asyncio.create_task(self._follow_serving(), name="api-health")
        server.start()
        if self._address.startswith(UNIX_PREFIX):
            log.info("local socket opened address=%s", self._address)
        else:
            log.info("client port opened address=%s port=%d", self._address, self.port)

    async def stop(self, grace: float) -> None:
        """Refuses new calls, lets running ones end for grace seconds, closes the port. Idempotent."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._node.on_serving_change.remove(self._health_changes.put_nowait)
        if self._health_task is not None:
            self._health_task.cancel()
        await self._health.enter_graceful_shutdown()
        await server.stop(grace)
        if self._address.startswith(UNIX_PREFIX):
            Path(self._address.removeprefix(UNIX_PREFIX)).unlink(missing_ok=True)
        log.info("client port closed address=%s port=%d", self._address, self.port)

    def _new_server(self) -> Server:
        services: dict[str, Handlers] = {
            reading.SERVICE: reading.ReadingService(self._node).handlers(),
            key_value.SERVICE: key_value.KeyValueService(self._node).handlers(),
            cluster.CLUSTER: cluster.ClusterService(self._node).handlers(),
            cluster.MAINTENANCE: cluster.MaintenanceService(self._node).handlers(),
            policy.SERVICE: policy.PolicyService(self._node).handlers(),
            tokens.SERVICE: tokens.AccessService(self._node, self._fingerprint, self._inviter).handlers(),
            sample.KEY_VALUE: sample.KeyValueService(self._node).handlers(),
            sample.RAFT: sample.RaftService(self._node).handlers(),
            **self._extras,
        }
        gate = GatedHandlers(services, self._access)
        server = Server((gate,), options=_OPTIONS, on_end=counter_of(self.tally, gate.methods))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names), server
        )
        return server

    def _bind(self, server: Server) -> int:
        if self._address.startswith(UNIX_PREFIX):
            return _bind_socket(server, Path(self._address.removeprefix(UNIX_PREFIX)))
        try:
            return server.listen(self._address, self._credentials)
        except OSError as error:
            raise _not_bound(self._address) from error

    async def _follow_serving(self) -> None:
        while True:
            await self._set_health(is_serving=await self._health_changes.get())

    async def _set_health(self, *, is_serving: bool) -> None:
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if is_serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in GATED_SERVICES:
            await self._health.set(service, status)


def _bind_socket(server: Server, path: Path) -> int:
    """For the owner and the group of the directory: whoever may open the socket may do everything."""
    path.unlink(missing_ok=True)
    # Between bind and chmod nobody else may come in.
    mask = os.umask(0o177)
    try:
        port = server.listen(f"{UNIX_PREFIX}{path}")
        path.chmod(SOCKET_MODE)
    except OSError as error:
        raise _not_bound(f"{UNIX_PREFIX}{path}") from error
    finally:
        os.umask(mask)
    return port


def _not_bound(address: str) -> ConfigurationError:
    return ConfigurationError(
        f"client.address {address} cannot be opened: another process uses the port, or the host is none of this "
        f"machine's; see `ss -ltnp`, stop that process, or choose another with --client-address"
    )
