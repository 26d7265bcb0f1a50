"""A watch that goes on through the next endpoint when its node is lost.

Invariant: what belongs to one log entry is handed out once and whole. Pieces of a split entry are held until
the piece that carries the index has come, because only that index can be resumed from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from appliance import errors
from appliance.client import failures
from appliance.client.connection import Connection, may_try_elsewhere
from appliance.client.methods import GET_STATUS, WATCH, WATCH_KEYS, Method
from raftberry.v1 import cluster_pb2, key_value_pb2, reading_pb2

WatchedResponse = TypeVar(
    "WatchedResponse", reading_pb2.WatchResponse, key_value_pb2.KeyValueServiceWatchResponse
)
WatchedRequest = TypeVar(
    "WatchedRequest", reading_pb2.WatchRequest, key_value_pb2.KeyValueServiceWatchRequest
)

PAUSE_S_MIN: Final = 0.05
PAUSE_S_MAX: Final = 1.0


def watch_readings(
    connection: Connection, request: reading_pb2.WatchRequest, *, on_trouble: Callable[[str], None]
) -> Iterator[list[reading_pb2.WatchResponse]]:
    """Messages of one log entry at a time, for ever. after_index 0: from the earliest that the node has kept."""
    return _watch(connection, WATCH, request, on_trouble)


def watch_keys(
    connection: Connection,
    request: key_value_pb2.KeyValueServiceWatchRequest,
    *,
    on_trouble: Callable[[str], None],
) -> Iterator[list[key_value_pb2.KeyValueServiceWatchResponse]]:
    """As watch_readings."""
    return _watch(connection, WATCH_KEYS, request, on_trouble)


def _watch(
    connection: Connection,
    method: Method[WatchedRequest, WatchedResponse],
    request: WatchedRequest,
    on_trouble: Callable[[str], None],
) -> Iterator[list[WatchedResponse]]:
    is_from_now = not request.HasField("after_index")
    if is_from_now or request.after_index == 0:
        # Settled once, or what comes while the watch changes nodes would be missed.
        status = connection.call(GET_STATUS, cluster_pb2.GetStatusRequest())
        request.after_index = status.applied_index if is_from_now else status.earliest_index
    pause_s = PAUSE_S_MIN
    while True:
        endpoint = connection.in_order()[0]
        try:
            held: list[WatchedResponse] = []
            for response in connection.stream_at(endpoint, method, request):
                pause_s = PAUSE_S_MIN
                if not response.progress:
                    held.append(response)
                if response.index:
                    request.after_index = response.index
                    if held:
                        yield held
                        held = []
            raise failures.Unfinished(f"{endpoint}: the watch ended")
        except errors.RaftberryError as error:
            if not may_try_elsewhere(error, is_repeatable=True):
                raise
            on_trouble(f"{error}; resuming behind index {request.after_index}")
            connection.prefer_after(endpoint)
            time.sleep(pause_s)
            pause_s = min(PAUSE_S_MAX, pause_s * 2)
