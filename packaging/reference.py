"""Prints docs/api.md from proto/, so that the page cannot say anything else. Called by script/generate-docs.

What clients call, raftberry.v1; nodes' own messages are left out. Comments are those of the files.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import google.rpc
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

ROOT: Final = Path(__file__).resolve().parents[1]
PROTO: Final = ROOT / "proto"
PACKAGE: Final = ".raftberry.v1."

LEAD: Final = """\
# API reference

Made from [proto/](../proto) by `script/generate-docs`; don't edit it here. How to call it: [sensors.md](sensors.md).
What errors carry: [README](../README.md#errors). Who may call what: [security.md](security.md).
"""

_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}
_SERVICE, _MESSAGE, _ENUM = 6, 4, 5
"""Field numbers of FileDescriptorProto, of which the paths of comments are made."""


def main() -> None:
    sys.stdout.write(render())


def render() -> str:
    """The page."""
    return "\n".join([LEAD, *(line for file in read_files() for line in describe(file))])


def read_files() -> list[FileDescriptorProto]:
    """What protoc makes of the files, with their comments."""
    names = sorted(path.relative_to(PROTO).as_posix() for path in (PROTO / "raftberry/v1").glob("*.proto"))
    shared = Path(next(iter(google.rpc.__path__))).parents[1]
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        includes = [f"-I{path}" for path in (PROTO, shared, well_known)]
        status = protoc.main(
            ["protoc", *includes, "--include_source_info", f"--descriptor_set_out={out}", *names]
        )
        assert status == 0, "protoc refuses the files of proto/"
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def describe(file: FileDescriptorProto) -> Iterator[str]:
    """Services, then messages, then enumerations of one file."""
    comments = {
        tuple(location.path): location.leading_comments.strip() or location.trailing_comments.strip()
        for location in file.source_code_info.location
    }
    yield f"\n## {file.name}\n"
    for at, service in enumerate(file.service):
        yield f"### {service.name}\n"
        yield from paragraph(comments.get((_SERVICE, at), ""))
        yield "| method | takes | answers | |\n|---|---|---|---|"
        for number, method in enumerate(service.method):
            yield method_row(method, comments.get((_SERVICE, at, 2, number), ""))
        yield ""
    for at, message in enumerate(file.message_type):
        yield from describe_message(message, (_MESSAGE, at), comments)
    for at, enum in enumerate(file.enum_type):
        yield from describe_enum(enum, (_ENUM, at), comments)


def method_row(method: MethodDescriptorProto, comment: str) -> str:
    takes = f"{'stream of ' if method.client_streaming else ''}{linked(method.input_type)}"
    answers = f"{'stream of ' if method.server_streaming else ''}{linked(method.output_type)}"
    return f"| `{method.name}` | {takes} | {answers} | {one_line(comment)} |"


def describe_message(
    message: DescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> Iterator[str]:
    yield f"### {message.name}\n"
    yield from paragraph(comments.get(path, ""))
    if not message.field:
        yield "No fields.\n"
        return
    yield "| field | type | |\n|---|---|---|"
    entries = {f"{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    for at, field in enumerate(message.field):
        comment = comments.get((*path, 2, at), "")
        yield f"| `{field.name}` = {field.number} | {type_of(field, entries)} | {one_line(comment)} |"
    yield ""
    for at, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from describe_message(nested, (*path, 3, at), comments)
    for at, enum in enumerate(message.enum_type):
        yield from describe_enum(enum, (*path, 4, at), comments)


def type_of(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = (type_of(one, {}) for one in entry.field)
        return f"map of {key} to {value}"
    named = linked(field.type_name) if field.type_name else f"`{_SCALARS[field.type]}`"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {named}"
    return f"optional {named}" if field.proto3_optional else named


def describe_enum(
    enum: EnumDescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> Iterator[str]:
    yield f"### {enum.name}\n"
    yield from paragraph(comments.get(path, ""))
    yield "| value | |\n|---|---|"
    for at, value in enumerate(enum.value):
        yield f"| `{value.name}` = {value.number} | {one_line(comments.get((*path, 2, at), ''))} |"
    yield ""


def linked(type_name: str) -> str:
    """A link to the heading of one of ours; the name of another's."""
    if not type_name.startswith(PACKAGE):
        return f"`{type_name.removeprefix('.')}`"
    short = type_name.removeprefix(PACKAGE).rpartition(".")[2]
    return f"[{short}](#{short.lower()})"


def paragraph(comment: str) -> Iterator[str]:
    if comment:
        yield f"{one_line(comment)}\n"


def one_line(comment: str) -> str:
    """Text that a cell of a table takes."""
    return " ".join(comment.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")


if __name__ == "__main__":
    main()
