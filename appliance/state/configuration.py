"""A configuration's two durable forms: an entry of the log, and a record of the checkpoint.

Invariant: what is encoded here is decoded here, the same; an entry is told from all others by its first byte.
Pure functions.

    entry   CONFIGURATION, then the message Configuration, format 1
    record  in table meta under 'configuration': 1 (format), >QQQ version, index, last number, >Q each removed id;
            the members are in their own table
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from appliance.errors import CorruptData, Fatal, WrittenByNewer
from appliance.model import CONFIGURATION, Configuration, Member, MemberId
from raftberry.internal.v1 import command_pb2

CONFIGURATION_FORMAT: Final = 1
CONFIGURATION_KEY: Final = b"configuration"

_RECORD: Final = struct.Struct(">QQQ")
_ID_BYTES: Final = 8


def encode_configuration(configuration: Configuration) -> bytes:
    """The entry's command, type byte included. index is not in it: it is the entry's."""
    return CONFIGURATION + to_message(configuration).SerializeToString(deterministic=True)


def decode_configuration(index: int, command: bytes) -> Configuration:
    """command: of the entry at index, type byte included. Raises Fatal: it can't be passed over."""
    try:
        message = command_pb2.Configuration.FromString(command[1:])
    except DecodeError as error:
        raise Fatal(
            f"log entry {index} ({len(command)} bytes) is no configuration: {error}; this node stops, it must be "
            "rebuilt from its peers"
        ) from error
    if message.format != CONFIGURATION_FORMAT:
        raise Fatal(
            f"log entry {index} has configuration format {message.format}, this version knows {CONFIGURATION_FORMAT}; "
            "start the version that wrote it, or a later one"
        )
    return from_message(message, index)


def to_message(configuration: Configuration) -> command_pb2.Configuration:
    return command_pb2.Configuration(
        format=CONFIGURATION_FORMAT,
        version=configuration.version,
        members=map(from_member, configuration.members),
        removed=configuration.removed,
        last_number=configuration.last_number,
    )


def from_message(message: command_pb2.Configuration, index: int) -> Configuration:
    return Configuration(
        version=message.version,
        members=tuple(map(to_member, message.members)),
        removed=tuple(map(MemberId, message.removed)),
        last_number=message.last_number,
        index=index,
    )


def founding_configuration(members: Iterable[Member], *, index: int = 0) -> Configuration:
    """What the founders begin with: version 1."""
    ordered = tuple(sorted(members, key=lambda member: member.member_id))
    last_number = max((member.number for member in ordered), default=0)
    return Configuration(1, ordered, (), last_number, index)


def encode_record(configuration: Configuration) -> bytes:
    """Without the members."""
    fixed = _RECORD.pack(configuration.version, configuration.index, configuration.last_number)
    removed = b"".join(member_id.to_bytes(_ID_BYTES, "big") for member_id in configuration.removed)
    return bytes([CONFIGURATION_FORMAT]) + fixed + removed


def decode_record(record: bytes | None, members: tuple[Member, ...]) -> Configuration:
    """None: a store without the record has the founders, or nothing yet."""
    if record is None:
        return founding_configuration(members) if members else Configuration()
    where = "store meta configuration"
    if record[:1] != bytes([CONFIGURATION_FORMAT]):
        raise WrittenByNewer(
            f"{where}: format {record[:1].hex()} is newer than this version knows ({CONFIGURATION_FORMAT}); start the "
            "version that wrote it, or a later one"
        )
    start = 1 + _RECORD.size
    if len(record) < start or (len(record) - start) % _ID_BYTES:
        raise CorruptData(where, f"{len(record)} bytes are none; rebuild this node from its peers")
    version, index, last_number = _RECORD.unpack_from(record, 1)
    removed = tuple(
        MemberId(int.from_bytes(record[place : place + _ID_BYTES], "big"))
        for place in range(start, len(record), _ID_BYTES)
    )
    return Configuration(version, members, removed, last_number, index)


def from_member(member: Member) -> command_pb2.Member:
    return command_pb2.Member(
        member_id=member.member_id,
        name=member.name,
        number=member.number,
        peer_address=member.peer_address,
        voter=member.is_voter,
        promote=member.is_promotable,
    )


def to_member(message: command_pb2.Member) -> Member:
    return Member(
        member_id=MemberId(message.member_id),
        name=message.name,
        number=message.number,
        peer_address=message.peer_address,
        is_voter=message.voter,
        is_promotable=message.promote,
    )
