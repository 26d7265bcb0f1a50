"""The peer port: answers Found from the first moment, and Exchange once the links exist.

Invariant: the port is bound once, before the cluster exists, and stays bound until `stop`; a stream that
comes before the links do is refused as unavailable and dialled again by the peer.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

import grpc
from google.protobuf.message import DecodeError

from appliance.errors import ConfigurationError
from appliance.model import MemberId
from appliance.peers.credentials import NotWhoItClaims, PeerCredentials
from appliance.peers.lanes import Incoming, IncomingCall, origin_of
from appliance.peers.port import PeerPort
from appliance.peers.wire import SERVICE, PeerOptions, server_options, split_address
from appliance.rpc import Call, Server
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

Exchange = Callable[[Incoming], Awaitable[None]]
AnswerReplace = Callable[[peer_pb2.ReplaceRequest], Awaitable[peer_pb2.ReplaceResponse]]


class PeerServer:
    """A gRPC server with the two methods of PeerService; ConfigurationError when the port is taken."""

    def __init__(
        self,
        listen_address: str,
        answer_found: Callable[[peer_pb2.FoundRequest], peer_pb2.FoundResponse],
        *,
        credentials: PeerCredentials | None = None,
        options: PeerOptions | None = None,
    ) -> None:
        self._listen_address = listen_address
        self._answer_found = answer_found
        self.credentials = credentials
        self.options = options or PeerOptions()
        self._server: Server | None = None
        self._port: PeerPort | None = None
        self._exchange: Exchange | None = None
        self.answer_authority: Callable[[MemberId], bytes] | None = None
        """The CA with its key for that member; NotWhoItClaims. None: this node does not hold it."""

        self.answer_replace: AnswerReplace | None = None
        """Takes a member back with another id; None: this node takes no part in a cluster now."""

        self.port = 0

    async def start(self) -> None:
        """Bind and serve; port is then the port bound (of use when port 0 was asked for)."""
        assert self._server is None
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Found": grpc.unary_unary_rpc_method_handler(self._found),
            "Exchange": grpc.stream_stream_rpc_method_handler(self._serve_exchange),
            "Replace": grpc.unary_unary_rpc_method_handler(self._replace),
            "FetchAuthority": grpc.unary_unary_rpc_method_handler(self._fetch_authority),
        }
        service = grpc.method_handlers_generic_handler(SERVICE, handlers)
        server = Server((service,), options=server_options(self.options))
        try:
            self._bind(server)
        except ConfigurationError:
            await server.stop(None)
            raise
        server.start()
        self._server = server

    async def stop(self) -> None:
        """Close the port and end what is under way."""
        if self._port is not None:
            await self._port.close()
            self._port = None
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def route_exchange(self, exchange: Exchange | None) -> None:
        """Who serves the streams from now on; None: nobody."""
        self._exchange = exchange

    def _bind(self, server: Server) -> None:
        """gRPC's socket is in no directory: its name is random, so that nobody else has taken it."""
        address, name = self._listen_address, f"raftberry-peers-{secrets.token_hex(16)}"
        port = PeerPort(
            address,
            serve=self._serve_lane,
            grpc_socket=f"\0{name}",
            credentials=self.credentials,
            options=self.options,
        )
        try:
            split_address(address)
            server.listen(f"unix-abstract:{name}", self.credentials.server if self.credentials else None)
            self.port = port.open()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"cannot listen for peers on {address}: {error}; "
                "another process may hold the port, or the address is not of this machine; "
                "set --peer-address"
            ) from error
        self._port = port

    async def _found(self, data: bytes, context: Call) -> bytes:
        try:
            request = peer_pb2.FoundRequest.FromString(data)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a FoundRequest")
        return self._answer_found(request).SerializeToString()

    async def _fetch_authority(self, _data: bytes, context: Call) -> bytes:
        """The CA with its key, for a member whose certificate says that it is one."""
        if self.credentials is None or self.answer_authority is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this node holds no key of a CA")
        try:
            member_id = self.credentials.member_of(context.auth_context())
            full_pem = self.answer_authority(member_id)
        except NotWhoItClaims as error:
            log.warning(
                "refused a stranger that asked for the CA: peer=%s reason=%s", origin_of(context), error
            )
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        return peer_pb2.FetchAuthorityResponse(authority_pem=full_pem).SerializeToString()

    async def _replace(self, data: bytes, context: Call) -> bytes:
        """For the holder of the old id's certificate; in a plaintext cluster for whoever says it is that member."""
        try:
            request = peer_pb2.ReplaceRequest.FromString(data)
            if self.credentials is not None:
                self.credentials.check(context.auth_context(), MemberId(request.member_id))
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a ReplaceRequest")
        except NotWhoItClaims as error:
            log.warning(
                "refused to replace a member for a stranger: peer=%s reason=%s", origin_of(context), error
            )
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        if self.answer_replace is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this node takes no part in its cluster now")
        return (await self.answer_replace(request)).SerializeToString()

    async def _serve_exchange(self, _requests: object, context: Call) -> None:
        await self._serve_lane(IncomingCall(context))

    async def _serve_lane(self, lane: Incoming) -> None:
        if self._exchange is None:
            await lane.end(grpc.StatusCode.UNAVAILABLE, "this node has not joined its cluster yet")
        else:
            await self._exchange(lane)
