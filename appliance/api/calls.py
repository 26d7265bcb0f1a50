"""One way into every call: deadlines in, our errors out as rich statuses.

Invariant: a client never sees a traceback, and no failed call is without its ErrorInfo. Loop thread.
Handlers are wrapped once when the server is built. `unary` runs a coroutine; `immediate` needs none: it is for the
call that comes a thousand times a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from appliance.api import failures
from appliance.errors import ClientStalled, InvalidArgument
from appliance.limits import STREAM_STALL_S_MAX
from appliance.rpc import Call, CallOver, Immediate, ImmediateStream

log = logging.getLogger(__name__)

UNARY_DEADLINE_DEFAULT_NS: Final = 10_000_000_000
"""For unary calls, and for the read barrier of streams, that come without a deadline."""

ANSWER_NS: Final = 500_000_000
"""For the way back of an answer: a busy Pi, a radio."""

Context: TypeAlias = Call
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | Immediate | ImmediateStream"
Handlers = dict[str, Handler]


def deadline_ns(context: Context) -> int:
    """When this call must be over, on time.monotonic_ns()."""
    remaining_seconds = context.time_remaining()
    if remaining_seconds is None:
        return time.monotonic_ns() + UNARY_DEADLINE_DEFAULT_NS
    return time.monotonic_ns() + int(remaining_seconds * 1e9)


def answer_by_ns(context: Context) -> int:
    """As deadline_ns, less the time for the answer: a refusal that comes too late is the client's own timeout."""
    end_ns = deadline_ns(context)
    return end_ns - min(ANSWER_NS, max(0, end_ns - time.monotonic_ns()) // 4)


async def abort(context: Context, error: BaseException) -> NoReturn:
    """Ends the call with the rich status of error; whatever is a bug is logged here and nowhere else."""
    await context.abort(*_status(error))


def _status(error: BaseException) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """(code, message, trailing metadata); a bug is logged on the way."""
    if failures.is_internal(error):
        log.error("call failed error=%r", error, exc_info=error)
    status = failures.status_of(error)
    return failures.code_of(error), status.message, ((failures.DETAILS_KEY, status.SerializeToString()),)


def unary(behaviour: Callable[[Any, Context], Awaitable[Message]], request: type[Message] | None) -> Handler:
    """A unary handler; request None: behaviour gets the bytes as they came."""
    parse = _parser(request) if request else None

    async def call(raw: bytes, context: Context) -> Message:
        try:
            return await behaviour(parse(raw) if parse else raw, context)
        except CallOver:
            raise
        except Exception as error:  # noqa: BLE001 the top of a call (style rule 11)
            await abort(context, error)

    return grpc.unary_unary_rpc_method_handler(call, None, serialize)


def immediate(
    begin: Callable[[bytes, Context, Callable[[Any], None]], None], respond: Callable[[Any], Message]
) -> Handler:
    """A unary handler without a task. begin's last argument takes an error, or what respond makes the response of."""

    def call(raw: bytes, context: Context) -> None:
        def tell(outcome: Any) -> None:
            if isinstance(outcome, Exception):
                context.end(*_status(outcome))
            else:
                context.finish(respond(outcome).SerializeToString())

        try:
            begin(raw, context, tell)
        except Exception as error:  # noqa: BLE001 the top of a call (style rule 11)
            context.end(*_status(error))

    return Immediate(call)


def server_stream(behaviour: Callable[[Any, Context], AsyncIterator[Any]], request: type[Message]) -> Handler:
    """A handler that answers with a stream that ends by itself: behaviour is an async generator, closed with the call.

    A message waits for the next one, so that the last goes with the status. A client that takes nothing is ABORTED.
    """

    async def write_all(message: Any, context: Context) -> Any:
        responses: Any = behaviour(message, context)
        last = None
        try:
            async for response in responses:
                if last is not None:
                    await _write_in_time(last, context)
                last = response
        finally:
            await responses.aclose()
        return last

    return message_stream(write_all, request)


async def _write_in_time(message: Any, context: Context) -> None:
    try:
        async with asyncio.timeout(STREAM_STALL_S_MAX):
            await context.write(message)
    except TimeoutError as error:
        context.reset_after(STREAM_STALL_S_MAX)
        raise ClientStalled(
            f"the client has taken nothing for {STREAM_STALL_S_MAX:g} s: the read was ended, it would hold memory and "
            "space of the store; ask again, a query from the last time that was received"
        ) from error


def live_stream(behaviour: Callable[[Any, Context], AsyncIterator[Any]], request: type[Message]) -> Handler:
    """As server_stream, of what happens while the client listens: nothing waits."""

    async def write_all(message: Any, context: Context) -> None:
        responses: Any = behaviour(message, context)
        try:
            async for response in responses:
                await context.write(response)
        finally:
            await responses.aclose()

    return message_stream(write_all, request)


def message_stream(behaviour: Callable[[Any, Context], Awaitable[Any]], request: type[Message]) -> Handler:
    """A handler that answers with a stream: behaviour writes to the context by itself.

    What it returns is the last message, which goes with the status: one way to the core, not two.
    """
    parse = _parser(request)

    async def call(raw: bytes, context: Context) -> Any:
        try:
            return await behaviour(parse(raw), context)
        except CallOver:
            raise
        except Exception as error:  # noqa: BLE001 the top of a call (style rule 11)
            await abort(context, error)

    return grpc.unary_stream_rpc_method_handler(call, None, serialize)


def immediate_stream(begin: Callable[[Context, Callable[[Exception], None]], None]) -> Handler:
    """A stream both ways without a task; begin gets the call, and what ends it with an error."""

    def call(context: Context) -> None:
        begin(context, lambda error: context.end(*_status(error)))

    return ImmediateStream(call)


def serialize(response: Message | bytes) -> bytes:
    """Bytes are a message already: the same for many callers."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def _parser(request: type[Message]) -> Callable[[bytes], Message]:
    """Parsing happens inside the call, so that what does not parse is INVALID_ARGUMENT and not INTERNAL."""
    from_string = request.FromString
    full_name = request.DESCRIPTOR.full_name

    def parse(raw: bytes) -> Message:
        try:
            return from_string(raw)
        except DecodeError as error:
            raise InvalidArgument("request", f"{len(raw)} bytes that are not a {full_name}") from error

    return parse
