"""Calls through the first of several endpoints that answers.

Invariant: a request that is not repeatable is sent to a second endpoint only after the first refused it
without effect (NotApplied), or was never connected. Used from one thread; gRPC's own threads stay behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import grpc

from appliance import errors, limits
from appliance.client import failures
from appliance.client.credentials import NO_CREDENTIALS, ClientCredentials
from appliance.client.methods import Method, Request, Response
from appliance.client.reasons import reason_of

Result = TypeVar("Result")

CONNECT_TIMEOUT_S: Final = 2.0
"""A node that is up accepts within milliseconds; a machine that is off never answers."""

ROUND_PAUSE_S: Final = 0.1
"""Between two rounds over all endpoints, while the cluster elects a leader."""

ROUND_S_MIN: Final = 2.0
"""No round begins with less time left: a write that a slow node answers too late has an unknown outcome."""

_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"

_OPTIONS: Final = [
    # Without it a new channel inherits the backoff of the one before it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 2 * limits.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", 2 * limits.MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # What one attempt may take, its TLS handshake included: not a pause. A busy node needs more than a moment.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1_000)),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Connection:
    """The endpoints, one channel each, and which of them answered last."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout_s: float = 10.0,
        credentials: ClientCredentials = NO_CREDENTIALS,
    ) -> None:
        assert endpoints
        self.metadata = credentials.metadata()
        """What goes with each call."""

        self._credentials = credentials
        self.endpoints = tuple(endpoints)
        self.timeout_s = timeout_s
        self._channels: dict[str, grpc.Channel] = {}
        self._first = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def call(
        self, method: Method[Request, Response], request: Request, *, is_repeatable: bool = True
    ) -> Response:
        """The response of the first endpoint that gives one, within timeout_s over all attempts."""

        def attempt(endpoint: str, timeout_s: float) -> Response:
            return self.call_at(endpoint, method, request, timeout_s=timeout_s)

        return self._rotate(attempt, is_repeatable=is_repeatable)

    def call_at(
        self, endpoint: str, method: Method[Request, Response], request: Request, *, timeout_s: float
    ) -> Response:
        """The response of this endpoint."""
        size_bytes = request.ByteSize()
        if size_bytes > limits.MESSAGE_BYTES_MAX:
            raise errors.InvalidArgument(
                "request",
                f"{size_bytes} bytes; a message has at most {limits.MESSAGE_BYTES_MAX}; send less at once",
            )
        channel = self.ready_channel(endpoint)
        call: grpc.UnaryUnaryMultiCallable[Request, Response] = channel.unary_unary(
            method.path, method.request.SerializeToString, method.response.FromString
        )
        try:
            return call(request, timeout=timeout_s, metadata=self.metadata)
        except grpc.RpcError as error:
            raise self._failure(error, endpoint, method) from error

    def collect(self, method: Method[Request, Response], request: Request) -> list[Response]:
        """All responses of a finite stream. A stream that breaks is read again from the start elsewhere."""

        def attempt(endpoint: str, _: float) -> list[Response]:
            return list(self.stream_at(endpoint, method, request))

        return self._rotate(attempt, is_repeatable=True)

    def stream(self, method: Method[Request, Response], request: Request) -> Iterator[Response]:
        """Responses as they come, for results too large to hold; the endpoint is chosen by the first one."""

        def attempt(endpoint: str, _: float) -> tuple[list[Response], Iterator[Response]]:
            responses = self.stream_at(endpoint, method, request)
            first = next(responses, None)
            return ([] if first is None else [first]), responses

        head, rest = self._rotate(attempt, is_repeatable=True)
        yield from head
        yield from rest

    def stream_at(
        self, endpoint: str, method: Method[Request, Response], request: Request
    ) -> Iterator[Response]:
        """Responses of this endpoint; the call is cancelled when the iterator is closed."""
        channel = self.ready_channel(endpoint)
        open_stream: grpc.UnaryStreamMultiCallable[Request, Response] = channel.unary_stream(
            method.path, method.request.SerializeToString, method.response.FromString
        )
        call = open_stream(request, metadata=self.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._failure(error, endpoint, method) from error
        finally:
            call.cancel()

    def ready_channel(self, endpoint: str) -> grpc.Channel:
        """A channel whose node has answered, or Unreachable: nothing was sent."""
        if endpoint not in self._channels:
            channel = self._credentials.channel(endpoint, _OPTIONS)
            # Where there is no other to go on to, a busy node gets all the time there is.
            timeout_s = (
                CONNECT_TIMEOUT_S if len(self.endpoints) > 1 else max(CONNECT_TIMEOUT_S, self.timeout_s)
            )
            details = _silence(channel, timeout_s)
            if details is not None:
                channel.close()
                reason = reason_of(details, is_encrypted=self._credentials.is_encrypted(endpoint))
                raise failures.Unreachable(f"{endpoint}: {reason}")
            self._channels[endpoint] = channel
        return self._channels[endpoint]

    def forget(self, endpoint: str) -> None:
        """Connect anew at the next call."""
        channel = self._channels.pop(endpoint, None)
        if channel is not None:
            channel.close()

    def in_order(self) -> list[str]:
        """Endpoints, beginning with the one that answered last."""
        return [*self.endpoints[self._first :], *self.endpoints[: self._first]]

    def prefer(self, endpoint: str) -> None:
        """Begin with this endpoint from now on."""
        self._first = self.endpoints.index(endpoint)

    def prefer_after(self, endpoint: str) -> None:
        """Begin with the one behind this endpoint from now on."""
        self._first = (self.endpoints.index(endpoint) + 1) % len(self.endpoints)

    def _failure(
        self, call: grpc.RpcError, endpoint: str, method: Method[Request, Response]
    ) -> errors.RaftberryError:
        assert isinstance(call, grpc.Call)
        if call.code() is grpc.StatusCode.UNIMPLEMENTED:
            return failures.no_such_method(endpoint, method.name)
        error = failures.from_call(call, endpoint, is_read=method.is_read)
        if isinstance(error, errors.OutcomeUnknown):
            self.forget(endpoint)
        return error

    def _rotate(self, attempt: Callable[[str, float], Result], *, is_repeatable: bool) -> Result:
        deadline = time.monotonic() + self.timeout_s
        while True:
            refusals: list[errors.RaftberryError] = []
            for endpoint in self.in_order():
                remaining_s = max(0.05, deadline - time.monotonic())
                try:
                    result = attempt(endpoint, remaining_s)
                except errors.RaftberryError as error:
                    if not may_try_elsewhere(error, is_repeatable=is_repeatable):
                        raise
                    refusals.append(error)
                else:
                    self.prefer(endpoint)
                    return result
            _raise_if_hopeless(refusals)
            if time.monotonic() + ROUND_PAUSE_S + min(ROUND_S_MIN, self.timeout_s / 2) >= deadline:
                raise _most_telling(refusals)
            time.sleep(ROUND_PAUSE_S)


def may_try_elsewhere(error: errors.RaftberryError, *, is_repeatable: bool) -> bool:
    """Whether another endpoint, or a later attempt, can do better without applying twice."""
    if isinstance(error, errors.NoLeader | errors.Quarantined | errors.Overloaded | failures.Unreachable):
        return True
    return isinstance(error, errors.OutcomeUnknown) and is_repeatable


def _silence(channel: grpc.Channel, timeout_s: float) -> str | None:
    """What gRPC says of a process that does not answer; None: one does, with any status but those two.

    A stopped process still accepts connections, and gRPC's own watch of a channel costs a thread and 0.2 s.
    """
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_HEALTH_CHECK, bytes, bytes)
    try:
        check(b"", timeout=timeout_s)
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {timeout_s:g} s; check its power, its load, and cable and firewalls between"
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return error.details() or ""
    return None


def _raise_if_hopeless(refusals: list[errors.RaftberryError]) -> None:
    """Without a single connection a later round will not do better."""
    if all(isinstance(refusal, failures.Unreachable) for refusal in refusals):
        raise failures.no_node_answers([str(refusal) for refusal in refusals])


def _most_telling(refusals: list[errors.RaftberryError]) -> errors.RaftberryError:
    """A refusal that says something about the cluster before one about a connection."""
    return next((one for one in refusals if not isinstance(one, failures.Unreachable)), refusals[0])
