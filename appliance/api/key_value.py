"""raftberry.v1.KeyValueService: the small replicated map.

Invariant: validation happens before the node is asked for anything. Loop thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from google.protobuf.message import Message

from appliance.api import convert, validate
from appliance.api.access import present_caller
from appliance.api.calls import Context, Handlers, deadline_ns, message_stream, server_stream, unary
from appliance.api.columns import grouped
from appliance.api.port import AppliedEffects, Node
from appliance.api.slices import ITEMS_PER_MESSAGE
from appliance.api.watching import FanOut, KeyFilter, Responses, run_watch
from appliance.errors import NotFound
from appliance.node.scan import capture
from raftberry.internal.v1 import command_pb2
from raftberry.v1 import key_value_pb2

SERVICE = key_value_pb2.DESCRIPTOR.services_by_name["KeyValueService"].full_name


class KeyValueService:
    """One instance serves all calls."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._fan_out = FanOut()

    def handlers(self) -> Handlers:
        return {
            "Put": unary(self.Put, key_value_pb2.PutRequest),
            "Get": unary(self.Get, key_value_pb2.GetRequest),
            "Delete": unary(self.Delete, key_value_pb2.DeleteRequest),
            "List": server_stream(self.List, key_value_pb2.ListRequest),
            "Watch": message_stream(self.Watch, key_value_pb2.KeyValueServiceWatchRequest),
        }

    async def Put(self, request: key_value_pb2.PutRequest, context: Context) -> key_value_pb2.PutResponse:
        operation = command_pb2.Operation(
            producer_id=validate.producer(request.producer_id, request.sequence),
            sequence=request.sequence,
            put=command_pb2.PutKey(
                key=validate.name("key", request.key),
                value=validate.value("value", request.value),
                if_mod_revision=request.if_mod_revision if request.HasField("if_mod_revision") else None,
                ttl_seconds=validate.ttl_seconds(request.ttl_seconds),
            ),
        )
        present_caller().check_key_write(operation.put.key)
        outcome = await self._node.write(operation, deadline_ns=deadline_ns(context))
        return key_value_pb2.PutResponse(
            index=outcome.index,
            term=outcome.term,
            duplicate=outcome.duplicate,
            mod_revision=outcome.mod_revision,
        )

    async def Get(self, request: key_value_pb2.GetRequest, context: Context) -> key_value_pb2.GetResponse:
        key = validate.name("key", request.key)
        present_caller().check_key_read(key)
        consistency = validate.consistency(request.consistency)
        await self._node.read_barrier(consistency, deadline_ns=deadline_ns(context))
        state = self._node.state
        record = state.key(key)
        if record is None:
            raise NotFound(f"key {key!r} does not exist at index {state.position.index}")
        return key_value_pb2.GetResponse(
            key_value=convert.key_value_message(record), index=state.position.index, term=state.position.term
        )

    async def Delete(
        self, request: key_value_pb2.DeleteRequest, context: Context
    ) -> key_value_pb2.DeleteResponse:
        operation = command_pb2.Operation(
            producer_id=validate.producer(request.producer_id, request.sequence),
            sequence=request.sequence,
            delete=command_pb2.DeleteKey(
                key=validate.name("key", request.key),
                if_mod_revision=request.if_mod_revision if request.HasField("if_mod_revision") else None,
            ),
        )
        present_caller().check_key_write(operation.delete.key)
        outcome = await self._node.write(operation, deadline_ns=deadline_ns(context))
        return key_value_pb2.DeleteResponse(
            index=outcome.index, term=outcome.term, duplicate=outcome.duplicate, deleted=outcome.deleted
        )

    async def List(
        self, request: key_value_pb2.ListRequest, context: Context
    ) -> AsyncIterator[key_value_pb2.ListResponse]:
        prefix = validate.prefix("prefix", request.prefix)
        is_visible = present_caller().check_keys_read()
        consistency = validate.consistency(request.consistency)
        await self._node.read_barrier(consistency, deadline_ns=deadline_ns(context))
        # Without an await in between, so that the keys are those of exactly this position.
        position, keys = (
            self._node.state.position,
            self._node.state.begin_keys(prefix, request.limit, is_visible),
        )
        await capture(keys)
        is_empty = True
        for group in grouped(map(convert.key_value_message, keys.results()), ITEMS_PER_MESSAGE):
            is_empty = False
            yield key_value_pb2.ListResponse(key_values=group, index=position.index, term=position.term)
        if is_empty:
            yield key_value_pb2.ListResponse(index=position.index, term=position.term)

    async def Watch(self, request: key_value_pb2.KeyValueServiceWatchRequest, context: Context) -> None:
        is_wanted = visible_key_filter(request)

        def make(applied: AppliedEffects) -> Sequence[Message]:
            return key_messages(applied, is_wanted)

        responses: Responses = make
        if not present_caller().is_limited:
            responses = self._fan_out.shared((request.key, request.is_prefix), make)
        after_index = request.after_index if request.HasField("after_index") else None
        await run_watch(
            self._node, context, after_index=after_index, responses=responses, progress=_watch_progress
        )


def key_filter(request: key_value_pb2.KeyValueServiceWatchRequest) -> KeyFilter:
    """Which keys a watch wants: one, or all that begin with the prefix (empty: all)."""
    if request.is_prefix:
        prefix = validate.prefix("key", request.key)
        return lambda key: key.startswith(prefix)
    wanted = validate.name("key", request.key)
    return lambda key: key == wanted


def visible_key_filter(request: key_value_pb2.KeyValueServiceWatchRequest) -> KeyFilter:
    """The same, without what the caller may not read; one key that it may not read is refused."""
    is_wanted = key_filter(request)
    if not request.is_prefix:
        present_caller().check_key_read(request.key)
        return is_wanted
    is_visible = present_caller().check_keys_read()
    if is_visible is None:
        return is_wanted
    return lambda key: is_wanted(key) and is_visible(key)


def key_messages(
    applied: AppliedEffects, is_wanted: KeyFilter
) -> list[key_value_pb2.KeyValueServiceWatchResponse]:
    """What a watcher is told of one entry; only the last message has the index."""
    events = (
        convert.key_event_message(event) for event in applied.effects.key_events if is_wanted(event.key)
    )
    messages = [key_value_pb2.KeyValueServiceWatchResponse(events=group) for group in grouped(events)]
    if messages:
        messages[-1].index = applied.index
    return messages


def _watch_progress(index: int) -> key_value_pb2.KeyValueServiceWatchResponse:
    return key_value_pb2.KeyValueServiceWatchResponse(index=index, progress=True)
