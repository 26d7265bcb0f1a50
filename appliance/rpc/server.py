"""A gRPC server on the asyncio loop, on gRPC's own core: connections, HTTP/2, TLS and bounds are the core's.

Invariant: every call that the core gives us gets exactly one status; a handler that fails by a bug costs its own call.
The life of a call: its head arrives, `service` of the handlers is asked (before a byte of the body is read), its
handler runs as a task or, an `Immediate` one, at once, and its status leaves. Loop thread only.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import grpc

from appliance.rpc import core
from appliance.rpc.call import Call, CallOver, Metadata
from appliance.rpc.completions import Completions

HEADS_AHEAD: Final = 16
"""Calls whose heads the core may take before the loop looks."""

log = logging.getLogger(__name__)


class CallHead(NamedTuple):
    """What is known before the body is read; grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: Metadata


@dataclass(frozen=True, slots=True)
class ImmediateStream:
    """A stream without a task: begin(call) reads and writes by callbacks, and somebody ends the call."""

    begin: Callable[[Call], None]
    response_serializer: None = None


@dataclass(frozen=True, slots=True)
class Immediate:
    """A unary method without a task: begin(request, call) returns at once, and somebody ends the call later."""

    begin: Callable[[bytes, Call], None]
    response_serializer: None = None


Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | Immediate | ImmediateStream"


class Server:
    """Serves handlers at addresses; on_end is told of each call that ended."""

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        *,
        options: Sequence[tuple[str, Any]] = (),
        on_end: Callable[[Call], None] | None = None,
    ) -> None:
        self._handlers, self._on_end = list(handlers), on_end
        self._loop = asyncio.get_running_loop()
        self._completions = Completions()
        self._server = core.Server(tuple(options), False)
        self._server.register_completion_queue(self._completions.queue)
        self._calls: set[Call] = set()
        self._down: asyncio.Future[None] = self._loop.create_future()
        self._is_taking = False

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As grpc.aio.Server's: what generated code and the grpc packages call to add a service."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """Generated code names its methods a second time, for a server that looks them up itself."""

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """The port bound; OSError when it cannot be had."""
        secret: tuple[Any, ...] = () if credentials is None else (credentials._credentials,)  # type: ignore[attr-defined]
        try:
            port: int = self._server.add_http2_port(address.encode(), *secret)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        if not port:
            raise OSError(f"{address} cannot be bound")
        return port

    def start(self) -> None:
        self._is_taking = True
        self._server.start()
        for _ in range(HEADS_AHEAD):
            self._request_call()

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, let those that run end for grace seconds, close the ports."""
        if not self._is_taking:  # never started: a port was not to be had
            await self._completions.close()
            return
        self._is_taking = False
        self._server.shutdown(self._completions.queue, lambda _: self._down.set_result(None))
        if grace:
            await asyncio.wait((self._down,), timeout=grace)
        self._server.cancel_all_calls()
        tasks = [call.task for call in self._calls if call.task is not None]
        for call in list(self._calls):
            call.abandon()
        if tasks:
            await asyncio.wait(tasks)
        self._calls.clear()
        await self._down
        self._server.destroy()
        await self._completions.close()

    # a call ----------------------------------------------------------------------------------------------

    def _request_call(self) -> None:
        queue = self._completions.queue
        self._server.request_call(queue, queue, self._take)

    def _take(self, event: Any) -> None:
        if not event.success or not self._is_taking:
            return
        self._request_call()
        call = Call(event, self._loop, self._ended)
        self._calls.add(call)
        context = contextvars.copy_context()
        try:
            handler = context.run(self._find, call)
        except Exception as error:  # noqa: BLE001 - the top of a call
            self._fail(call, error)
            return
        if handler is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {call.method}")
            return
        call.serialize = handler.response_serializer
        if isinstance(handler, Immediate):
            call.receive(lambda data: self._begin(call, handler, data, context))
        elif isinstance(handler, ImmediateStream):
            call.watch_close()
            self._guard(call, context, handler.begin, call)
        elif handler.request_streaming:
            self._run(call, handler, call, context)
        else:
            call.receive(lambda data: self._received(call, handler, data, context))

    def _find(self, call: Call) -> Handler | None:
        head: Any = CallHead(call.method, call.invocation_metadata())
        for handlers in self._handlers:
            if (handler := handlers.service(head)) is not None:
                return handler
        return None

    def _begin(
        self, call: Call, handler: Immediate, data: bytes | None, context: contextvars.Context
    ) -> None:
        if data is None:
            call.end(grpc.StatusCode.CANCELLED, "the request did not arrive whole")
            return
        self._guard(call, context, handler.begin, data, call)

    def _guard(
        self, call: Call, context: contextvars.Context, begin: Callable[..., None], *arguments: object
    ) -> None:
        try:
            context.run(begin, *arguments)
        except Exception as error:  # noqa: BLE001 - the top of a call
            self._fail(call, error)

    def _received(
        self,
        call: Call,
        handler: grpc.RpcMethodHandler[Any, Any],
        data: bytes | None,
        context: contextvars.Context,
    ) -> None:
        """The one message of a request that is no stream."""
        if data is None:
            call.end(grpc.StatusCode.CANCELLED, "the request did not arrive whole")
            return
        if handler.request_deserializer is None:
            self._run(call, handler, data, context)
            return
        try:
            request = handler.request_deserializer(data)
        except Exception:  # noqa: BLE001 - whatever a foreign decoder raises
            call.end(
                grpc.StatusCode.INVALID_ARGUMENT, f"{len(data)} bytes that are not a request of {call.method}"
            )
            return
        self._run(call, handler, request, context)

    def _run(
        self,
        call: Call,
        handler: grpc.RpcMethodHandler[Any, Any],
        request: Any,
        context: contextvars.Context,
    ) -> None:
        call.watch_close()
        call.task = self._loop.create_task(self._serve(call, handler, request), context=context)

    async def _serve(self, call: Call, handler: grpc.RpcMethodHandler[Any, Any], request: Any) -> None:
        """The task of a call."""
        try:
            if handler.request_streaming:
                request = _requests(call, handler)
            await _answer(call, handler, request)
        except CallOver:
            call.finish()
        except asyncio.CancelledError:
            call.end(grpc.StatusCode.CANCELLED, "the port closes")
            raise
        except Exception as error:  # noqa: BLE001 - the top of a call
            self._fail(call, error)

    def _fail(self, call: Call, error: Exception) -> None:
        """A bug: the client is told that there was one, the journal which."""
        log.error("call failed method=%s error=%r", call.method, error, exc_info=error)
        call.end(grpc.StatusCode.INTERNAL, "the node failed to answer: see its journal")

    def _ended(self, call: Call) -> None:
        self._calls.discard(call)
        if self._on_end is not None:
            self._on_end(call)


def _requests(call: Call, handler: grpc.RpcMethodHandler[Any, Any]) -> AsyncIterator[Any]:
    parse = handler.request_deserializer
    if parse is None:
        return call.messages()
    return (parse(data) async for data in call.messages())


async def _answer(call: Call, handler: grpc.RpcMethodHandler[Any, Any], request: Any) -> None:
    """Runs the behaviour: a coroutine that returns the (last) response or writes by itself, or an async generator."""
    behaviour: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    answering = behaviour(request, call)
    if hasattr(answering, "__aiter__"):
        try:
            async for response in answering:
                await call.write(response)
        finally:
            await answering.aclose()
        call.finish()
    else:
        response = await answering
        if response is None and handler.response_streaming:
            call.finish()
        else:
            call.finish(response if call.serialize is None else call.serialize(response))
