"""raftberry.v1.ReadingService: readings in, readings out.

Invariant: validation happens before the node is asked for anything. Loop thread; the life of a Write:
1. its bytes become an Operation (write_request.py), 2. the node commits it, 3. the outcome becomes the response.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace

from google.protobuf.message import Message

from appliance.api import convert, validate
from appliance.api.access import check_write, present_caller
from appliance.api.calls import (
    Context,
    Handlers,
    deadline_ns,
    immediate,
    immediate_stream,
    message_stream,
    server_stream,
    unary,
)
from appliance.api.columns import grouped
from appliance.api.port import AppliedEffects, Node
from appliance.api.slices import in_slices
from appliance.api.stream_write import StreamWriter
from appliance.api.watching import FanOut, SeriesFilter, run_watch, series_filter
from appliance.api.write_request import write_operation
from appliance.node.outcome import Tell, WriteOutcome
from appliance.state import Aggregation, QuerySpec
from raftberry.internal.v1 import command_pb2, wire_pb2
from raftberry.v1 import reading_pb2

SERVICE = reading_pb2.DESCRIPTOR.services_by_name["ReadingService"].full_name


class ReadingService:
    """One instance serves all calls."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._fan_out = FanOut()

    def handlers(self) -> Handlers:
        return {
            "Write": immediate(self.begin_write, _write_response),
            "StreamWrite": immediate_stream(self.begin_stream_write),
            "GetLatest": server_stream(self.GetLatest, reading_pb2.GetLatestRequest),
            "Query": server_stream(self.Query, reading_pb2.QueryRequest),
            "Watch": message_stream(self.Watch, reading_pb2.WatchRequest),
            "ListSeries": server_stream(self.ListSeries, reading_pb2.ListSeriesRequest),
            "SetSeries": unary(self.SetSeries, reading_pb2.SetSeriesRequest),
            "DeleteSeries": unary(self.DeleteSeries, reading_pb2.DeleteSeriesRequest),
            "GetProducer": unary(self.GetProducer, reading_pb2.GetProducerRequest),
        }

    def begin_write(self, raw: bytes, context: Context, tell: Tell) -> None:
        operation = write_operation(raw, self._node.wall_ns)
        check_write(present_caller(), operation)
        self._node.submit(operation, tell, deadline_ns=deadline_ns(context))

    def begin_stream_write(self, context: Context, fail: Callable[[Exception], None]) -> None:
        StreamWriter(self._node, context, fail).start()

    async def GetLatest(
        self, request: reading_pb2.GetLatestRequest, context: Context
    ) -> AsyncIterator[wire_pb2.ReadingsResponseColumns]:
        sensor = validate.pattern("sensor", request.sensor)
        metric = validate.pattern("metric", request.metric)
        is_visible = present_caller().check_read(sensor, metric)
        await self._barrier(request.consistency, context)
        with await self._node.room_to_list(sensor, metric) as share:
            # Without an await in between, so that the readings are those of exactly this position.
            position, latest = (
                self._node.state.position,
                self._node.state.begin_latest(sensor, metric, is_visible),
            )
            async for group in in_slices(latest, convert.latest_columns, share):
                yield wire_pb2.ReadingsResponseColumns(
                    readings=group, index=position.index, term=position.term
                )

    async def Query(
        self, request: reading_pb2.QueryRequest, context: Context
    ) -> AsyncIterator[wire_pb2.ReadingsResponseColumns]:
        spec = query_spec(request)
        spec = replace(spec, is_visible=present_caller().check_read(spec.sensor, spec.metric))
        await self._barrier(request.consistency, context)
        result = await self._node.query(spec)
        position = result.position
        is_empty = True
        try:
            async for chunks in result:
                for aggregation, columns in convert.by_aggregation(chunks):
                    for group in grouped(columns):
                        is_empty = False
                        yield wire_pb2.ReadingsResponseColumns(
                            readings=group, index=position.index, term=position.term, aggregation=aggregation
                        )
        finally:
            await result.aclose()
        if is_empty:
            yield wire_pb2.ReadingsResponseColumns(index=position.index, term=position.term)

    async def Watch(self, request: reading_pb2.WatchRequest, context: Context) -> None:
        sensor = validate.pattern("sensor", request.sensor)
        metric = validate.pattern("metric", request.metric)
        is_visible = present_caller().check_read(sensor, metric)
        is_wanted = series_filter(sensor, metric, is_visible=is_visible)

        def make(applied: AppliedEffects) -> Sequence[Message]:
            return reading_messages(applied, is_wanted)

        responses = self._fan_out.shared((sensor, metric), make) if is_visible is None else make
        after_index = request.after_index if request.HasField("after_index") else None
        await run_watch(
            self._node, context, after_index=after_index, responses=responses, progress=_watch_progress
        )

    async def ListSeries(
        self, request: reading_pb2.ListSeriesRequest, context: Context
    ) -> AsyncIterator[reading_pb2.ListSeriesResponse]:
        sensor = validate.pattern("sensor", request.sensor)
        metric = validate.pattern("metric", request.metric)
        is_visible = present_caller().check_read(sensor, metric)
        await self._barrier(request.consistency, context)
        with await self._node.room_to_list(sensor, metric) as share:
            position, series = (
                self._node.state.position,
                self._node.state.begin_series(sensor, metric, is_visible),
            )
            async for group in in_slices(series, convert.series_message, share):
                yield reading_pb2.ListSeriesResponse(series=group, index=position.index, term=position.term)

    async def SetSeries(
        self, request: reading_pb2.SetSeriesRequest, context: Context
    ) -> reading_pb2.SetSeriesResponse:
        validate.attributes(request.unit, request.labels)
        attributes = command_pb2.SetSeriesAttributes(
            sensor=validate.name("sensor", request.sensor),
            metric=validate.name("metric", request.metric),
            unit=request.unit,
            labels=request.labels,
        )
        present_caller().check_write(attributes.sensor, attributes.metric)
        operation = command_pb2.Operation(
            producer_id=validate.producer(request.producer_id, request.sequence),
            sequence=request.sequence,
            set_series=attributes,
        )
        outcome = await self._node.write(operation, deadline_ns=deadline_ns(context))
        return reading_pb2.SetSeriesResponse(
            index=outcome.index, term=outcome.term, duplicate=outcome.duplicate
        )

    async def DeleteSeries(
        self, request: reading_pb2.DeleteSeriesRequest, context: Context
    ) -> reading_pb2.DeleteSeriesResponse:
        matching = command_pb2.DeleteMatchingSeries(
            sensor=validate.required_pattern("sensor", request.sensor),
            metric=validate.required_pattern("metric", request.metric),
        )
        operation = command_pb2.Operation(
            producer_id=validate.producer(request.producer_id, request.sequence),
            sequence=request.sequence,
            delete_series=matching,
        )
        outcome = await self._node.write(operation, deadline_ns=deadline_ns(context))
        return reading_pb2.DeleteSeriesResponse(
            index=outcome.index,
            term=outcome.term,
            duplicate=outcome.duplicate,
            series_count=outcome.series_count,
        )

    async def GetProducer(
        self, request: reading_pb2.GetProducerRequest, context: Context
    ) -> reading_pb2.GetProducerResponse:
        producer_id = validate.name("producer_id", request.producer_id)
        await self._barrier(request.consistency, context)
        position = self._node.state.position
        return reading_pb2.GetProducerResponse(
            highest_sequence=self._node.state.producer_highest(producer_id),
            index=position.index,
            term=position.term,
        )

    async def _barrier(self, consistency: int, context: Context) -> None:
        await self._node.read_barrier(validate.consistency(consistency), deadline_ns=deadline_ns(context))


