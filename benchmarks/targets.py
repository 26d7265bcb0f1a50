"""What the load client does to each system: one reading, many readings, reading back.

Invariant: both systems are called by the same client code with the same shape of load; only encoding differs.
A Target is stateless but for its channel; one asyncio loop.
"""

from __future__ import annotations

import asyncio
import csv
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Protocol

import etcd_kv_pb2  # made by script/benchmark
import grpc
import numpy as np
import numpy.typing as npt

from raftberry.v1 import reading_pb2, reading_pb2_grpc

FIRST_TIME: Final = 1_750_000_000_000_000_000
STREAM_READINGS: Final = 1_000
TXN_OPERATIONS: Final = 128
"""etcd's default limit for one transaction."""

OPTIONS: Final = (
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.max_send_message_length", 256 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)

DATA: Final = Path(__file__).resolve().parent.parent / "tests" / "data" / "real-sensors"


def real_values() -> npt.NDArray[np.float64]:
    """All values of the real sensor files, one file behind the other."""
    values: list[float] = []
    for path in sorted(DATA.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as lines:
            values += [float(row["value"]) for row in csv.DictReader(lines)]
    return np.array(values)


class Target(Protocol):
    """A system under load."""

    async def write_one(self, client: int, number: int, *, timeout_s: float) -> None:
        """Writes one reading of a client's series; returns when it is acknowledged."""

    async def write_many(self, is_enough: Callable[[int], bool], *, series: int, in_flight: int) -> int:
        """Writes messages until is_enough(messages sent); how many messages were acknowledged."""

    async def count_one(self, client: int) -> int:
        """How many distinct readings of write_one are there, each checked for its value."""

    async def count_many(self, *, messages: int, series: int) -> int:
        """How many readings of write_many are there, each checked for its value."""

    async def close(self) -> None: ...


class RaftberryTarget:
    """Write and StreamWrite."""

    readings_per_message = STREAM_READINGS

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        self._stub = reading_pb2_grpc.ReadingServiceStub(self._channel)
        self._values = real_values()

    async def close(self) -> None:
        await self._channel.close()

    async def write_one(self, client: int, number: int, *, timeout_s: float) -> None:
        readings = reading_pb2.Readings(
            sensor=f"client-{client}", metric="m", time_unix_nano=[FIRST_TIME + number], value=[number]
        )
        await self._stub.Write(reading_pb2.WriteRequest(readings=[readings]), timeout=timeout_s)

    async def write_many(self, is_enough: Callable[[int], bool], *, series: int, in_flight: int) -> int:
        slots = asyncio.Semaphore(in_flight)
        acknowledged = 0

        async def requests() -> AsyncIterator[bytes]:
            number = 0
            while not is_enough(number):
                await slots.acquire()
                yield self._message(number, series)
                number += 1

        method: grpc.aio.StreamStreamMultiCallable[bytes, reading_pb2.StreamWriteResponse]
        method = self._channel.stream_stream(
            "/raftberry.v1.ReadingService/StreamWrite",
            response_deserializer=reading_pb2.StreamWriteResponse.FromString,
        )
        async for response in method(requests()):
            assert response.status.code == 0, response.status
            acknowledged += 1
            slots.release()
        return acknowledged

    def _columns(self, number: int, series: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Times one second apart, values as the real sensors gave them, of message `number`."""
        start = number // series * STREAM_READINGS
        times = FIRST_TIME + (start + np.arange(STREAM_READINGS, dtype=np.int64)) * 1_000_000_000
        offset = number * STREAM_READINGS % (len(self._values) - STREAM_READINGS)
        return times, self._values[offset : offset + STREAM_READINGS]

    def _message(self, number: int, series: int) -> bytes:
        """Encoded StreamWriteRequest; the packed columns are copied, not built value by value."""
        times, values = self._columns(number, series)
        name = f"bulk-{number % series}".encode()
        body = b"".join(
            [
                *(b"\x0a", _varint(len(name)), name, b"\x12\x01m"),
                *(b"\x22", _varint(times.nbytes), times.astype("<i8").tobytes()),
                *(b"\x2a", _varint(values.nbytes), values.astype("<f8").tobytes()),
            ]
        )
        return b"".join([b"\x0a", _varint(len(body)), body])

    async def count_one(self, client: int) -> int:
        found = await self._read(f"client-{client}", None, None)
        assert all(time == FIRST_TIME + int(value) for time, value in zip(*found, strict=True))
        return len(found[0])

    async def count_many(self, *, messages: int, series: int) -> int:
        """Every reading is compared; a window of the log of messages at a time."""
        count = 0
        for one in range(min(series, messages)):
            numbers = range(one, messages, series)
            for window in range(0, len(numbers), 500):
                part = [self._columns(number, series) for number in numbers[window : window + 500]]
                times = np.concatenate([times for times, _ in part])
                values = np.concatenate([values for _, values in part])
                found = await self._read(f"bulk-{one}", int(times[0]), int(times[-1]) + 1)
                assert np.array_equal(found[0], times), f"times of bulk-{one} differ"
                assert np.array_equal(found[1], values), f"values of bulk-{one} differ"
                count += len(times)
        return count

    async def _read(
        self, sensor: str, start: int | None, end: int | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        request = reading_pb2.QueryRequest(
            sensor=sensor, metric="m", start_time_unix_nano=start, end_time_unix_nano=end
        )
        times, values = [np.array([], dtype=np.int64)], [np.array([])]
        async for response in self._stub.Query(request):
            for readings in response.readings:
                times.append(np.array(readings.time_unix_nano, dtype=np.int64))
                values.append(np.array(readings.value))
        return np.concatenate(times), np.concatenate(values)


class EtcdTarget:
    """Put for one reading, Txn of 128 Puts for many. Key: series and time, value: 8 bytes of float."""

    readings_per_message = TXN_OPERATIONS

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        self._put: grpc.aio.UnaryUnaryMultiCallable[bytes, etcd_kv_pb2.PutResponse] = (
            self._channel.unary_unary(
                "/etcdserverpb.KV/Put", response_deserializer=etcd_kv_pb2.PutResponse.FromString
            )
        )
        self._txn: grpc.aio.UnaryUnaryMultiCallable[bytes, etcd_kv_pb2.TxnResponse] = (
            self._channel.unary_unary(
                "/etcdserverpb.KV/Txn", response_deserializer=etcd_kv_pb2.TxnResponse.FromString
            )
        )
        self._range: grpc.aio.UnaryUnaryMultiCallable[bytes, etcd_kv_pb2.RangeResponse] = (
            self._channel.unary_unary(
                "/etcdserverpb.KV/Range", response_deserializer=etcd_kv_pb2.RangeResponse.FromString
            )
        )
        self._values = real_values()

    async def close(self) -> None:
        await self._channel.close()

    async def write_one(self, client: int, number: int, *, timeout_s: float) -> None:
        request = etcd_kv_pb2.PutRequest(
            key=f"client-{client}/".encode() + struct.pack(">q", FIRST_TIME + number),
            value=struct.pack("<d", number),
        )
        await self._put(request.SerializeToString(), timeout=timeout_s)

    async def write_many(self, is_enough: Callable[[int], bool], *, series: int, in_flight: int) -> int:
        open_calls: deque[grpc.aio.UnaryUnaryCall[bytes, etcd_kv_pb2.TxnResponse]] = deque()
        acknowledged, number = 0, 0
        while True:
            while len(open_calls) < in_flight and not is_enough(number):
                open_calls.append(self._txn(self._message(number, series)))
                number += 1
            if not open_calls:
                return acknowledged
            answer = await open_calls.popleft()
            assert answer.succeeded
            acknowledged += 1

    def _readings(self, number: int, series: int) -> list[tuple[bytes, bytes]]:
        start = number // series * TXN_OPERATIONS
        offset = number * TXN_OPERATIONS % (len(self._values) - TXN_OPERATIONS)
        prefix = f"bulk-{number % series}/".encode()
        return [
            (
                prefix + struct.pack(">q", FIRST_TIME + (start + i) * 1_000_000_000),
                struct.pack("<d", self._values[offset + i]),
            )
            for i in range(TXN_OPERATIONS)
        ]

    def _message(self, number: int, series: int) -> bytes:
        request = etcd_kv_pb2.TxnRequest(
            success=[
                etcd_kv_pb2.RequestOp(request_put=etcd_kv_pb2.PutRequest(key=key, value=value))
                for key, value in self._readings(number, series)
            ]
        )
        return request.SerializeToString()

    async def count_one(self, client: int) -> int:
        found = await self._read(f"client-{client}/".encode())
        for key, value in found.items():
            assert struct.unpack(">q", key[-8:])[0] == FIRST_TIME + int(struct.unpack("<d", value)[0])
        return len(found)

    async def count_many(self, *, messages: int, series: int) -> int:
        count = 0
        for one in range(min(series, messages)):
            expected = dict(
                reading
                for number in range(one, messages, series)
                for reading in self._readings(number, series)
            )
            assert await self._read(f"bulk-{one}/".encode()) == expected, f"bulk-{one} differs"
            count += len(expected)
        return count

    async def _read(self, prefix: bytes) -> dict[bytes, bytes]:
        """All keys with a prefix that ends in `/`, in pages."""
        found: dict[bytes, bytes] = {}
        key, end = prefix, prefix[:-1] + b"0"
        while True:
            request = etcd_kv_pb2.RangeRequest(key=key, range_end=end, limit=10_000)
            page = await self._range(request.SerializeToString(), timeout=60)
            found.update((pair.key, pair.value) for pair in page.kvs)
            if not page.more:
                return found
            key = page.kvs[-1].key + b"\0"


def _varint(number: int) -> bytes:
    """Protobuf's base-128 encoding."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


TARGETS: Final[dict[str, Callable[[str], RaftberryTarget | EtcdTarget]]] = {
    "raftberry": RaftberryTarget,
    "etcd": EtcdTarget,
}
