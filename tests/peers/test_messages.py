"""MessageStream: however the bytes of a connection are cut, whole messages come out; what is held is bounded."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.peers import messages
from appliance.peers.messages import HELD_BYTES_MAX, MessageStream
from appliance.peers.wire import FRAME_BYTES_MAX, BadFrame
from tests.peers.harness import framed


class Wire(asyncio.Transport):
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_paused = self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


def opened() -> tuple[MessageStream, Wire]:
    stream, wire = MessageStream(), Wire()
    stream.connection_made(wire)
    return stream, wire


@given(contents=st.lists(st.binary(max_size=50), max_size=8), cuts=st.lists(st.integers(1, 60), max_size=30))
def test_messages_are_whole_however_their_bytes_are_cut(
    contents: Sequence[bytes], cuts: Sequence[int]
) -> None:
    async def receive() -> list[bytes]:
        stream, _ = opened()
        data, came = framed(*contents), list[bytes]()
        for cut in cuts:
            stream.data_received(data[:cut])
            data = data[cut:]
        stream.data_received(data)
        stream.connection_lost(None)
        while (some := await stream.read()) is not None:
            came += some
        return came

    assert asyncio.run(receive()) == list(contents)


async def test_what_is_sent_is_what_is_received() -> None:
    stream, wire = opened()
    stream.send(b"one")
    stream.send(b"")
    assert bytes(wire.written) == framed(b"one", b"")
    stream.close()
    stream.send(b"late")
    assert bytes(wire.written) == framed(b"one", b"")


async def test_a_reader_that_waits_gets_what_comes() -> None:
    stream, _ = opened()
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    stream.data_received(framed(b"a", b"b") + b"\0")
    assert await reading == [b"a", b"b"]
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    stream.connection_lost(ConnectionResetError("reset by the peer"))
    assert await reading is None
    assert stream.end_reason == "reset by the peer"


async def test_what_nobody_reads_stays_with_the_sender() -> None:
    stream, wire = opened()
    message = framed(bytes(HELD_BYTES_MAX // 4))
    for _ in range(3):
        stream.data_received(message)
    assert not wire.is_paused
    stream.data_received(message)
    assert wire.is_paused
    read = await stream.read()
    assert read is not None
    assert len(read) == 4
    assert not wire.is_paused


async def test_messages_without_a_byte_are_not_free() -> None:
    stream, wire = opened()
    for _ in range(100):
        stream.data_received(bytes(1_000))
    assert wire.is_paused


async def test_a_length_beyond_the_bound_is_no_message_and_nothing_after_it_is_taken() -> None:
    stream, _ = opened()
    stream.data_received(framed(b"good") + struct.pack(">I", FRAME_BYTES_MAX + 1))
    stream.data_received(bytes(1_000_000))
    assert await stream.read() == [b"good"]
    for _ in range(2):
        with pytest.raises(BadFrame, match=f"a message of {FRAME_BYTES_MAX + 1} bytes"):
            await stream.read()
    assert len(stream._buffer) < 100


async def test_a_connection_whose_other_end_takes_nothing_is_closed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "CLOSING_S", 0.01)
    stream, wire = opened()
    aborted = asyncio.Event()
    wire.abort = aborted.set  # type: ignore[method-assign]
    stream.close()
    await asyncio.wait_for(aborted.wait(), 60)


@given(chunks=st.lists(st.binary(max_size=300), max_size=20))
def test_whatever_bytes_come_are_messages_or_a_bad_frame(chunks: Sequence[bytes]) -> None:
    async def receive() -> int:
        stream, _ = opened()
        for chunk in chunks:
            stream.data_received(chunk)
        stream.connection_lost(None)
        size_bytes = 0
        while (some := await stream.read()) is not None:
            size_bytes += sum(4 + len(message) for message in some)
        return size_bytes

    try:
        assert asyncio.run(receive()) <= sum(map(len, chunks))
    except BadFrame as error:
        assert "a message of" in str(error)