def _write_response(outcome: WriteOutcome) -> reading_pb2.WriteResponse:
    return reading_pb2.WriteResponse(index=outcome.index, term=outcome.term, duplicate=outcome.duplicate)


def query_spec(request: reading_pb2.QueryRequest) -> QuerySpec:
    """The checked form of a query; unset ends of the range are None."""
    start = request.start_time_unix_nano if request.HasField("start_time_unix_nano") else None
    end = request.end_time_unix_nano if request.HasField("end_time_unix_nano") else None
    validate.time_range(start, end)
    validate.consistency(request.consistency)
    aggregations = validate.aggregations(
        request.aggregations, quantile=request.quantile, step_nano=request.step_nano
    )
    return QuerySpec(
        sensor=validate.pattern("sensor", request.sensor),
        metric=validate.pattern("metric", request.metric),
        start=start,
        end=end,
        limit=request.limit,
        descending=request.descending,
        aggregations=tuple(map(Aggregation, aggregations)),
        quantile=request.quantile,
        step_ns=request.step_nano,
    )


def reading_messages(applied: AppliedEffects, is_wanted: SeriesFilter) -> list[wire_pb2.WatchResponseColumns]:
    """What a watcher is told of one entry; only the last message has the index."""

    def columns() -> Iterator[wire_pb2.ReadingsColumns]:
        for readings in applied.effects.readings:
            if is_wanted(readings.sensor, readings.metric):
                yield from convert.series_columns(readings)

    messages = [wire_pb2.WatchResponseColumns(readings=group) for group in grouped(columns())]
    if messages:
        messages[-1].index = applied.index
    return messages


def _watch_progress(index: int) -> wire_pb2.WatchResponseColumns:
    return wire_pb2.WatchResponseColumns(index=index, progress=True)
