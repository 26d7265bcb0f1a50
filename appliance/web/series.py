"""The page's series: a list to search in, and what of a series is drawn.

Invariant: an answer has at most PAGE_MAX series or POINTS_MAX points, whatever is stored: a span with more readings
is drawn as the minimum, mean and maximum of windows, and the windows are made in the readers' pool. What is shown is
this node's own state; nobody else is asked.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.errors import InvalidArgument, Overloaded
from appliance.limits import NAME_BYTES_MAX
from appliance.state import Aggregation, QueryChunk, QuerySpec
from appliance.web.port import Node, QueryResult

PAGE_MAX: Final = 200
POINTS_MAX: Final = 2_000
CHARTS_AT_ONCE: Final = 1
"""The readers' pool has two threads, and clients want them too."""

CHARTS_WAITING_MAX: Final = 24
"""Six of four pages; beyond it a page is told to come back."""

NAMES_KEPT_S: Final = 5.0
NAMES_AT_ONCE: Final = 2_000
"""Compared or sorted without giving the loop back: a millisecond or two."""

NS_PER_MS: Final = 1_000_000
SPAN_MS_MAX: Final = 1e13
"""Some three hundred years; beyond lies a mistake."""

SAFE_INTEGER_MAX: Final = 1 << 53
"""Above it JavaScript's numbers have gaps: such a value is sent as text."""

MONTH_MS: Final = 30 * 86_400_000
WINDOWS_MS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(seconds * 1_000 for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * 60_000 for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3_600_000 for hours in (1, 2, 3, 6, 12)),
    *(days * 86_400_000 for days in (1, 2, 5, 7, 14)),
)
"""Widths of windows that people count in."""

WINDOWED: Final = (Aggregation.MIN, Aggregation.MEAN, Aggregation.MAX)


class Names:
    """Every series by name, sorted; made again when one came or went, every few seconds at most.

    Nothing here holds the loop for more than NAMES_AT_ONCE names: a hundred thousand at once would take as long as an
    election timeout on a small machine.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._names: list[tuple[str, str]] = []
        self._made_s = -math.inf
        self._version = (-1, -1)
        self._making = asyncio.Lock()

    async def find(self, text: str) -> list[tuple[str, str]]:
        """Names that hold the text in `sensor metric`; case does not matter."""
        async with self._making:
            await self._refresh()
        names, wanted = self._names, text.casefold()
        if not wanted:
            return names
        found: list[tuple[str, str]] = []
        for begin in range(0, len(names), NAMES_AT_ONCE):
            found += [
                name for name in names[begin : begin + NAMES_AT_ONCE] if wanted in " ".join(name).casefold()
            ]
            await asyncio.sleep(0)
        return found

    async def _refresh(self) -> None:
        now_s = time.monotonic()
        version = self._node.state.series_version
        if version == self._version or now_s - self._made_s < NAMES_KEPT_S:
            return
        self._names = await _sorted_gently(self._node.state.series_names())
        self._made_s, self._version = now_s, version


async def _sorted_gently(names: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sorted in pieces, merged in pieces, with a turn of the loop between them."""
    pieces = []
    for begin in range(0, len(names), NAMES_AT_ONCE):
        pieces.append(sorted(names[begin : begin + NAMES_AT_ONCE]))
        await asyncio.sleep(0)
    merged = heapq.merge(*pieces)
    result: list[tuple[str, str]] = []
    while part := list(islice(merged, NAMES_AT_ONCE)):
        result += part
        await asyncio.sleep(0)
    return result


async def list_series(request: Request) -> Response:
    """?q=TEXT&offset=N&limit=N -> {total, series: [...]}, each with its last value."""
    node: Node = request.app.state.node
    names: Names = request.app.state.names
    offset = _whole(request, "offset", default=0, high=10_000_000)
    limit = _whole(request, "limit", default=50, high=PAGE_MAX)
    found = await names.find(request.query_params.get("q", "")[:NAME_BYTES_MAX])
    rows = [row for name in found[offset : offset + limit] if (row := _row(node, *name))]
    return JSONResponse({"total": len(found), "series": rows})


def _row(node: Node, sensor: str, metric: str) -> dict[str, Any] | None:
    info = next(iter(node.state.series(sensor, metric)), None)
    if info is None:
        return None
    row: dict[str, Any] = {
        "sensor": sensor,
        "metric": metric,
        "unit": info.unit,
        "labels": dict(info.labels),
        "reading_count": info.reading_count,
        "size_bytes": info.size_bytes,
    }
    for latest in node.state.latest(sensor, metric):
        row["time_ms"] = latest.time / NS_PER_MS
        row["first_time_ms"] = (info.first_time or 0) / NS_PER_MS
        row["value"] = as_json_number(latest.value)
    return row


def as_json_number(value: float | int) -> float | int | str:
    """JSON has neither NaN nor infinities, and JavaScript no large integers: these go as text."""
    if isinstance(value, int):
        return value if abs(value) <= SAFE_INTEGER_MAX else str(value)
    return value if math.isfinite(value) else str(value)


