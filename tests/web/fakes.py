"""A node, its facts and its access for the tests of the web port: plain values, set by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np

from appliance.consensus import EventLog
from appliance.errors import RateLimited, Unauthenticated
from appliance.host.resources import Resources
from appliance.model import Position, Role
from appliance.node.figures import Figures
from appliance.node.meter import COMMIT_BOUNDS_NS, Histogram
from appliance.node.observing import Observing
from appliance.node.status import NodeStatus, PeerStatus
from appliance.state import Aggregation, QueryChunk, QuerySpec, SeriesInfo, SeriesLatest
from appliance.web.app import make_app
from appliance.web.port import OpenAccess, describe
from tests.node.harness import FakeClock

MS = 1_000_000


def peer(name: str, **changes: object) -> PeerStatus:
    facts: dict[str, object] = {
        "name": name,
        "member_id": "0000000000000002",
        "number": 2,
        "peer_address": "127.0.0.1:7451",
        "connected": True,
        "match_index": 90,
        "heard_ms_ago": 150,
        "voter": True,
        "refused": "",
    }
    return PeerStatus(**{**facts, **changes})  # type: ignore[arg-type]


LEADER = NodeStatus(
    name="node-1",
    leader="node-1",
    role=Role.LEADER,
    term=3,
    commit_index=99,
    last_index=100,
    peers=(peer("node-1", match_index=100), peer("node-2"), peer("node-3", connected=False)),
    cluster_id="00000000000000ff",
    member_id="0000000000000001",
    version="0.1.0",
    has_quorum=True,
    series_count=2,
)


class Chunks:
    def __init__(self, chunks: Sequence[QueryChunk]) -> None:
        self._chunks = chunks
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[Sequence[QueryChunk]]:
        yield self._chunks

    async def aclose(self) -> None:
        self.is_closed = True


class FakeState:
    def __init__(self, names: Iterable[tuple[str, str]] = ()) -> None:
        self.position = Position(7, 2)
        self.names = sorted(names)
        self.value: float | int = 21.5

    @property
    def series_version(self) -> tuple[int, int]:
        return len(self.names), len(self.names) + 1

    def series_names(self) -> list[tuple[str, str]]:
        return self.names[::-1]

    def _match(self, sensor: str, metric: str) -> list[tuple[str, str]]:
        return [name for name in self.names if sensor in ("", name[0]) and metric in ("", name[1])]

    def latest(self, sensor: str, metric: str) -> Iterable[SeriesLatest]:
        for name in self._match(sensor, metric):
            yield SeriesLatest(*name, integer=isinstance(self.value, int), time=2_000 * MS, value=self.value)

    def series(self, sensor: str, metric: str) -> Iterable[SeriesInfo]:
        for name in self._match(sensor, metric):
            yield SeriesInfo(*name, False, "°C", {"room": "<b>attic</b>"}, 9, 1_000 * MS, 2_000 * MS, 72)


@dataclass
class FakeNode:
    """readings: what every raw query finds, at times 0, 1, 2, ... ms; more than the limit are cut."""

    name: str = "node-1"
    now: NodeStatus = LEADER
    serving: bool = True
    write_refusal: str = ""
    state: FakeState = field(default_factory=FakeState)
    readings: Sequence[float] = ()
    specs: list[QuerySpec] = field(default_factory=list)
    results: list[Chunks] = field(default_factory=list)
    error: Exception | None = None

    def status(self) -> NodeStatus:
        if self.error:
            raise self.error
        return self.now

    def is_serving(self) -> bool:
        return self.serving

    def figures(self) -> Figures:
        commits = Histogram(COMMIT_BOUNDS_NS)
        for milliseconds in (1, 3, 20_000):
            commits.observe(milliseconds * MS)
        return Figures(
            commits=commits,
            readings_applied_count=9,
            event_counts={"became_candidate": 2, "became_leader": 1, "appended": 40},
            dropped_counts={"older_term": 4},
            loop_turn_longest_ns={"cycle": 4 * MS},
            loop_turn_long_counts={"lag": 2},
            write_refusal=self.write_refusal,
            store_bytes_max=1 << 33,
        )

    async def query(self, spec: QuerySpec) -> Chunks:
        self.specs.append(spec)
        values = np.array(self.readings, dtype=np.float64)
        if spec.aggregations:
            chunks = [self._chunk(spec, np.array([values.mean()]), each) for each in spec.aggregations]
        else:
            chunks = [self._chunk(spec, values[: spec.limit], Aggregation.RAW)]
        self.results.append(Chunks(chunks))
        return self.results[-1]

    def _chunk(self, spec: QuerySpec, values: np.ndarray, aggregation: Aggregation) -> QueryChunk:
        times = np.arange(len(values), dtype=np.int64) * MS
        return QueryChunk(spec.sensor, spec.metric, False, times, values, aggregation)


@dataclass
class FakeFacts:
    counts: Mapping[tuple[str, str], int] = field(
        default_factory=lambda: {
            ("ReadingService/Write", "OK"): 5,
            ("ReadingService/Write", "UNAVAILABLE"): 1,
        }
    )
    ends: Mapping[str, float] = field(default_factory=dict)

    def resources(self) -> Resources:
        return Resources(40 << 20, 1 << 20, 1 << 30, 1 << 34, 1.5, 0.3, True)

    def request_counts(self) -> Mapping[tuple[str, str], int]:
        return self.counts

    def certificates(self) -> Mapping[str, float]:
        return self.ends


class TokenAccess:
    """Two tokens; a set, so that a test can revoke one."""

    is_required = True

    def __init__(self) -> None:
        self.tokens = {"secret-1": "anna", "secret-2": "prometheus"}
        self.requests_left = 1_000

    def reader(self, token: str) -> str:
        if not self.is_reader(token):
            raise Unauthenticated("this token is not known here")
        if self.requests_left <= 0:
            raise RateLimited("token has used up its rate", retry_ms=100)
        self.requests_left -= 1
        return self.tokens[token]

    def is_reader(self, token: str) -> bool:
        return token in self.tokens


def client(
    node: FakeNode | None = None,
    access: TokenAccess | None = None,
    *,
    facts: FakeFacts | None = None,
    observing: Observing | None = None,
    base_url: str = "http://127.0.0.1:7442",
) -> httpx.AsyncClient:
    """An HTTP client of the routes, without a port."""
    node, facts = node or FakeNode(), facts or FakeFacts()
    events = observing or Observing(
        node.name, lambda: describe(node.status(), facts), _no_events(), FakeClock()
    )
    app = make_app(node, events, facts, access or OpenAccess())
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),  # type: ignore[arg-type]
        base_url=base_url,
    )


def _no_events() -> EventLog:
    return EventLog(lambda: 0)
