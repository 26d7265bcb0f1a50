"""What a watcher's client is sent: in order, one message at a time, and no more waits for it than the bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from appliance.api import watching
from appliance.api.calls import Context
from appliance.api.port import AppliedEffects
from appliance.api.watching import WAITING_BYTES_MAX, WAITING_MAX
from appliance.errors import RateLimited, Unauthenticated
from appliance.node.access import Everyone
from appliance.rpc import CallOver
from appliance.state import EntryEffects, KeyEvent, KeyEventKind
from raftberry.v1 import key_value_pb2, reading_pb2
from tests.api.fake_node import Effects
from tests.api.harness import Api

START = 7


class Client:
    """Of a call whose messages are taken when the test says so."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.reset_after_s: float | None = None
        self._then: Callable[[bool], None] | None = None

    def send(self, message: bytes, then: Callable[[bool], None]) -> None:
        assert self._then is None, "the core takes one message at a time"
        self.messages.append(message)
        self._then = then

    def reset_after(self, seconds: float) -> None:
        self.reset_after_s = seconds

    def take(self, *, is_there: bool = True) -> None:
        assert self._then is not None
        then, self._then = self._then, None
        then(is_there)

    def take_all(self) -> None:
        while self._then is not None:
            self.take()


class Limited(Everyone):
    """A caller who may ask so many times."""

    def __init__(self, times: int) -> None:
        self._times = times

    def check(self) -> None:
        if not self._times:
            raise RateLimited("too many", retry_ms=1)
        self._times -= 1


class Watch:
    """Messages of an entry: as many as `wants` says, of one byte unless `size_bytes` is set."""

    def __init__(self) -> None:
        self.client = Client()
        self.wants: Callable[[int], int] = lambda _: 1
        self.size_bytes = 1
        self.outbox = watching._Outbox(
            cast(Context, self.client), self._responses, self._progress, start_index=START
        )

    def take(self, *indexes: int) -> list[bool]:
        return [self.outbox.take(cast(AppliedEffects, Effects(index, EntryEffects()))) for index in indexes]

    def _responses(self, applied: AppliedEffects) -> list[bytes]:
        return [bytes((applied.index,)) * self.size_bytes] * self.wants(applied.index)

    def _progress(self, index: int) -> Any:
        return reading_pb2.WatchResponse(index=index, progress=True)


@pytest.fixture
async def watch() -> Any:
    made = Watch()
    yield made
    made.outbox.close()


def indexes(messages: list[bytes]) -> Iterator[int]:
    return (message[0] for message in messages)


async def test_messages_go_one_at_a_time_in_order(watch: Watch) -> None:
    assert watch.take(8, 9, 10) == [True] * 3
    assert list(indexes(watch.client.messages)) == [8]
    watch.client.take()
    assert list(indexes(watch.client.messages)) == [8, 9]
    watch.client.take_all()
    assert list(indexes(watch.client.messages)) == [8, 9, 10]


async def test_so_many_messages_wait_and_then_the_watcher_is_full_until_all_are_gone(watch: Watch) -> None:
    # The first is under way, it does not wait.
    assert watch.take(*range(8, 8 + WAITING_MAX)) == [True] * WAITING_MAX
    assert watch.take(8 + WAITING_MAX) == [False]
    waiting = asyncio.create_task(watch.outbox.ready())
    for _ in range(WAITING_MAX):
        watch.client.take()
        await asyncio.sleep(0)
    assert not waiting.done()
    watch.client.take()
    await waiting
    assert len(watch.client.messages) == WAITING_MAX + 1
    assert watch.take(8 + WAITING_MAX + 1) == [True]
    watch.client.take()
    await watch.outbox.ready()


async def test_so_many_bytes_wait(watch: Watch) -> None:
    watch.size_bytes = WAITING_BYTES_MAX // 2
    assert watch.take(8, 9, 10) == [True, True, False]
    watch.client.take_all()
    await watch.outbox.ready()
    assert watch.take(11, 12, 13) == [True, True, False]


async def test_an_entry_of_many_messages_is_taken_whole(watch: Watch) -> None:
    watch.wants = lambda _: 5 * WAITING_MAX
    assert watch.take(8) == [False]
    watch.client.take_all()
    assert len(watch.client.messages) == 5 * WAITING_MAX


async def test_a_client_that_left_ends_the_watch_and_is_sent_nothing_more(watch: Watch) -> None:
    watch.take(8, 9)
    waiting = asyncio.create_task(watch.outbox.ready())
    await asyncio.sleep(0)
    watch.client.take(is_there=False)
    with pytest.raises(CallOver):
        await waiting
    with pytest.raises(CallOver):
        await watch.outbox.ready()
    assert list(indexes(watch.client.messages)) == [8]


async def test_a_client_that_left_takes_nothing(watch: Watch) -> None:
    watch.take(8)
    watch.client.take(is_there=False)
    with pytest.raises(CallOver):
        watch.take(9)


