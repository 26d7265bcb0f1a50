"""The server against grpc's own client: every call gets one status, and nothing outlives its port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc import aio

from appliance.rpc import EOF, Call, Immediate, Server

Serve = Callable[..., Awaitable["Served"]]


class Served:
    """A server with one service, and a channel to it."""

    def __init__(self, handlers: dict[str, Any]) -> None:
        self.ended: list[tuple[str, grpc.StatusCode]] = []
        self.server = Server(
            (grpc.method_handlers_generic_handler("test", handlers),),
            on_end=lambda call: self.ended.append((call.method, call.code())),
        )
        self.port = self.server.listen("127.0.0.1:0")
        self.server.start()
        self.channel = aio.insecure_channel(f"127.0.0.1:{self.port}")

    def unary(self, method: str = "call") -> aio.UnaryUnaryMultiCallable[bytes, bytes]:
        return self.channel.unary_unary(f"/test/{method}")

    async def until_ended(self, count: int) -> None:
        """A client has its answer a moment before the server's side of the call ends."""
        async with asyncio.timeout(60):
            while len(self.ended) < count:
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        await self.channel.close()
        await self.server.stop(None)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    opened: list[Served] = []

    async def serve(**handlers: Any) -> Served:
        opened.append(Served(handlers))
        return opened[-1]

    yield serve
    for served in opened:
        await served.close()


async def echo(request: bytes, _call: Call) -> bytes:
    return request


async def test_a_coroutine_answers(serve: Serve) -> None:
    served = await serve(call=grpc.unary_unary_rpc_method_handler(echo))
    assert await served.unary()(b"21.5") == b"21.5"
    await served.until_ended(1)
    assert served.ended == [("/test/call", grpc.StatusCode.OK)]


async def test_an_immediate_method_is_answered_later(serve: Serve) -> None:
    waiting: list[Call] = []
    served = await serve(call=Immediate(lambda _request, call: waiting.append(call)))
    answer = asyncio.ensure_future(served.unary()(b"?"))
    async with asyncio.timeout(60):
        while not waiting:
            await asyncio.sleep(0.001)
    waiting[0].finish(b"!")
    waiting[0].finish(b"a second answer goes nowhere")
    assert await answer == b"!"


async def test_a_thousand_calls_at_once_each_get_their_own_answer(serve: Serve) -> None:
    served = await serve(call=Immediate(lambda request, call: call.finish(request)))
    requests = [str(number).encode() for number in range(1_000)]
    assert await asyncio.gather(*(served.unary()(request) for request in requests)) == requests
    await served.until_ended(1_000)
    assert {code for _, code in served.ended} == {grpc.StatusCode.OK}


async def test_a_stream_is_read_and_written_in_order(serve: Serve) -> None:
    async def double(_requests: object, call: Call) -> None:
        while (request := await call.read()) is not EOF:
            await call.write(request + request)

    served = await serve(call=grpc.stream_stream_rpc_method_handler(double))
    stream: Any = served.channel.stream_stream("/test/call")()
    for number in range(100):
        await stream.write(str(number).encode())
        assert await stream.read() == str(number).encode() * 2
    await stream.done_writing()
    assert await stream.read() is aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_an_asynchronous_generator_is_closed_when_its_client_leaves(serve: Serve) -> None:
    closed = asyncio.Event()

    async def count(_request: bytes, _call: Call) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    served = await serve(call=grpc.unary_stream_rpc_method_handler(count))
    stream: Any = served.channel.unary_stream("/test/call")(b"")
    assert await stream.read() == b"tick"
    stream.cancel()
    async with asyncio.timeout(60):
        await closed.wait()
    await served.until_ended(1)
    assert served.ended == [("/test/call", grpc.StatusCode.CANCELLED)]


