"""A cluster in memory behind real gRPC ports, for tests of the client and the commands.

It keeps readings, keys and producers of raftberry.v1 in dictionaries that all its nodes share, and misbehaves
where a test asks for it. It says nothing about consensus.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from raftberry.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    key_value_pb2,
    key_value_pb2_grpc,
    reading_pb2,
    reading_pb2_grpc,
)


def rich_status(
    code: grpc.StatusCode, message: str, *, reason: str, metadata: dict[str, str]
) -> status_pb2.Status:
    """A google.rpc.Status with ErrorInfo, as a node sends it."""
    detail = AnyMessage()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="raftberry.v1", metadata=metadata))
    return status_pb2.Status(code=code.value[0], message=message, details=[detail])


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str, **info: Any) -> None:
    """End the call with a rich status."""
    status = rich_status(
        code,
        message,
        reason=info.pop("reason", ""),
        metadata={key: str(value) for key, value in info.items()},
    )
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def invalid(context: grpc.ServicerContext, field: str, complaint: str) -> None:
    """End the call as a node does that finds a field of the request wrong."""
    detail = AnyMessage()
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=complaint)
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    code, message = grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {complaint}"
    status = status_pb2.Status(code=code.value[0], message=message, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class Memory:
    """What the nodes of one fake cluster share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.index = 10
        self.earliest = 1
        self.series: dict[tuple[str, str], dict[int, float]] = {}
        self.keys: dict[str, key_value_pb2.KeyValue] = {}
        self.producers: dict[str, set[int]] = {}
        self.log: list[tuple[int, list[reading_pb2.Readings]]] = []
        self.leader = "node-1"

    def write(self, request: reading_pb2.WriteRequest | reading_pb2.StreamWriteRequest) -> bool:
        """Whether it was a duplicate."""
        with self.lock:
            seen = self.producers.setdefault(request.producer_id, set()) if request.producer_id else set()
            if request.sequence in seen:
                return True
            if request.producer_id:
                seen.add(request.sequence)
            self.index += 1
            for readings in request.readings:
                values = readings.int_value or readings.value
                times = readings.time_unix_nano or [self.index]
                series = self.series.setdefault((readings.sensor, readings.metric), {})
                series.update(zip(times, values, strict=True))
            self.log.append((self.index, list(request.readings)))
            return False


Misbehaviour = Callable[[str, Any, grpc.ServicerContext], None]
"""(method, request, context): may abort the call."""


