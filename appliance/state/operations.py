"""Building and reading commands: one function per kind of operation, and the entry around them.

Invariant: an entry that this module encoded, this module decodes; format 1 is all there is.
Called where requests enter (any thread) and by the state machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.message import DecodeError

from appliance.errors import Fatal
from appliance.model import Member
from appliance.state.columns import decode_columns, encode_columns
from appliance.state.configuration import from_member
from raftberry.internal.v1 import command_pb2

COMMAND_FORMAT: Final = 1

__all__ = [
    "COMMAND_FORMAT",
    "decode_columns",
    "decode_command",
    "delete_key",
    "delete_series",
    "encode_columns",
    "encode_command",
    "expire_keys",
    "found_cluster",
    "put_key",
    "raise_feature_level",
    "set_series",
    "verify_state",
    "write_readings",
]


def encode_command(
    operations: Iterable[command_pb2.Operation], *, time_unix_nano: int, elapsed_nano: int
) -> bytes:
    """The bytes of a regular entry, without PySyncObj's type byte."""
    command = command_pb2.Command(
        format=COMMAND_FORMAT,
        time_unix_nano=time_unix_nano,
        elapsed_nano=elapsed_nano,
        operations=operations,
    )
    return command.SerializeToString()


def decode_command(index: int, command: bytes) -> command_pb2.Command:
    """Raises Fatal: a committed entry that cannot be read must not be passed over."""
    try:
        decoded = command_pb2.Command.FromString(command)
    except DecodeError as error:
        raise Fatal(
            f"log entry {index} ({len(command)} bytes) is no command: {error}; this node stops, it must "
            "be rebuilt from its peers"
        ) from error
    if decoded.format != COMMAND_FORMAT:
        raise Fatal(
            f"log entry {index} has command format {decoded.format}, this version knows {COMMAND_FORMAT}; "
            "start the version that wrote it, or a later one"
        )
    return decoded


def write_readings(
    columns: Iterable[command_pb2.SeriesColumns], *, producer_id: str = "", sequence: int = 0
) -> command_pb2.Operation:
    return command_pb2.Operation(
        write=command_pb2.WriteReadings(columns=columns), producer_id=producer_id, sequence=sequence
    )


def put_key(
    key: str,
    value: bytes,
    *,
    if_mod_revision: int | None = None,
    ttl_seconds: int = 0,
    producer_id: str = "",
    sequence: int = 0,
) -> command_pb2.Operation:
    return command_pb2.Operation(
        put=command_pb2.PutKey(
            key=key, value=value, if_mod_revision=if_mod_revision, ttl_seconds=ttl_seconds
        ),
        producer_id=producer_id,
        sequence=sequence,
    )


def delete_key(
    key: str, *, if_mod_revision: int | None = None, producer_id: str = "", sequence: int = 0
) -> command_pb2.Operation:
    return command_pb2.Operation(
        delete=command_pb2.DeleteKey(key=key, if_mod_revision=if_mod_revision),
        producer_id=producer_id,
        sequence=sequence,
    )


def expire_keys(due: Iterable[tuple[str, int]]) -> command_pb2.Operation:
    """due: what StateMachine.due_expirations gave."""
    pairs = list(due)
    return command_pb2.Operation(
        expire=command_pb2.ExpireKeys(
            keys=[key for key, _ in pairs], mod_revisions=[revision for _, revision in pairs]
        )
    )


def set_series(
    sensor: str,
    metric: str,
    *,
    unit: str,
    labels: Mapping[str, str],
    producer_id: str = "",
    sequence: int = 0,
) -> command_pb2.Operation:
    return command_pb2.Operation(
        set_series=command_pb2.SetSeriesAttributes(sensor=sensor, metric=metric, unit=unit, labels=labels),
        producer_id=producer_id,
        sequence=sequence,
    )


def delete_series(
    sensor: str, metric: str, *, producer_id: str = "", sequence: int = 0
) -> command_pb2.Operation:
    return command_pb2.Operation(
        delete_series=command_pb2.DeleteMatchingSeries(sensor=sensor, metric=metric),
        producer_id=producer_id,
        sequence=sequence,
    )


def verify_state() -> command_pb2.Operation:
    return command_pb2.Operation(verify_state=command_pb2.VerifyState())


def raise_feature_level(level: int) -> command_pb2.Operation:
    return command_pb2.Operation(raise_feature_level=command_pb2.RaiseFeatureLevel(level=level))


def found_cluster(members: Iterable[Member]) -> command_pb2.Operation:
    return command_pb2.Operation(found=command_pb2.FoundCluster(members=map(from_member, members)))