@dataclass(frozen=True, slots=True)
class ChartRequest:
    """Half-open [start, end) in ns."""

    sensor: str
    metric: str
    start: int
    end: int
    points: int

    @property
    def step_ns(self) -> int:
        """Of WINDOWS_MS, or whole months of 30 days, so that neighbouring charts have the same windows."""
        least_ms = (self.end - self.start) / self.points / NS_PER_MS
        step_ms = next((each for each in WINDOWS_MS if each >= least_ms), 0)
        return (step_ms or math.ceil(least_ms / MONTH_MS) * MONTH_MS) * NS_PER_MS


class Turns:
    """CHARTS_AT_ONCE, and a bounded queue. Raises Overloaded when that is full."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(CHARTS_AT_ONCE)
        self._waiting_count = 0

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        if self._waiting_count >= CHARTS_WAITING_MAX:
            raise Overloaded(
                f"{CHARTS_WAITING_MAX} charts wait on this node already; ask again, or another node"
            )
        self._waiting_count += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting_count -= 1
        try:
            yield
        finally:
            self._free.release()


async def get_chart(request: Request) -> Response:
    """?sensor&metric&start&end (ms)&points -> raw readings where they are few, else windows.

    {step_ms: 0, times_ms, values} or {step_ms, times_ms, min, mean, max}; null stands for NaN and infinities, and
    left_out_count says how many points that are. exists: whether there is such a series at all.
    """
    asked = _chart_request(request)
    node: Node = request.app.state.node
    charts: Turns = request.app.state.charts
    async with charts.taken():
        answer = await _raw(node, asked) or await _windows(node, asked)
    drawn = answer["mean"] if answer["step_ms"] else answer["values"]
    named = {
        "sensor": asked.sensor,
        "metric": asked.metric,
        "exists": any(True for _ in node.state.series(asked.sensor, asked.metric)),
        "left_out_count": drawn.count(None),
    }
    return JSONResponse({**named, **answer})


async def _raw(node: Node, asked: ChartRequest) -> dict[str, Any] | None:
    """None when there are more than asked.points: finding that out reads no more than that."""
    spec = QuerySpec(asked.sensor, asked.metric, start=asked.start, end=asked.end, limit=asked.points + 1)
    columns = await _columns(await node.query(spec))
    times, values = columns.get(Aggregation.RAW, ([], []))
    return None if len(times) > asked.points else {"step_ms": 0, "times_ms": times, "values": values}


async def _windows(node: Node, asked: ChartRequest) -> dict[str, Any]:
    step_ns = asked.step_ns
    spec = QuerySpec(
        asked.sensor,
        asked.metric,
        start=asked.start // step_ns * step_ns,
        end=asked.end,
        aggregations=WINDOWED,
        step_ns=step_ns,
        limit=POINTS_MAX + 1,
    )
    columns = await _columns(await node.query(spec))
    times = columns.get(Aggregation.MIN, ([], []))[0]
    named = {each.name.lower(): columns.get(each, ([], []))[1] for each in WINDOWED}
    return {"step_ms": step_ns / NS_PER_MS, "times_ms": times, **named}


async def _columns(result: QueryResult) -> dict[Aggregation, tuple[list[float], list[float | None]]]:
    """Aggregation to its times in ms and its values."""
    found: dict[Aggregation, tuple[list[float], list[float | None]]] = {}
    try:
        async for chunks in result:
            for chunk in chunks:
                times, values = found.setdefault(chunk.aggregation, ([], []))
                times.extend((chunk.times / NS_PER_MS).tolist())
                values.extend(_values(chunk))
    finally:
        await result.aclose()
    return found


def _values(chunk: QueryChunk) -> Sequence[float | None]:
    values: list[float] = chunk.values.tolist()
    if all(map(math.isfinite, values)):
        return values
    return [value if math.isfinite(value) else None for value in values]


def _chart_request(request: Request) -> ChartRequest:
    end_ms = _milliseconds(request, "end", default=time.time() * 1_000)
    start_ms = _milliseconds(request, "start", default=end_ms - 3_600_000)
    if not start_ms < end_ms:
        raise InvalidArgument("start", f"{start_ms:.0f} ms is not before the end, {end_ms:.0f} ms")
    return ChartRequest(
        sensor=_name(request, "sensor"),
        metric=_name(request, "metric"),
        start=int(start_ms * NS_PER_MS),
        end=int(end_ms * NS_PER_MS),
        points=_whole(request, "points", default=600, high=POINTS_MAX, low=10),
    )


def _name(request: Request, field: str) -> str:
    text = request.query_params.get(field, "")
    if not text or not set(text).isdisjoint("*?["):
        raise InvalidArgument(field, "names one series: neither empty nor a pattern")
    return text


def _whole(request: Request, field: str, *, default: int, high: int, low: int = 0) -> int:
    text = request.query_params.get(field)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
        raise InvalidArgument(field, f"{text[:40]!r} is not a whole number from {low} to {high}")
    return int(text)


def _milliseconds(request: Request, field: str, *, default: float) -> float:
    text = request.query_params.get(field)
    try:
        found = default if text is None else float(text)
    except ValueError:
        found = math.nan
    if not abs(found) <= SPAN_MS_MAX / 2:
        raise InvalidArgument(field, f"{str(text)[:40]!r} is not a time in milliseconds since 1970")
    return found