class FakeNode(
    reading_pb2_grpc.ReadingServiceServicer,
    key_value_pb2_grpc.KeyValueServiceServicer,
    cluster_pb2_grpc.ClusterServiceServicer,
):
    """One node on a port of its own."""

    def __init__(self, name: str, memory: Memory, *, port: int = 0) -> None:
        self.name = name
        self.memory = memory
        self.misbehave: Misbehaviour = lambda method, request, context: None
        self.calls: list[str] = []
        self.server = grpc.server(ThreadPoolExecutor(max_workers=8))
        reading_pb2_grpc.add_ReadingServiceServicer_to_server(self, self.server)
        key_value_pb2_grpc.add_KeyValueServiceServicer_to_server(_KeyValues(self), self.server)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port(f'127.0.0.1:{port}')}"
        self.server.start()

    def stop(self) -> None:
        self.server.stop(None).wait()

    def enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self.calls.append(method)
        self.misbehave(method, request, context)

    def Write(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.enter("Write", request, context)
        duplicate = self.memory.write(request)
        return reading_pb2.WriteResponse(index=self.memory.index, term=1, duplicate=duplicate)

    def StreamWrite(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            self.enter("StreamWrite", request, context)
            duplicate = self.memory.write(request)
            yield reading_pb2.StreamWriteResponse(
                sequence=request.sequence, index=self.memory.index, term=1, duplicate=duplicate
            )

    def GetLatest(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.enter("GetLatest", request, context)
        for (sensor, metric), series in self._matching(request):
            last = max(series)
            one = reading_pb2.Readings(
                sensor=sensor, metric=metric, time_unix_nano=[last], value=[series[last]]
            )
            yield reading_pb2.GetLatestResponse(readings=[one], index=self.memory.index)

    def Query(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.enter("Query", request, context)
        for (sensor, metric), series in self._matching(request):
            start = request.start_time_unix_nano
            for part in _parts({time: value for time, value in series.items() if time >= start}):
                one = reading_pb2.Readings(sensor=sensor, metric=metric)
                one.time_unix_nano.extend(time for time, _ in part)
                one.value.extend(value for _, value in part)
                yield reading_pb2.QueryResponse(readings=[one], index=self.memory.index)

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.enter("Watch", request, context)
        if request.after_index < self.memory.earliest:
            abort(
                context, grpc.StatusCode.OUT_OF_RANGE, f"the log behind index {request.after_index} was trimmed",
                reason="HISTORY_GONE", outcome="NOT_APPLIED", earliest_index=self.memory.earliest,
            )  # fmt: skip
        for index, readings in list(self.memory.log):
            if index > request.after_index:
                for number, one in enumerate(readings, start=1):
                    is_last = number == len(readings)
                    yield reading_pb2.WatchResponse(index=index if is_last else 0, readings=[one])
                    self.enter("WatchPart", one, context)

    def ListSeries(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.enter("ListSeries", request, context)
        found = [
            reading_pb2.Series(
                sensor=sensor, metric=metric, reading_count=len(series),
                first_time_unix_nano=min(series), last_time_unix_nano=max(series), size_bytes=2048,
                labels={"floor": "1"},
            )
            for (sensor, metric), series in self._matching(request)
        ]  # fmt: skip
        yield reading_pb2.ListSeriesResponse(series=found, index=self.memory.index)

    def SetSeries(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.enter("SetSeries", request, context)
        return reading_pb2.SetSeriesResponse(index=self.memory.index, term=1)

    def DeleteSeries(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.enter("DeleteSeries", request, context)
        names = [names for names, _ in self._matching(request)]
        for each in names:
            del self.memory.series[each]
        return reading_pb2.DeleteSeriesResponse(series_count=len(names), index=self.memory.index)

    def GetProducer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.enter("GetProducer", request, context)
        highest = max(self.memory.producers.get(request.producer_id, ()), default=0)
        return reading_pb2.GetProducerResponse(highest_sequence=highest)

    def GetStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.enter("GetStatus", request, context)
        is_leader = self.memory.leader == self.name
        peers = [
            cluster_pb2.Peer(
                name=name, peer_address=f"{name}:7441", connected=name != "node-9", voter=True,
                match_index=self.memory.index - 2,
            )
            for name in ("node-1", "node-2", "node-9")
        ]  # fmt: skip
        return cluster_pb2.GetStatusResponse(
            name=self.name,
            leader=self.memory.leader,
            role=cluster_pb2.ROLE_LEADER if is_leader else cluster_pb2.ROLE_FOLLOWER,
            term=3,
            applied_index=self.memory.index,
            last_index=self.memory.index,
            durable_index=self.memory.index,
            earliest_index=self.memory.earliest,
            has_quorum=bool(self.memory.leader),
            alarms=[] if self.memory.leader else ["waiting for the other founders"],
            peers=peers if is_leader else [],
            readings_per_second=12.5,
            store_size_bytes=3 << 20,
            written_bytes=5 << 30,
            written_bytes_per_day=1 << 30,
            card_life_used_percent=20,
            scrubbed_unix_nano=1_790_000_000 * 10**9,
        )

    def ListMembers(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.enter("ListMembers", request, context)
        first = cluster_pb2.Peer(name="node-1", member_id="00000000000000ff", number=1, voter=True)
        second = cluster_pb2.Peer(name="node-2", member_id="00000000000000aa", number=2, voter=True)
        return cluster_pb2.ListMembersResponse(members=[second, first] if self.memory.leader else [])

    def TransferLeadership(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.enter("TransferLeadership", request, context)
        self.memory.leader = request.target or "node-2"
        return cluster_pb2.TransferLeadershipResponse(leader=self.memory.leader, term=4)

    def _matching(self, request: Any) -> list[tuple[tuple[str, str], dict[int, float]]]:
        patterns = request.sensor or "*", request.metric or "*"
        return sorted(
            (names, series)
            for names, series in self.memory.series.items()
            if all(fnmatch.fnmatchcase(name, glob) for name, glob in zip(names, patterns, strict=True))
        )


class _KeyValues(key_value_pb2_grpc.KeyValueServiceServicer):
    """Put, Get, Delete, List of one fake node; apart, because Watch is also a method of ReadingService."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node

    def Put(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.node.enter("Put", request, context)
        memory = self.node.memory
        with memory.lock:
            held = memory.keys.get(request.key)
            revision = held.mod_revision if held else 0
            if request.HasField("if_mod_revision") and request.if_mod_revision != revision:
                abort(
                    context, grpc.StatusCode.FAILED_PRECONDITION, f"{request.key}: its revision is {revision}",
                    reason="CONDITION_FAILED", outcome="NOT_APPLIED",
                )  # fmt: skip
            memory.index += 1
            memory.keys[request.key] = key_value_pb2.KeyValue(
                key=request.key, value=request.value, mod_revision=revision + 1, version=revision + 1
            )
            return key_value_pb2.PutResponse(index=memory.index, term=1, mod_revision=revision + 1)

    def Get(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.node.enter("Get", request, context)
        if request.key not in self.node.memory.keys:
            abort(context, grpc.StatusCode.NOT_FOUND, f"{request.key}: no such key", reason="NOT_FOUND")
        return key_value_pb2.GetResponse(key_value=self.node.memory.keys[request.key])

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.node.enter("Delete", request, context)
        return key_value_pb2.DeleteResponse(deleted=self.node.memory.keys.pop(request.key, None) is not None)

    def List(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.node.enter("List", request, context)
        keys = sorted(key for key in self.node.memory.keys if key.startswith(request.prefix))
        yield key_value_pb2.ListResponse(key_values=[self.node.memory.keys[key] for key in keys])


def _parts(series: dict[int, float]) -> Iterator[list[tuple[int, float]]]:
    """A result in several messages, as a node sends it."""
    rows = sorted(series.items())
    for start in range(0, len(rows), 700):
        yield rows[start : start + 700]
