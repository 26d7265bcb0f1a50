"""ReadingService as a client sees it."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from grpc import StatusCode, aio

from appliance import errors, limits
from appliance.api import calls
from appliance.state import Aggregation, EntryEffects, QueryChunk, SeriesInfo, SeriesLatest
from appliance.state.columns import encode_columns
from raftberry.v1 import reading_pb2
from tests.api.fake_node import Effects, Outcome, Result
from tests.api.harness import Api, reason_of

SERVICE = "raftberry.v1.ReadingService"
READINGS = reading_pb2.Readings(sensor="greenhouse", metric="temperature", time_unix_nano=[1], value=[21.5])


async def test_a_write_answers_with_index_term_and_duplicate(api: Api) -> None:
    api.node.outcomes = [Outcome(index=41, term=3, duplicate=True)]
    request = reading_pb2.WriteRequest(readings=[READINGS], producer_id="p", sequence=5)
    response = await api.call(f"{SERVICE}/Write", request, reading_pb2.WriteResponse)
    assert (response.index, response.term, response.duplicate) == (41, 3, True)
    assert api.node.operations[0].write.columns[0].sensor == "greenhouse"


async def test_a_call_without_deadline_gets_the_servers(api: Api) -> None:
    request = reading_pb2.WriteRequest(readings=[READINGS])
    await api.call(f"{SERVICE}/Write", request, reading_pb2.WriteResponse)
    (deadline_ns,) = api.node.deadlines
    assert deadline_ns is not None
    assert 9e9 < deadline_ns - time.monotonic_ns() < 10.5e9


async def test_a_clients_deadline_reaches_the_node(api: Api) -> None:
    write = api.channel.unary_unary(f"/{SERVICE}/Write")
    await write(reading_pb2.WriteRequest(readings=[READINGS]).SerializeToString(), timeout=3)
    (deadline_ns,) = api.node.deadlines
    assert deadline_ns is not None
    assert 2e9 < deadline_ns - time.monotonic_ns() < 3.5e9


@pytest.mark.parametrize(
    ("error", "code", "reason", "outcome"),
    [
        (errors.NoLeader("no leader"), StatusCode.UNAVAILABLE, "NO_LEADER", "NOT_APPLIED"),
        (errors.Overloaded("full"), StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "NOT_APPLIED"),
        (errors.SequenceTooOld("old"), StatusCode.OUT_OF_RANGE, "SEQUENCE_TOO_OLD", "OUTCOME_UNKNOWN"),
        (errors.OutcomeUnknown("late"), StatusCode.DEADLINE_EXCEEDED, "DEADLINE", "OUTCOME_UNKNOWN"),
        (ValueError("bug"), StatusCode.INTERNAL, "INTERNAL", "OUTCOME_UNKNOWN"),
    ],
)
async def test_a_failed_write_says_whether_it_may_have_happened(
    api: Api, error: Exception, code: StatusCode, reason: str, outcome: str
) -> None:
    api.node.outcomes = [error]  # type: ignore[list-item]
    with pytest.raises(aio.AioRpcError) as caught:
        await api.call(
            f"{SERVICE}/Write", reading_pb2.WriteRequest(readings=[READINGS]), reading_pb2.WriteResponse
        )
    assert caught.value.code() is code
    assert reason_of(caught.value) == (reason, {"outcome": outcome})


async def test_bytes_that_do_not_parse_are_an_invalid_argument(api: Api) -> None:
    for method in ("Write", "SetSeries", "DeleteSeries", "GetProducer"):
        with pytest.raises(aio.AioRpcError) as caught:
            await api.call(f"{SERVICE}/{method}", b"\xff\xff\xff", reading_pb2.WriteResponse)
        assert caught.value.code() is StatusCode.INVALID_ARGUMENT
        assert "not a raftberry.v1." in (caught.value.details() or "")


async def test_a_message_above_the_bound_is_resource_exhausted(api: Api) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await api.call(f"{SERVICE}/Write", bytes(5_000_000), reading_pb2.WriteResponse)
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max (5000000 vs. 4194304)" in (caught.value.details() or "")


async def test_a_stream_is_answered_in_order_and_outlives_a_refusal(api: Api) -> None:
    api.node.outcomes = [Outcome(index=1), errors.ConditionFailed("holds integers"), Outcome(index=3)]
    requests = [
        reading_pb2.StreamWriteRequest(readings=[READINGS], producer_id="p", sequence=n) for n in (1, 2, 4)
    ]
    requests.insert(2, reading_pb2.StreamWriteRequest(producer_id="p", sequence=3))
    call = api.channel.stream_stream(
        f"/{SERVICE}/StreamWrite",
        reading_pb2.StreamWriteRequest.SerializeToString,
        reading_pb2.StreamWriteResponse.FromString,
    )(iter(requests))
    responses = [response async for response in call]
    assert [response.sequence for response in responses] == [1, 2, 3, 4]
    assert [response.status.code for response in responses] == [
        0,
        StatusCode.FAILED_PRECONDITION.value[0],
        StatusCode.INVALID_ARGUMENT.value[0],
        0,
    ]
    assert [response.index for response in responses] == [1, 0, 0, 3]
    assert await call.code() is StatusCode.OK


async def test_the_latest_readings_come_as_ordinary_messages(api: Api) -> None:
    api.node.state.latest_list = [
        SeriesLatest("attic", "temperature", False, 5, 1.5),
        SeriesLatest("greenhouse", "count", True, -6, 7),
        SeriesLatest("greenhouse", "temperature", False, 7, 2.5),
    ]
    (response,) = await api.collect(
        f"{SERVICE}/GetLatest",
        reading_pb2.GetLatestRequest(sensor="green*"),
        reading_pb2.GetLatestResponse,
    )
    count, temperature = response.readings
    assert (count.metric, list(count.time_unix_nano), list(count.int_value)) == ("count", [-6], [7])
    assert (temperature.metric, list(temperature.value)) == ("temperature", [2.5])
    assert (response.index, response.term) == (7, 2)
    assert api.node.barriers == [reading_pb2.CONSISTENCY_LINEARIZABLE]


async def test_a_read_of_nothing_still_says_its_index(api: Api) -> None:
    for method, request, response in (
        ("GetLatest", reading_pb2.GetLatestRequest(consistency=2), reading_pb2.GetLatestResponse),
        ("Query", reading_pb2.QueryRequest(consistency=2), reading_pb2.QueryResponse),
        ("ListSeries", reading_pb2.ListSeriesRequest(consistency=2), reading_pb2.ListSeriesResponse),
    ):
        (only,) = await api.collect(f"{SERVICE}/{method}", request, response)
        assert (only.index, only.term) == (7, 2)
    assert api.node.barriers == [reading_pb2.CONSISTENCY_LOCAL] * 3


async def test_a_query_streams_its_chunks_by_aggregation_and_closes_its_reader(api: Api) -> None:
    times, values = np.arange(100_000), np.arange(100_000) / 8
    ends = np.array([5]), np.array([9])
    api.node.result = Result(
        [
            [QueryChunk("s", "m", False, times, values)],
            [
                QueryChunk("s", "m", False, ends[0], ends[1] / 2, Aggregation.MIN),
                QueryChunk("s", "m", True, ends[0], ends[1], Aggregation.COUNT),
            ],
        ]
    )
    request = reading_pb2.QueryRequest(
        sensor="s", start_time_unix_nano=-1, limit=9, aggregations=[1, 5], step_nano=60
    )
    responses = await api.collect(f"{SERVICE}/Query", request, reading_pb2.QueryResponse)
    raw = [each for each in responses if each.aggregation == 0]
    got = [value for each in raw for readings in each.readings for value in readings.value]
    assert got == values.tolist()
    assert all(each.ByteSize() <= limits.MIB for each in responses)
    assert [each.aggregation for each in responses[-2:]] == [1, 5]
    assert list(responses[-1].readings[0].int_value) == [9]
    assert api.node.result.is_closed
    (spec,) = api.node.specs
    assert (spec.sensor, spec.metric, spec.start, spec.end) == ("s", "*", -1, None)
    assert (spec.limit, spec.aggregations, spec.step_ns) == (9, (Aggregation.MIN, Aggregation.COUNT), 60)


async def test_a_query_whose_client_takes_nothing_is_ended_and_says_how_to_go_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is, what the node deletes and rewrites finds no room in its store."""
    monkeypatch.setattr(calls, "STREAM_STALL_S_MAX", 0.2)
    times, values = np.arange(60_000), np.arange(60_000) / 8
    api.node.result = Result([[QueryChunk("s", "m", False, times, values)]] * 50)
    call = api.stream(f"{SERVICE}/Query", reading_pb2.QueryRequest(), reading_pb2.QueryResponse)
    responses = aiter(call)
    assert (await anext(responses)).readings
    async with asyncio.timeout(10):
        while not api.node.result.is_closed:
            await asyncio.sleep(0.01)
    with pytest.raises(aio.AioRpcError) as caught:
        [response async for response in responses]
    assert caught.value.code() is StatusCode.ABORTED
    assert "taken nothing for 0.2 s: the read was ended" in str(caught.value.details())
    assert "a query from the last time that was received" in str(caught.value.details())
    assert reason_of(caught.value) == ("CLIENT_STALLED", {"outcome": "NOT_APPLIED"})


