"""How many calls ended, by method and status code: for the metrics.

Invariant: costs below a microsecond a call; the keys are the methods times gRPC's codes, so they are bounded.
A stream is one call, counted when it ends. Loop thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

import grpc

from appliance.api.calls import Context, Handler, Handlers

Tally = Counter[tuple[str, str]]
"""(method, code) to count."""

_NAMES: Final[dict[object, str]] = {code.value[0]: code.name for code in grpc.StatusCode}
"""A context's code is a grpc.StatusCode, or a bare number before anything was set."""


Behaviour = Callable[[Any, Context], Coroutine[Any, Any, Any]]


def tallied(service: str, handlers: Handlers, tally: Tally) -> Handlers:
    """The same handlers, counted as `Service/Method` without the package."""
    short = service.rpartition(".")[2]
    return {method: _counted(handler, f"{short}/{method}", tally) for method, handler in handlers.items()}


def _counted(handler: Handler, method: str, tally: Tally) -> Handler:
    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(
            _counting(handler.stream_stream, method, tally), None, handler.response_serializer
        )
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(
            _counting(handler.unary_stream, method, tally), None, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        _counting(handler.unary_unary, method, tally), None, handler.response_serializer
    )


def _counting(behaviour: Any, method: str, tally: Tally) -> Any:
    ok = (method, "OK")

    async def call(request: Any, context: Context) -> Any:
        try:
            response = await behaviour(request, context)
        except BaseException as error:
            tally[method, _code_of(context, error)] += 1
            raise
        tally[ok] += 1
        return response

    return call


def _code_of(context: Context, error: BaseException) -> str:
    """What abort() set; a caller that left before the end left no code."""
    code = context.code()
    name = code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")
    return "CANCELLED" if name == "OK" else name
