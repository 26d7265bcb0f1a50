"""Who asks, and what they may do: tokens judged against the state that this node has applied.

Invariant: a request without a token that is known, not revoked and not ended gets nothing where tokens are
required; a Caller may do what its token's globs name and nothing else. Revoking counts from the moment this node
applies it: callers of long streams ask `check` again for each of their messages.
Loop thread only. Used by the client API and by the web port.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.clock import Clock
from appliance.errors import PermissionDenied, RateLimited, Unauthenticated
from appliance.limits import TOKENS_MAX
from appliance.node.tokens import hash_token
from appliance.state.access import AccessTable, TokenRecord
from appliance.state.names import is_pattern, matcher

SECOND_NS: Final = 1_000_000_000
SERIES_REMEMBERED_MAX: Final = 10_000
"""Answers a caller keeps of which series it may touch: some 2 MB at worst."""

_BEARER: Final = "bearer "
_HOW: Final = "on a node, `sudo raftberry token create NAME --read '*'` makes one that may read all"


class Caller(Protocol):
    """Who a request comes from. The checks raise PermissionDenied with what is missing."""

    @property
    def name(self) -> str: ...
    @property
    def is_limited(self) -> bool:
        """False: may do everything, nothing need be checked."""

    def check(self) -> None:
        """One more request on a stream: Unauthenticated once the token was revoked or has ended, RateLimited."""

    def check_operator(self, what: str) -> None: ...
    def check_write(self, sensor: str, metric: str) -> None: ...
    def check_read(self, sensor: str, metric: str) -> Callable[[str, str], bool] | None:
        """For two globs: which series may be seen, None: all. What names one series may be refused."""

    def check_key_write(self, key: str) -> None: ...
    def check_key_read(self, key: str) -> None: ...
    def check_keys_read(self) -> Callable[[str], bool] | None:
        """For a prefix: which keys may be seen, None: all."""


class Everyone:
    """Where no token is required: loopback without encryption, and the local socket."""

    name = "local"
    is_limited = False

    def check(self) -> None: ...

    def check_operator(self, what: str) -> None: ...

    def check_write(self, sensor: str, metric: str) -> None: ...

    def check_read(self, sensor: str, metric: str) -> Callable[[str, str], bool] | None:
        return None

    def check_key_write(self, key: str) -> None: ...

    def check_key_read(self, key: str) -> None: ...

    def check_keys_read(self) -> Callable[[str], bool] | None:
        return None


EVERYONE: Final = Everyone()


class TokenCaller:
    """Whoever holds a token."""

    is_limited = True

    def __init__(self, access: Access, record: TokenRecord) -> None:
        self.record, self.name = record, record.name
        self._access = access
        self._bucket = Bucket(record.requests_per_second)
        self._write = _scopes(record.write)
        self._read = _scopes(record.read)
        self._key_write = _any_of(record.key_write)
        self._key_read = _any_of(record.key_read)

    @property
    def may_read_all(self) -> bool:
        return "*" in map(_shortest, self.record.read)

    def check(self) -> None:
        self._access.check(self.record)
        wait_ns = self._bucket.take(self._access.clock.monotonic_ns())
        if wait_ns:
            raise RateLimited(
                f"token {self.name} has used up its rate of {self.record.requests_per_second} requests a second on "
                "this node: nothing was done; retry later",
                retry_ms=wait_ns // 1_000_000 + 1,
            )

    def check_operator(self, what: str) -> None:
        if not self.record.is_operator:
            raise PermissionDenied(
                f"{what} needs the operator's right, token {self.name} does not have it; "
                "`sudo raftberry token create NAME --operator` makes one that has"
            )

    def check_write(self, sensor: str, metric: str) -> None:
        if not self._write(sensor, metric):
            raise self._denied(f"write {sensor}/{metric}", "--write", self.record.write, f"{sensor}/*")

    def check_read(self, sensor: str, metric: str) -> Callable[[str, str], bool] | None:
        is_one = not is_pattern(sensor) and not is_pattern(metric)
        if not self.record.read or (is_one and not self._read(sensor, metric)):
            raise self._denied(f"read {sensor}/{metric}", "--read", self.record.read, f"{sensor}/*")
        return self._read

    def check_key_write(self, key: str) -> None:
        if not self._key_write(key):
            raise self._denied(f"change key {key}", "--key-write", self.record.key_write, key)

    def check_key_read(self, key: str) -> None:
        if not self._key_read(key):
            raise self._denied(f"read key {key}", "--key-read", self.record.key_read, key)

    def check_keys_read(self) -> Callable[[str], bool] | None:
        if not self.record.key_read:
            raise self._denied("read keys", "--key-read", (), "*")
        return self._key_read

    def _denied(self, what: str, option: str, globs: tuple[str, ...], wanted: str) -> PermissionDenied:
        has = " ".join(f"{option} {glob!r}" for glob in globs) or f"no {option}"
        return PermissionDenied(
            f"token {self.name} may not {what}: it has {has}; "
            f"`sudo raftberry token create NAME {option} {wanted!r}` makes one that may"
        )


class Access:
    """Judges the tokens of one node's requests."""

    def __init__(self, table: Callable[[], AccessTable], clock: Clock, *, is_token_required: bool) -> None:
        self.clock, self._table, self._is_token_required = clock, table, is_token_required
        self._callers: dict[bytes, TokenCaller] = {}

    def authorize(self, authorization: str | None) -> Caller:
        """authorization: the value of that header, `Bearer TOKEN`. Counts as one request of the token.

        Raises Unauthenticated, RateLimited.
        """
        if not self._is_token_required:
            return EVERYONE
        caller = self._caller_of(authorization)
        caller.check()
        return caller

    def _caller_of(self, authorization: str | None) -> TokenCaller:
        """Whose token this is, ended or not. Raises Unauthenticated."""
        if not authorization:
            raise Unauthenticated(
                "this cluster asks for a token: send metadata `authorization: Bearer TOKEN` (commands: --token or "
                f"RAFTBERRY_TOKEN); {_HOW}"
            )
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated(f"the authorization is not `Bearer TOKEN`; {_HOW}")
        digest = hash_token(authorization[len(_BEARER) :].strip())
        record = self._table().by_hash.get(digest)
        if record is None:
            self._callers.pop(digest, None)
            raise Unauthenticated(
                f"this token is not known here: it was revoked, or is of another cluster; {_HOW}"
            )
        caller = self._callers.get(digest)
        if caller is None or caller.record != record:
            if len(self._callers) >= 2 * TOKENS_MAX:
                self._callers.clear()
            caller = self._callers[digest] = TokenCaller(self, record)
        return caller

    @property
    def is_required(self) -> bool:
        return self._is_token_required

    def reader(self, token: str) -> str:
        """For the dashboard: the name of a token that may read every series. Counts as one request of the token.

        Raises Unauthenticated, PermissionDenied, RateLimited.
        """
        caller = self._caller_of(f"Bearer {token}")
        caller.check()
        if not caller.may_read_all:
            raise PermissionDenied(
                f"token {caller.name} may not read every series, which the dashboard shows; "
                "`sudo raftberry token create NAME --read '*'` makes one that may"
            )
        return caller.name

    def is_reader(self, token: str) -> bool:
        """Whether it still may; counts as no request."""
        try:
            caller = self._caller_of(f"Bearer {token}")
            self.check(caller.record)
        except Unauthenticated:
            return False
        return caller.may_read_all

    def check(self, record: TokenRecord) -> None:
        """Raises Unauthenticated when the token was revoked or has ended since."""
        if self._table().by_hash.get(record.hash) != record:
            raise Unauthenticated(f"token {record.name} was revoked; {_HOW}")
        if record.expires_unix_nano and self.clock.wall_ns() >= record.expires_unix_nano:
            raise Unauthenticated(f"token {record.name} has ended (--expires); {_HOW}")