async def test_an_abort_brings_its_status_and_details(serve: Serve) -> None:
    async def refuse(_request: bytes, call: Call) -> bytes:
        await call.abort(grpc.StatusCode.OUT_OF_RANGE, "too late", (("why-bin", b"\x00\xff"),))

    served = await serve(call=grpc.unary_unary_rpc_method_handler(refuse))
    with pytest.raises(aio.AioRpcError) as caught:
        await served.unary()(b"")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.OUT_OF_RANGE, "too late")
    assert dict(caught.value.trailing_metadata() or ())["why-bin"] == b"\x00\xff"
    await served.until_ended(1)
    assert served.ended == [("/test/call", grpc.StatusCode.OUT_OF_RANGE)]


@pytest.mark.parametrize("is_immediate", [False, True])
async def test_a_bug_costs_its_own_call_and_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, *, is_immediate: bool
) -> None:
    def begin(_request: bytes, _call: Call) -> None:
        raise ZeroDivisionError("a bug")

    async def run(request: bytes, call: Call) -> bytes:
        begin(request, call)
        return b""

    broken: Any = Immediate(begin) if is_immediate else grpc.unary_unary_rpc_method_handler(run)
    served = await serve(broken=broken, call=grpc.unary_unary_rpc_method_handler(echo))
    with pytest.raises(aio.AioRpcError) as caught:
        await served.unary("broken")(b"")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "a bug" not in str(caught.value.details())
    assert "ZeroDivisionError" in caplog.text
    assert await served.unary()(b"alive") == b"alive"


async def test_a_method_that_does_not_exist_is_named(serve: Serve) -> None:
    served = await serve(call=grpc.unary_unary_rpc_method_handler(echo))
    with pytest.raises(aio.AioRpcError) as caught:
        await served.unary("nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "/test/nothing" in str(caught.value.details())


async def test_bytes_that_are_no_request_are_refused_without_a_log_line(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(call=grpc.unary_unary_rpc_method_handler(echo, request_deserializer=int))
    with pytest.raises(aio.AioRpcError) as caught:
        await served.unary()(b"no number")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records


async def test_the_deadline_of_the_client_is_known_and_none_is_none(serve: Serve) -> None:
    seen: list[float | None] = []

    def begin(_request: bytes, call: Call) -> None:
        seen.append(call.time_remaining())
        call.finish(b"")

    served = await serve(call=Immediate(begin))
    await served.unary()(b"")
    await served.unary()(b"", timeout=100)
    assert seen[0] is None
    assert seen[1] is not None
    # gRPC rounds a timeout up when it sends it.
    assert 90 < seen[1] < 110


async def test_what_runs_when_the_port_closes_is_cancelled_after_the_grace(serve: Serve) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait(_request: bytes, _call: Call) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    forgotten: list[Call] = []
    served = await serve(
        call=grpc.unary_unary_rpc_method_handler(wait),
        never=Immediate(lambda _request, call: forgotten.append(call)),
    )
    calls = [asyncio.ensure_future(served.unary(method)(b"")) for method in ("call", "never")]
    await started.wait()
    await served.server.stop(0.05)
    assert ended.is_set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, aio.AioRpcError) for outcome in outcomes)
    for call in forgotten:
        call.finish(b"an outcome that comes after the port closed")


async def test_a_call_that_ends_within_the_grace_is_answered(serve: Serve) -> None:
    started = asyncio.Event()

    async def slow(_request: bytes, _call: Call) -> bytes:
        started.set()
        await asyncio.sleep(0.05)
        return b"in time"

    served = await serve(call=grpc.unary_unary_rpc_method_handler(slow))
    answer = asyncio.ensure_future(served.unary()(b""))
    await started.wait()
    await served.server.stop(60)
    assert await answer == b"in time"


async def test_a_port_in_use_is_an_os_error(serve: Serve) -> None:
    served = await serve(call=grpc.unary_unary_rpc_method_handler(echo))
    second = Server((), options=(("grpc.so_reuseport", 0),))
    try:
        with pytest.raises(OSError, match=str(served.port)):
            second.listen(f"127.0.0.1:{served.port}")
    finally:
        await second.stop(None)
