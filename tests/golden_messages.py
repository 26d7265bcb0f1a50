"""Messages that are on disks or between nodes of different versions, each with bytes that never change.

`python -m tests.golden_messages` adds what is missing to data/messages.txt, a line each: the type, its bytes in hex,
and what they say. Lines that are there stay as they are: nodes and disks of older versions hold those bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from raftberry.internal.v1 import backup_pb2, command_pb2, peer_pb2
from raftberry.v1 import join_pb2

PATH: Final = Path(__file__).resolve().parent / "data" / "messages.txt"

FILES: Final = (command_pb2.DESCRIPTOR, peer_pb2.DESCRIPTOR, backup_pb2.DESCRIPTOR, join_pb2.DESCRIPTOR)
"""raftberry.v1.JoinResponse is kept in an intent on disk; the invites of a version are used with the next."""

TYPES: Final = {
    descriptor.full_name: descriptor for file in FILES for descriptor in file.message_types_by_name.values()
}


def read_lines() -> list[tuple[str, bytes, str]]:
    """(type, bytes, text) of each line."""
    lines = PATH.read_text().splitlines() if PATH.exists() else []
    split = [line.split(" ", 2) for line in lines if not line.startswith("#")]
    return [(name, bytes.fromhex(encoded.removeprefix("0x")), text) for name, encoded, text in split]


def parse(name: str, encoded: bytes) -> Message:
    return GetMessageClass(TYPES[name]).FromString(encoded)


def describe(message: Message) -> str:
    return text_format.MessageToString(message, as_one_line=True)


def fields_of(message: Message) -> Iterator[str]:
    """Full names of the fields that are set, of this message and of all in it."""
    for field, value in message.ListFields():
        yield field.full_name
        if field.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(field):
            for inner in value if field.is_repeated else [value]:
                yield from fields_of(inner)


def missing_fields() -> set[str]:
    """Of all messages, those that no line holds."""
    held = {field for name, encoded, _ in read_lines() for field in fields_of(parse(name, encoded))}
    return {field.full_name for descriptor in TYPES.values() for field in descriptor.fields} - held


def examples(descriptor: Descriptor) -> Iterator[Message]:
    """Messages that together hold every field: one for each alternative of the one oneof there may be."""
    groups = [one for one in descriptor.oneofs if not _is_optional(one)]
    assert len(groups) <= 1
    for chosen in groups[0].fields if groups else [None]:
        yield _fill(descriptor, chosen)


def _fill(descriptor: Descriptor, chosen: FieldDescriptor | None) -> Message:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        group = field.containing_oneof
        if group is not None and not _is_optional(group) and field is not (chosen or group.fields[0]):
            continue
        if _is_map(field):
            getattr(message, field.name)["key"] = "value"
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = _fill(field.message_type, None)
            target = getattr(message, field.name)
            (target.add() if field.is_repeated else target).MergeFrom(inner)
        elif field.is_repeated:
            getattr(message, field.name).extend([_value(field), _value(field)])
        else:
            setattr(message, field.name, _value(field))
    return message


def _value(field: FieldDescriptor) -> object:
    """Another one for each field of a message."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return field.name.encode() if field.type == FieldDescriptor.TYPE_BYTES else field.name
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_ENUM:
            return field.enum_type.values[-1].number
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return field.number + 0.5
        case _:
            return 1_000 + field.number


def _is_map(field: FieldDescriptor) -> bool:
    """All of ours are of strings."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_optional(group: OneofDescriptor) -> bool:
    """A field that is `optional` has a oneof of its own, which the language does not show."""
    return len(group.fields) == 1 and group.name.startswith("_")


def main() -> None:
    missing = missing_fields()
    with PATH.open("a") as file:
        for name, descriptor in TYPES.items():
            for message in examples(descriptor):
                own = {field.full_name for field, _ in message.ListFields()}
                if own & missing:
                    encoded = message.SerializeToString(deterministic=True).hex()
                    print(name, f"0x{encoded}", describe(message), file=file)


if __name__ == "__main__":
    main()
