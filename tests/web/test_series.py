"""The list of series and the chart: bounded answers, in what JavaScript understands."""

from __future__ import annotations

import asyncio
import math

import pytest

from appliance.errors import Overloaded
from appliance.state import Aggregation
from appliance.state.operations import delete_series
from appliance.web import series
from appliance.web.series import ChartRequest, as_json_number
from tests.state.fakes import Cluster, write
from tests.web.fakes import FakeNode, FakeState, client

NAMES = [("attic", "humidity"), ("attic", "temperature"), ("kitchen", "temperature")]
CHART = {"sensor": "kitchen", "metric": "temperature", "start": "0", "end": "1000"}


async def test_series_are_found_by_any_part_of_their_names() -> None:
    async with client(FakeNode(state=FakeState(NAMES))) as http:
        for text, count in (("", 3), ("TEMP", 2), ("attic t", 1), ("cellar", 0)):
            answer = (await http.get("/api/v1/series", params={"q": text})).json()
            assert answer["total"] == len(answer["series"]) == count, text


async def test_a_series_that_takes_the_place_of_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "NAMES_KEPT_S", 0.0)
    cluster = Cluster()
    cluster.apply(write([1], [1.0], "old", "m"))
    names = series.Names(FakeNode(state=cluster.state))  # type: ignore[arg-type]
    assert await names.find("") == [("old", "m")]
    for number in range(2):
        cluster.apply(delete_series("*", "m"), write([1], [1.0], f"new{number}", "m"))
        assert await names.find("") == [(f"new{number}", "m")]
    cluster.apply(delete_series("*", "m"))
    assert await names.find("") == []


async def test_a_page_of_series_is_bounded_and_says_how_many_there_are() -> None:
    node = FakeNode(state=FakeState((f"s{number:05}", "value") for number in range(5_000)))
    async with client(node) as http:
        answer = (await http.get("/api/v1/series", params={"offset": 100, "limit": 2})).json()
        refused = await http.get("/api/v1/series", params={"limit": 201})
    assert answer["total"] == 5_000
    assert [row["sensor"] for row in answer["series"]] == ["s00100", "s00101"]
    assert refused.status_code == 400
    assert refused.json() == {"error": "limit: '201' is not a whole number from 0 to 200"}


async def test_a_series_comes_with_its_last_value_unit_and_times() -> None:
    async with client(FakeNode(state=FakeState(NAMES[:1]))) as http:
        (row,) = (await http.get("/api/v1/series")).json()["series"]
    assert (row["value"], row["unit"], row["time_ms"], row["first_time_ms"]) == (21.5, "°C", 2_000, 1_000)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.5, 1.5), (math.nan, "nan"), (-math.inf, "-inf"), (2**53, 2**53), (2**53 + 1, "9007199254740993")],
)
def test_values_that_json_or_javascript_cannot_hold_are_text(value: float, shown: object) -> None:
    assert as_json_number(value) == shown


async def test_few_readings_are_drawn_as_they_are() -> None:
    node = FakeNode(readings=[1.0, math.nan, 3.0])
    async with client(node) as http:
        answer = (await http.get("/api/v1/chart", params=CHART)).json()
    assert (answer["step_ms"], answer["times_ms"], answer["values"]) == (0, [0, 1, 2], [1.0, None, 3.0])
    assert [spec.aggregations for spec in node.specs] == [()]


async def test_a_chart_says_whether_there_is_such_a_series() -> None:
    async with client(FakeNode(state=FakeState(NAMES))) as http:
        for sensor, exists in (("kitchen", True), ("cellar", False)):
            answer = (await http.get("/api/v1/chart", params={**CHART, "sensor": sensor})).json()
            assert (answer["exists"], answer["times_ms"]) == (exists, [])


async def test_a_chart_counts_what_it_cannot_draw() -> None:
    for readings, points, left_out in (
        ([1.0, math.nan, -math.inf], "10", 2),
        ([1.0], "10", 0),
        ([math.inf] * 11, "10", 1),
    ):
        async with client(FakeNode(readings=readings)) as http:
            answer = (await http.get("/api/v1/chart", params={**CHART, "points": points})).json()
        assert answer["left_out_count"] == left_out, readings


async def test_many_readings_are_drawn_as_minimum_mean_and_maximum_of_windows() -> None:
    node = FakeNode(readings=[float(number) for number in range(1_000)])
    async with client(node) as http:
        answer = (await http.get("/api/v1/chart", params={**CHART, "points": 100})).json()
    assert answer["step_ms"] == 10
    assert answer["min"] == answer["mean"] == answer["max"] == [499.5]
    raw, windows = node.specs
    assert raw.limit == 101
    assert windows.aggregations == (Aggregation.MIN, Aggregation.MEAN, Aggregation.MAX)
    assert all(result.is_closed for result in node.results)


@pytest.mark.parametrize(
    ("span_ms", "points", "step_ms"),
    [
        (1_000, 100, 10),
        (1_001, 100, 20),
        (86_400_000, 600, 300_000),
        (31_536_000_000, 600, 86_400_000),
        (5, 10, 1),
    ],
)
def test_windows_are_round_and_never_more_than_asked(span_ms: int, points: int, step_ms: int) -> None:
    asked = ChartRequest("s", "m", 0, span_ms * 1_000_000, points)
    assert asked.step_ns == step_ms * 1_000_000
    assert span_ms / step_ms <= points


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sensor": ""}, "sensor: names one series: neither empty nor a pattern"),
        ({"metric": "*"}, "metric: names one series: neither empty nor a pattern"),
        ({"start": "2000"}, "start: 2000 ms is not before the end, 1000 ms"),
        ({"start": "nan"}, "start: 'nan' is not a time in milliseconds since 1970"),
        ({"end": "1e300"}, "end: '1e300' is not a time in milliseconds since 1970"),
        ({"points": "2001"}, "points: '2001' is not a whole number from 10 to 2000"),
        ({"points": "٣٣"}, "points: '٣٣' is not a whole number from 10 to 2000"),
    ],
)
async def test_a_wrong_question_is_answered_with_the_field(changes: dict[str, str], error: str) -> None:
    async with client() as http:
        answer = await http.get("/api/v1/chart", params={**CHART, **changes})
    assert (answer.status_code, answer.json()) == (400, {"error": error})


async def test_charts_take_turns_and_too_many_are_sent_away() -> None:
    turns, may_end = series.Turns(), asyncio.Event()

    async def draw() -> None:
        async with turns.taken():
            await may_end.wait()

    drawing = [asyncio.create_task(draw()) for _ in range(series.CHARTS_AT_ONCE + series.CHARTS_WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="24 charts wait on this node already"):
        await draw()
    may_end.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*drawing)
        await draw()
