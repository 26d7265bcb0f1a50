"""One call on the server's side: what a handler reads, writes and ends it with.

Invariant: a status is sent once, and is the last thing sent; after that, or after the client left, nothing reaches
the core any more. Its methods are those of grpc.aio's ServicerContext that handlers use, so that services of the
grpc packages (health, reflection) run on it unchanged. Loop thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

import grpc

from appliance.rpc import core

Metadata = Sequence[tuple[str, str | bytes]]

T = TypeVar("T")

EOF: Final = None
"""What `read` gives when the client has sent its last message."""

FOREVER_S: Final = 1e11
"""A deadline beyond this moment (the year 5138) is none."""


class CallOver(Exception):
    """The call has its status, or its client has left: nobody can be told anything more."""


class Call:
    __slots__ = (
        "_call",
        "_code",
        "_deadline_s",
        "_end",
        "_is_cancelled",
        "_is_close_asked",
        "_is_opened",
        "_is_over",
        "_loop",
        "_metadata",
        "_on_end",
        "_reset",
        "method",
        "on_abandon",
        "serialize",
        "task",
    )

    def __init__(self, event: Any, loop: asyncio.AbstractEventLoop, on_end: Callable[[Call], None]) -> None:
        """event: the core's answer to request_call. on_end is called once, when the core is done with the call."""
        self._call, self._metadata = event.call, event.invocation_metadata
        self._deadline_s: float = event.call_details.deadline
        self.method: str = event.call_details.method.decode("utf-8", "replace")
        self._loop, self._on_end = loop, on_end
        self._is_opened = self._is_over = self._is_cancelled = self._is_close_asked = False
        self._code = grpc.StatusCode.OK
        self._end: tuple[grpc.StatusCode, str, Metadata] | None = None
        self._reset: asyncio.TimerHandle | None = None
        self.serialize: Callable[[Any], bytes] | None = None
        self.task: asyncio.Task[None] | None = None
        """Runs the handler; cancelled when the client leaves."""

        self.on_abandon: Callable[[], None] | None = None
        """Called when the client leaves before the end, or the port closes: for a handler that is no task."""

    # what the client sent --------------------------------------------------------------------------------

    def invocation_metadata(self) -> Metadata:
        return self._metadata  # type: ignore[no-any-return]

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None: it set none."""
        return None if self._deadline_s > FOREVER_S else max(self._deadline_s - time.time(), 0.0)

    def peer(self) -> str:
        name: str = self._call.peer().decode("utf-8", "replace")
        return name

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {key.decode(): values for key, values in core.auth_context(self._call).items()}

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """then gets the next message, or None: there is none, or the client has left."""
        if self._is_over or self._is_cancelled:
            self._loop.call_soon(then, EOF)
            return
        self._call.start_server_batch(
            (core.ReceiveMessage(core.NO_FLAGS),), lambda event: then(event.batch_operations[0].message())
        )

    async def read(self) -> bytes | None:
        """The next message; EOF when there is none."""
        message: asyncio.Future[bytes | None] = self._loop.create_future()
        self.receive(partial(_settle, message))
        return await message

    async def messages(self) -> AsyncIterator[bytes]:
        while (message := await self.read()) is not EOF:
            yield message

    # what it is answered ---------------------------------------------------------------------------------

    def send(self, message: bytes, then: Callable[[bool], None]) -> None:
        """then(True) once the core has taken the message: the flow control of HTTP/2 lets it go."""
        if self._is_over or self._is_cancelled:
            self._loop.call_soon(then, False)
            return
        self._call.start_server_batch(
            (*self._opening(), core.SendMessage(message, core.NO_FLAGS)), lambda event: then(event.success)
        )

    async def write(self, message: Any) -> None:
        """CallOver when the client has left."""
        data = message if self.serialize is None else self.serialize(message)
        sent: asyncio.Future[bool] = self._loop.create_future()
        self.send(data, partial(_settle, sent))
        if not await sent:
            raise CallOver

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Tells the client that the call was taken, before there is a message for it."""
        assert not metadata
        if not (self._is_opened or self._is_over or self._is_cancelled):
            self._call.start_server_batch(self._opening(), _nothing)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call with this status: raises CallOver, and the server sends it."""
        self._end = (code, details, trailing_metadata)
        raise CallOver

    def reset_after(self, seconds: float) -> None:
        """Unless the client has its status by then: it may stand behind a message that the client does not take."""
        self._reset = self._loop.call_later(seconds, self._call.cancel)

    def code(self) -> grpc.StatusCode:
        """How it ended; CANCELLED if the client left before."""
        return grpc.StatusCode.CANCELLED if self._is_cancelled else self._code

    # for the server --------------------------------------------------------------------------------------

    def watch_close(self) -> None:
        """Learn at once when the client leaves; otherwise only at the end."""
        self._is_close_asked = True
        self._call.start_server_batch((core.ReceiveClose(core.NO_FLAGS),), self._closed)

    def finish(self, message: bytes | None = None) -> None:
        """The status that `abort` left, or OK behind the last message."""
        code, details, trailing = self._end or (grpc.StatusCode.OK, "", ())
        self.end(code, details, trailing, message=message if self._end is None else None)

    def end(
        self, code: grpc.StatusCode, details: str, trailing: Metadata = (), *, message: bytes | None = None
    ) -> None:
        """Send the status, behind a last message. Idempotent: the first one counts."""
        if self._is_over:
            return
        self._is_over = True
        if self._is_cancelled:
            self._on_end(self)
            return
        self._code = code
        closing = () if self._is_close_asked else (core.ReceiveClose(core.NO_FLAGS),)
        last = () if message is None else (core.SendMessage(message, core.NO_FLAGS),)
        status = core.SendStatus(trailing or None, core.CODES[code], details.encode(), core.NO_FLAGS)
        self._call.start_server_batch((*closing, *self._opening(), *last, status), self._ended)

    def abandon(self) -> None:
        """The port closes: nothing reaches the core any more."""
        self._is_cancelled = True
        self._forget_reset()
        if self.task is not None:
            self.task.cancel()
        if self.on_abandon is not None:
            self.on_abandon()

    def _opening(self) -> tuple[Any, ...]:
        if self._is_opened:
            return ()
        self._is_opened = True
        return (core.SendInitialMetadata(None, core.NO_FLAGS),)

    def _closed(self, event: Any) -> None:
        if event.batch_operations[0].cancelled():
            self.abandon()

    def _forget_reset(self) -> None:
        """The core waits for its calls to be gone, and the timer holds this one."""
        if self._reset is not None:
            self._reset.cancel()

    def _ended(self, event: Any) -> None:
        self._forget_reset()
        if not self._is_close_asked:
            self._is_cancelled |= bool(event.batch_operations[0].cancelled())
        self._on_end(self)


def _settle(future: asyncio.Future[T], result: T) -> None:
    """Whoever waited may have been cancelled meanwhile."""
    if not future.done():
        future.set_result(result)


def _nothing(_event: object) -> None:
    pass
