"""A client as an application would write one: tries the next endpoint, retries with the same sequence.

Invariant: write_until_acknowledged sends one (producer, sequence) until it is acknowledged, so that afterwards
it must be there exactly once, whatever was killed on the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import grpc

from appliance.model import NODE_HOST
from raftberry.v1 import key_value_pb2, key_value_pb2_grpc, reading_pb2, reading_pb2_grpc
from tests.process.nodes import CHANNEL_OPTIONS

ATTEMPT_TIMEOUT_S: Final = 1.0
"""A stopped node accepts connections and answers nothing: only the clock tells."""

ATTEMPT_TIMEOUT_S_MAX: Final = 16.0
"""Each attempt that ran out of time makes the next one longer: where every node is slow, none would ever be in time."""

REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
}
"""Retrying these would hide a defect."""


def plain_channel(endpoint: str) -> grpc.Channel:
    return grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)


def secured_channel(endpoint: str, *, authority_pem: bytes, token: str) -> grpc.Channel:
    """As docs/getting-started.md says it."""
    tls = grpc.ssl_channel_credentials(authority_pem)
    credentials = grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(token))
    options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", NODE_HOST)]
    return grpc.secure_channel(endpoint, credentials, options=options)


class RotatingClient:
    """Calls through one of several endpoints; goes on to the next when it fails. One thread."""

    def __init__(self, endpoints: Sequence[str], *, first: int = 0) -> None:
        self.endpoints = list(endpoints)
        self.open_channel: Callable[[str], grpc.Channel] = plain_channel
        self._current = first % len(self.endpoints)
        self._channel: grpc.Channel | None = None

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def address(self) -> str:
        """The endpoint that the next call uses."""
        return self.endpoints[self._current]

    def rotate(self) -> None:
        """Forgets the present connection; the next call uses the next endpoint."""
        self.close()
        self._current = (self._current + 1) % len(self.endpoints)

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = self.open_channel(self.endpoints[self._current])
        return self._channel

    def write_until_acknowledged(self, stub_class: Any, method: str, request: Any, *, end: float) -> Any:
        """The response, after as many attempts as it takes until `end` (time.monotonic)."""
        timeout_s = ATTEMPT_TIMEOUT_S
        while True:
            try:
                return getattr(stub_class(self.channel), method)(request, timeout=timeout_s)
            except grpc.RpcError as error:
                check_retryable(error)
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    timeout_s = min(2 * timeout_s, ATTEMPT_TIMEOUT_S_MAX)
                assert time.monotonic() < end, f"no acknowledgement of {method}: {error}"
                self.rotate()
                time.sleep(0.01)

    def write(self, request: reading_pb2.WriteRequest, *, end: float) -> reading_pb2.WriteResponse:
        answer: reading_pb2.WriteResponse = self.write_until_acknowledged(
            reading_pb2_grpc.ReadingServiceStub, "Write", request, end=end
        )
        return answer

    def put(self, request: key_value_pb2.PutRequest, *, end: float) -> key_value_pb2.PutResponse:
        answer: key_value_pb2.PutResponse = self.write_until_acknowledged(
            key_value_pb2_grpc.KeyValueServiceStub, "Put", request, end=end
        )
        return answer


def check_retryable(error: grpc.RpcError) -> None:
    """Raises the error again if it is a refusal that no retry mends."""
    if error.code() in REFUSALS:
        raise error


def readings_of(
    channel: grpc.Channel, sensor: str, metric: str, *, is_local: bool = False
) -> list[tuple[int, float]]:
    """All readings of one series as (time_unix_nano, value), in the order of the answer."""
    request = reading_pb2.QueryRequest(
        sensor=sensor,
        metric=metric,
        consistency=reading_pb2.CONSISTENCY_LOCAL if is_local else reading_pb2.CONSISTENCY_LINEARIZABLE,
    )
    return [
        reading
        for response in reading_pb2_grpc.ReadingServiceStub(channel).Query(request, timeout=60)
        for readings in response.readings
        for reading in zip(readings.time_unix_nano, readings.value or readings.int_value, strict=True)
    ]


def key_of(channel: grpc.Channel, key: str, *, is_local: bool = False) -> key_value_pb2.KeyValue:
    """One key-value; NOT_FOUND raises."""
    answer: key_value_pb2.GetResponse = key_value_pb2_grpc.KeyValueServiceStub(channel).Get(
        key_value_pb2.GetRequest(
            key=key,
            consistency=reading_pb2.CONSISTENCY_LOCAL if is_local else reading_pb2.CONSISTENCY_LINEARIZABLE,
        ),
        timeout=10,
    )
    return answer.key_value


def write_request(
    sensor: str,
    metric: str,
    times: Iterable[int],
    values: Iterable[float],
    *,
    producer_id: str = "",
    sequence: int = 0,
) -> reading_pb2.WriteRequest:
    """A WriteRequest for one series."""
    return reading_pb2.WriteRequest(
        readings=[reading_pb2.Readings(sensor=sensor, metric=metric, time_unix_nano=times, value=values)],
        producer_id=producer_id,
        sequence=sequence,
    )
