"""From the state's and the node's values to messages. Pure functions, loop thread.

Invariant: columns of readings pass as bytes; a message is built for a series or a key, never for a reading.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from appliance.api.columns import pieces
from appliance.api.port import ConsensusEvent, NodeStatus, PeerStatus
from appliance.model import Member, Role, hex_id
from appliance.state import KeyEvent, KeyEventKind, KeyRecord, QueryChunk, SeriesInfo, SeriesLatest
from appliance.state.columns import CODEC_RAW, decode_columns
from raftberry.internal.v1 import command_pb2, wire_pb2
from raftberry.v1 import cluster_pb2, key_value_pb2, reading_pb2

_INTEGER: Final = struct.Struct("<q")
_FLOAT: Final = struct.Struct("<d")

_KEY_EVENT_KINDS: Final = {
    KeyEventKind.PUT: key_value_pb2.KeyValueEvent.KIND_PUT,
    KeyEventKind.DELETE: key_value_pb2.KeyValueEvent.KIND_DELETE,
    KeyEventKind.EXPIRE: key_value_pb2.KeyValueEvent.KIND_EXPIRE,
}

_ROLES: Final = {role: f"ROLE_{role.name}" for role in Role}

_STATUS_SCALARS: Final = tuple(
    descriptor.name
    for descriptor in cluster_pb2.GetStatusResponse.DESCRIPTOR.fields
    if descriptor.name not in ("role", "peers")
)


def latest_columns(latest: SeriesLatest) -> wire_pb2.ReadingsColumns:
    value = (_INTEGER if latest.integer else _FLOAT).pack(latest.value)
    (columns,) = pieces(
        latest.sensor, latest.metric, _INTEGER.pack(latest.time), value, integer=latest.integer
    )
    return columns


def series_columns(columns: command_pb2.SeriesColumns) -> Iterator[wire_pb2.ReadingsColumns]:
    """Readings as they stand in the log."""
    if columns.codec == CODEC_RAW:
        times, values = columns.times, columns.values
    else:
        decoded = decode_columns(columns)
        times, values = decoded.times.tobytes(), decoded.values.tobytes()
    return pieces(columns.sensor, columns.metric, times, values, integer=columns.integer)


def by_aggregation(
    chunks: Sequence[QueryChunk],
) -> Iterator[tuple[int, Iterator[wire_pb2.ReadingsColumns]]]:
    """Chunks in their order, grouped because a QueryResponse names one aggregation."""
    for aggregation, group in groupby(chunks, key=lambda chunk: chunk.aggregation):
        yield int(aggregation), _chunk_columns(group)


def _chunk_columns(chunks: Iterable[QueryChunk]) -> Iterator[wire_pb2.ReadingsColumns]:
    for chunk in chunks:
        times, values = chunk.times.tobytes(), chunk.values.tobytes()
        yield from pieces(chunk.sensor, chunk.metric, times, values, integer=chunk.integer)


def series_message(info: SeriesInfo) -> reading_pb2.Series:
    return reading_pb2.Series(
        sensor=info.sensor,
        metric=info.metric,
        unit=info.unit,
        labels=info.labels,
        reading_count=info.reading_count,
        first_time_unix_nano=info.first_time or 0,
        last_time_unix_nano=info.last_time or 0,
        size_bytes=info.size_bytes,
        integer=bool(info.integer),
    )


def key_value_message(record: KeyRecord | KeyEvent) -> key_value_pb2.KeyValue:
    return key_value_pb2.KeyValue(
        key=record.key,
        value=record.value,
        create_revision=record.create_revision,
        mod_revision=record.mod_revision,
        version=record.version,
        ttl_seconds=record.ttl_seconds,
    )


def key_event_message(event: KeyEvent) -> key_value_pb2.KeyValueEvent:
    return key_value_pb2.KeyValueEvent(kind=_KEY_EVENT_KINDS[event.kind], key_value=key_value_message(event))


def status_message(status: NodeStatus) -> cluster_pb2.GetStatusResponse:
    """The fields by their names: NodeStatus has each field of the response."""
    return cluster_pb2.GetStatusResponse(
        role=_ROLES[status.role],
        peers=[peer_message(peer) for peer in status.peers],
        **{name: getattr(status, name) for name in _STATUS_SCALARS},
    )


def peer_message(peer: PeerStatus) -> cluster_pb2.Peer:
    return cluster_pb2.Peer(
        name=peer.name,
        member_id=peer.member_id,
        number=peer.number,
        peer_address=peer.peer_address,
        connected=peer.connected,
        match_index=peer.match_index,
        heard_ms_ago=peer.heard_ms_ago,
        voter=peer.voter,
        refused=peer.refused,
    )


def member_message(member: Member, peers: Sequence[PeerStatus], *, own_name: str) -> cluster_pb2.Peer:
    """The replicated facts of a member, with what this node sees of it."""
    member_id = hex_id(member.member_id)
    seen = next((peer for peer in peers if peer.member_id == member_id), None)
    message = peer_message(seen) if seen else cluster_pb2.Peer(connected=member.name == own_name)
    message.name = member.name
    message.member_id = member_id
    message.number = member.number
    message.peer_address = member.peer_address
    message.voter = member.is_voter
    message.promote = member.is_promotable
    return message


def event_message(event: ConsensusEvent) -> cluster_pb2.ConsensusEvent:
    return cluster_pb2.ConsensusEvent(
        node=event.node,
        kind=event.kind,
        term=event.term,
        index=event.index,
        peer=event.peer,
        attributes=event.attributes,
        time_unix_nano=event.time_unix_nano,
        number=event.number,
    )
