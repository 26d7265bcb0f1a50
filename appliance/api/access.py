"""The one way in for every call on the client port: who asks, and whether this method is theirs to call.

Invariant: a method that is not named here is for operators only, so that a new one is closed until somebody thinks
about it. The caller is known, or refused, before the request's body is read: gRPC asks for the handler first.
What a caller may touch is checked by the services, with `present_caller`. Loop thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import grpc

from appliance.api.calls import Context, Handler, Handlers, abort
from appliance.errors import RaftberryError
from appliance.node.access import EVERYONE, Access, Caller
from raftberry.internal.v1 import command_pb2

AUTHORIZATION_KEY: Final = "authorization"

WITH_ANY_TOKEN: Final = frozenset(
    {
        # What these touch is checked against the token's scopes by the services.
        "/raftberry.v1.ReadingService/Write",
        "/raftberry.v1.ReadingService/StreamWrite",
        "/raftberry.v1.ReadingService/GetLatest",
        "/raftberry.v1.ReadingService/Query",
        "/raftberry.v1.ReadingService/Watch",
        "/raftberry.v1.ReadingService/ListSeries",
        "/raftberry.v1.ReadingService/SetSeries",
        "/raftberry.v1.ReadingService/GetProducer",
        "/raftberry.v1.KeyValueService/Put",
        "/raftberry.v1.KeyValueService/Get",
        "/raftberry.v1.KeyValueService/Delete",
        "/raftberry.v1.KeyValueService/List",
        "/raftberry.v1.KeyValueService/Watch",
        "/api.v1.KeyValueService/Set",
        "/api.v1.KeyValueService/Get",
        # These show names and figures of nodes, nothing that was measured.
        "/raftberry.v1.ClusterService/GetStatus",
        "/raftberry.v1.ClusterService/ListMembers",
        "/raftberry.v1.ClusterService/WatchEvents",
    }
)

WITHOUT_TOKEN: Final = frozenset(
    {
        # Whoever joins proves an invite inside; see docs/security.md.
        "/raftberry.v1.JoinService/GetAuthority",
        "/raftberry.v1.JoinService/Join",
    }
)

_CALLER: ContextVar[Caller] = ContextVar("caller", default=EVERYONE)


def present_caller() -> Caller:
    """Who the call that runs now comes from."""
    return _CALLER.get()


def check_write(caller: Caller, operation: command_pb2.Operation) -> None:
    """Every series of a write; PermissionDenied."""
    if caller.is_limited:
        for columns in operation.write.columns:
            caller.check_write(columns.sensor, columns.metric)


class GatedHandlers(grpc.GenericRpcHandler):
    """All services behind one gate. access None: everyone may do everything (the local socket)."""

    def __init__(self, services: Mapping[str, Handlers], access: Access | None) -> None:
        self._access = access
        self._handlers: dict[str, Handler] = {
            f"/{service}/{method}": handler
            for service, handlers in services.items()
            for method, handler in handlers.items()
        }

    @property
    def methods(self) -> Iterable[str]:
        return self._handlers.keys()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Called in the call's own context, before the request is read."""
        method: Any = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None or self._access is None or method in WITHOUT_TOKEN:
            return handler
        try:
            caller = self._access.authorize(_authorization(handler_call_details))
            if method not in WITH_ANY_TOKEN:
                caller.check_operator(method.removeprefix("/"))
        except RaftberryError as error:
            return _refusal(error)
        _CALLER.set(caller)
        return handler


def _authorization(details: grpc.HandlerCallDetails) -> str | None:
    for key, value in details.invocation_metadata or ():
        if key == AUTHORIZATION_KEY and isinstance(value, str):
            return value
    return None


def _refusal(error: RaftberryError) -> Handler:
    """A handler that answers before it reads anything, whatever kind of method was called."""

    async def refuse(_requests: object, context: Context) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)