async def test_progress_is_told_when_nothing_else_was(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[None] = []
    monkeypatch.setattr(watch.outbox, "_tick_later", lambda: ticks.append(None))
    tick = watch.outbox._tick
    tick()
    assert watch.client.messages == []
    watch.wants = lambda _: 0
    watch.take(8, 9)
    tick()
    progress = reading_pb2.WatchResponse.FromString(watch.client.messages[0])
    assert (progress.index, progress.progress) == (9, True)
    watch.client.take()
    tick()
    assert len(watch.client.messages) == 1
    watch.wants = lambda _: 1
    watch.take(10)
    watch.client.take()
    # What was told of an entry says how far it is.
    tick()
    assert len(watch.client.messages) == 2
    watch.take(11)
    watch.wants = lambda _: 0
    watch.take(12)
    # A message is under way: the client does not take it, and is not told more.
    tick()
    watch.client.take()
    assert len(watch.client.messages) == 3
    tick()
    assert reading_pb2.WatchResponse.FromString(watch.client.messages[3]).index == 12
    assert len(ticks) == 6


async def test_an_entry_that_was_refused_is_not_told_as_progress(watch: Watch) -> None:
    """The client would resume behind it, and never see it."""
    watch.wants = lambda index: int(index == 9)
    watch.take(8)
    watch.outbox._caller = Limited(0)
    with pytest.raises(RateLimited):
        watch.take(9)
    watch.outbox._tick()
    assert reading_pb2.WatchResponse.FromString(watch.client.messages[0]).index == 8


async def test_before_the_status_a_client_is_sent_what_was_taken(watch: Watch) -> None:
    watch.take(8, 9, 10)
    finishing = asyncio.create_task(watch.outbox.finish(RateLimited("too many", retry_ms=1)))
    await asyncio.sleep(0)
    watch.client.take_all()
    await finishing
    assert list(indexes(watch.client.messages)) == [8, 9, 10]
    assert watch.client.reset_after_s is None


async def test_a_client_that_takes_nothing_is_reset_behind_its_status(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "STREAM_STALL_S_MAX", 0.01)
    watch.take(8, 9)
    await watch.outbox.finish(RateLimited("too many", retry_ms=1))
    assert watch.client.reset_after_s == 0.01
    assert list(indexes(watch.client.messages)) == [8]


async def test_a_client_that_is_slow_before_the_status_has_its_time(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes one message whenever its time is nearly over: all of them in many times that."""
    bounds: list[float] = []

    @asynccontextmanager
    async def timeout(seconds: float) -> AsyncIterator[None]:
        bounds.append(seconds)
        watch.client.take()
        if len(bounds) < 4:
            raise TimeoutError
        yield

    monkeypatch.setattr(asyncio, "timeout", timeout)
    watch.take(8, 9, 10, 11)
    await watch.outbox.finish(RateLimited("too many", retry_ms=1))
    assert list(indexes(watch.client.messages)) == [8, 9, 10, 11]
    assert watch.client.reset_after_s is None


async def test_what_waits_is_not_sent_to_a_token_that_was_revoked(watch: Watch) -> None:
    watch.take(8, 9, 10)
    finishing = asyncio.create_task(watch.outbox.finish(Unauthenticated("the token was revoked")))
    await asyncio.sleep(0)
    watch.client.take()
    await finishing
    assert list(indexes(watch.client.messages)) == [8]


async def test_a_watch_whose_token_is_used_up_was_sent_all_that_it_paid_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "present_caller", lambda: Limited(3))
    events = (KeyEvent(KeyEventKind.PUT, "k", 4, b"v", 4, 1),)
    api.node.entries = [Effects(index, EntryEffects(key_events=events)) for index in range(8, 14)]
    request = key_value_pb2.KeyValueServiceWatchRequest(is_prefix=True, after_index=7)
    call = api.stream(
        "raftberry.v1.KeyValueService/Watch", request, key_value_pb2.KeyValueServiceWatchResponse
    )
    assert [(await call.read()).index for _ in range(3)] == [8, 9, 10]
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_watch_that_ends_by_a_bug_was_sent_what_it_took(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[Exception] = []
    finish = watching._Outbox.finish

    async def counted(outbox: watching._Outbox, error: Exception) -> None:
        finished.append(error)
        await finish(outbox, error)

    def fail(applied: Effects, _is_wanted: object) -> list[key_value_pb2.KeyValueServiceWatchResponse]:
        if applied.index > 9:
            raise AssertionError("a bug")
        return [key_value_pb2.KeyValueServiceWatchResponse(index=applied.index)]

    monkeypatch.setattr(watching._Outbox, "finish", counted)
    monkeypatch.setattr("appliance.api.key_value.key_messages", fail)
    api.node.entries = [Effects(index, EntryEffects()) for index in range(8, 12)]
    request = key_value_pb2.KeyValueServiceWatchRequest(is_prefix=True, after_index=7)
    call = api.stream(
        "raftberry.v1.KeyValueService/Watch", request, key_value_pb2.KeyValueServiceWatchResponse
    )
    assert [(await call.read()).index for _ in range(2)] == [8, 9]
    assert await call.code() is grpc.StatusCode.INTERNAL
    assert [type(error) for error in finished] == [AssertionError]


async def test_a_watch_that_ends_leaves_no_timer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Remembered(watching._Outbox):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            made.append(self)

    monkeypatch.setattr(watching, "_Outbox", Remembered)
    request = reading_pb2.WatchRequest()
    call = api.stream("raftberry.v1.ReadingService/Watch", request, reading_pb2.WatchResponse)
    await call.read()
    call.cancel()
    while api.node.watches_open:
        await asyncio.sleep(0)
    assert [outbox._timer.cancelled() for outbox in made] == [True]