async def test_what_such_a_client_never_takes_is_forgotten(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status stands behind a message that the core holds: a leak of clients would be one of the node."""
    monkeypatch.setattr(calls, "STREAM_STALL_S_MAX", 0.2)
    times, values = np.arange(60_000), np.arange(60_000) / 8
    api.node.result = Result([[QueryChunk("s", "m", False, times, values)]] * 50)
    call = api.stream(f"{SERVICE}/Query", reading_pb2.QueryRequest(), reading_pb2.QueryResponse)
    await call.read()
    assert api.server._server is not None
    assert api.server._server._calls
    async with asyncio.timeout(10):
        while api.server._server._calls:
            await asyncio.sleep(0.01)
    call.cancel()


async def test_an_unknown_consistency_is_named(api: Api) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await api.collect(
            f"{SERVICE}/GetLatest", reading_pb2.GetLatestRequest(consistency=7), reading_pb2.GetLatestResponse
        )
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith("consistency: 7 is not known")


def entry(index: int, *series: tuple[str, int]) -> Effects:
    columns = tuple(
        encode_columns(sensor, "m", np.arange(count), np.arange(count), integer=True)
        for sensor, count in series
    )
    return Effects(index, EntryEffects(readings=columns))


async def test_a_watch_begins_now_filters_and_splits_with_the_index_last(api: Api) -> None:
    api.node.entries = [entry(8, ("b", 1)), entry(9, ("a", 150_000), ("b", 1)), entry(10, ("a", 2))]
    call = api.stream(f"{SERVICE}/Watch", reading_pb2.WatchRequest(sensor="a*"), reading_pb2.WatchResponse)
    start = await call.read()
    assert (start.index, start.progress) == (7, True)
    got: list[reading_pb2.WatchResponse] = []
    while not got or got[-1].index < 10:
        got.append(await call.read())
    assert [each.index for each in got] == [0] * (len(got) - 2) + [9, 10]
    assert len(got) > 3
    readings = [value for each in got[:-1] for columns in each.readings for value in columns.int_value]
    assert readings == list(range(150_000))
    assert {columns.sensor for each in got for columns in each.readings} == {"a"}
    assert api.node.watched_after == [7]
    call.cancel()
    while api.node.watches_open:
        await asyncio.sleep(0)


async def test_a_watch_resumes_behind_an_index_without_a_progress_before(api: Api) -> None:
    api.node.entries = [entry(4, ("a", 1))]
    request = reading_pb2.WatchRequest(after_index=0)
    call = api.stream(f"{SERVICE}/Watch", request, reading_pb2.WatchResponse)
    assert (await call.read()).index == 4
    assert api.node.watched_after == [0]
    call.cancel()


async def test_progress_says_how_far_a_watch_that_matches_nothing_has_looked(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.api.watching.PROGRESS_SECONDS", 0.01)
    api.node.entries = [entry(8, ("b", 1)), entry(9, ("b", 1))]
    call = api.stream(
        f"{SERVICE}/Watch", reading_pb2.WatchRequest(sensor="a", after_index=7), reading_pb2.WatchResponse
    )
    progress = await call.read()
    assert (progress.index, progress.progress, len(progress.readings)) == (9, True, 0)
    call.cancel()


async def test_a_watch_behind_what_is_kept_says_where_history_begins(api: Api) -> None:
    api.node.watch_error = errors.HistoryGone("index 2 is gone; the earliest kept is 4", 4)
    with pytest.raises(aio.AioRpcError) as caught:
        await api.collect(
            f"{SERVICE}/Watch", reading_pb2.WatchRequest(after_index=2), reading_pb2.WatchResponse
        )
    assert caught.value.code() is StatusCode.OUT_OF_RANGE
    assert reason_of(caught.value) == ("HISTORY_GONE", {"outcome": "NOT_APPLIED", "earliest_index": "4"})


async def test_a_watch_behind_what_is_not_there_yet_says_where_the_log_ends(api: Api) -> None:
    api.node.watch_error = errors.IndexNotReached("the log ends at index 3", 3)
    with pytest.raises(aio.AioRpcError) as caught:
        await api.collect(
            f"{SERVICE}/Watch", reading_pb2.WatchRequest(after_index=9), reading_pb2.WatchResponse
        )
    assert caught.value.code() is StatusCode.OUT_OF_RANGE
    assert reason_of(caught.value) == ("INDEX_NOT_REACHED", {"outcome": "NOT_APPLIED", "last_index": "3"})


async def test_series_are_listed_set_deleted_and_producers_asked(api: Api) -> None:
    api.node.state.series_list = [
        SeriesInfo("s", "m", True, "°C", {"room": "1"}, 5, 1, 9, 80),
        SeriesInfo("t", "m", None, "", {}, 0, None, None, 0),
    ]
    (response,) = await api.collect(
        f"{SERVICE}/ListSeries", reading_pb2.ListSeriesRequest(), reading_pb2.ListSeriesResponse
    )
    first, second = response.series
    assert (first.unit, dict(first.labels), first.reading_count, first.integer) == (
        "°C",
        {"room": "1"},
        5,
        True,
    )
    assert (second.reading_count, second.first_time_unix_nano) == (0, 0)

    request = reading_pb2.SetSeriesRequest(sensor="s", metric="m", unit="°C", labels={"room": "1"})
    await api.call(f"{SERVICE}/SetSeries", request, reading_pb2.SetSeriesResponse)
    assert api.node.operations[-1].set_series.labels["room"] == "1"

    api.node.outcomes = [Outcome(series_count=2)]
    deleted = await api.call(
        f"{SERVICE}/DeleteSeries",
        reading_pb2.DeleteSeriesRequest(sensor="s*", metric="*", producer_id="p", sequence=1),
        reading_pb2.DeleteSeriesResponse,
    )
    assert deleted.series_count == 2
    assert api.node.operations[-1].sequence == 1

    api.node.state.producers["p"] = 44
    producer = await api.call(
        f"{SERVICE}/GetProducer",
        reading_pb2.GetProducerRequest(producer_id="p"),
        reading_pb2.GetProducerResponse,
    )
    assert (producer.highest_sequence, producer.index) == (44, 7)