class Bucket:
    """A token bucket that holds one second's worth of requests, at least one."""

    def __init__(self, rate_per_second: int) -> None:
        self._rate = rate_per_second
        self._level = float(rate_per_second)
        self._at_ns: int | None = None

    def take(self, now_ns: int) -> int:
        """0: taken. Otherwise nothing was taken, and there is room in so many nanoseconds."""
        if not self._rate:
            return 0
        passed_ns = now_ns - (now_ns if self._at_ns is None else self._at_ns)
        self._at_ns = now_ns
        self._level = min(float(self._rate), self._level + passed_ns * self._rate / SECOND_NS)
        if self._level < 1:
            return int((1 - self._level) * SECOND_NS / self._rate) + 1
        self._level -= 1
        return 0


@dataclass(slots=True)
class _Scopes:
    """Globs over SENSOR/METRIC, with their answers remembered."""

    matchers: tuple[Callable[[str], object], ...]
    known: dict[tuple[str, str], bool]

    def __call__(self, sensor: str, metric: str) -> bool:
        series = (sensor, metric)
        answer = self.known.get(series)
        if answer is None:
            text = f"{sensor}/{metric}"
            answer = any(matches(text) for matches in self.matchers)
            if len(self.known) >= SERIES_REMEMBERED_MAX:
                self.known.clear()
            self.known[series] = answer
        return answer


def _scopes(globs: tuple[str, ...]) -> _Scopes:
    return _Scopes(tuple(matcher(whole_scope(glob)) for glob in globs), {})


def whole_scope(glob: str) -> str:
    """A scope without a slash is one of sensors, with all their metrics."""
    return glob if "/" in glob else f"{glob}/*"


def _shortest(glob: str) -> str:
    return "*" if glob == "*/*" else glob


def _any_of(globs: tuple[str, ...]) -> Callable[[str], bool]:
    matchers = tuple(matcher(glob) for glob in globs)
    return lambda name: any(matches(name) for matches in matchers)
