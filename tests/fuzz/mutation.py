"""Strategies: messages of any protobuf type, and valid bytes that were damaged in a few places.

Invariant: everything is drawn through hypothesis, so that a failure shrinks and a run repeats.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import settings
from hypothesis import strategies as st

FACTOR: Final = float(os.environ.get("FUZZ_FACTOR", "1"))

EDGES_64: Final = (
    0,
    1,
    2,
    3,
    7,
    255,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 62),
    (1 << 63) - 1,
)
TEXTS: Final = (
    "",
    "a",
    "k0",
    "*",
    "[",
    "[!a-",
    "?" * 40,
    "é\u0301",
    "x" * 200,
    "x" * 201,
    "\x00",
    "a\nb",
    "\ud7ff",
)

_UNSIGNED_64 = {FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64}
_SIGNED_64 = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64}
_UNSIGNED_32 = {FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32}
_SIGNED_32 = {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32}


def examples(count: int) -> settings:
    """This many examples in CI, more by FUZZ_FACTOR."""
    return settings(max_examples=max(1, int(count * FACTOR)))


# bytes ---------------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """valid with up to six edits: bytes set, flipped, cut, doubled, moved, put in, or the end gone."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 6))):
        edit = draw(st.integers(0, 6))
        # What says how the rest is read stands in front, as a rule.
        place = draw(st.one_of(st.integers(0, min(64, len(data))), st.integers(0, len(data))))
        length = draw(st.integers(0, 12))
        if edit == 0 and place < len(data):
            data[place] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFE, 0xFF)))
        elif edit == 1 and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif edit == 2:
            del data[place : place + length]
        elif edit == 3:
            data[place:place] = data[place : place + length]
        elif edit == 4:
            del data[place:]
        elif edit == 5:
            data[place:place] = draw(st.binary(max_size=12))
        else:
            piece = data[place : place + length]
            del data[place : place + length]
            data += piece
    return bytes(data)


def hostile(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly damaged seeds, some nonsense."""
    return st.one_of(
        damaged(st.sampled_from(list(seeds))), damaged(st.sampled_from(list(seeds))), st.binary(max_size=200)
    )


# messages ------------------------------------------------------------------------------------------------

Choices = dict[str, st.SearchStrategy[Any]]
"""What a field gets, by its full name, instead of what its type would."""


def messages(
    kind: type[Message] | Descriptor, choices: Choices | None = None, depth: int = 4
) -> st.SearchStrategy[Any]:
    """Any message of the type, within its grammar: each field unset, at an edge, or ordinary."""
    descriptor = kind if isinstance(kind, Descriptor) else kind.DESCRIPTOR
    build: Callable[[st.DrawFn], Message] = lambda draw: _build(draw, descriptor, choices or {}, depth)  # noqa: E731
    return st.composite(build)()


def _build(draw: st.DrawFn, descriptor: Descriptor, choices: Choices, depth: int) -> Message:
    message: Any = GetMessageClass(descriptor)()
    chosen = {
        one.name: draw(st.sampled_from([field.name for field in one.fields])) for one in descriptor.oneofs
    }
    for field in descriptor.fields:
        one = field.containing_oneof
        if one is not None and chosen[one.name] != field.name:
            continue
        is_nested = field.type == FieldDescriptor.TYPE_MESSAGE
        if is_nested and depth == 0:
            continue
        if one is None and draw(st.integers(0, 3)) == 0:
            continue
        _fill(draw, message, field, choices, depth)
    return message


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor, choices: Choices, depth: int) -> None:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map:
        for _ in range(draw(st.integers(0, 3))):
            getattr(message, field.name)[draw(st.sampled_from(TEXTS))] = draw(st.sampled_from(TEXTS))
        return
    chosen = choices.get(field.full_name)
    value = _value(field, choices, depth) if chosen is None else chosen
    if field.is_repeated:
        for item in draw(st.lists(value, max_size=3)):
            _add(message, field, item)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, field.name).CopyFrom(draw(value))
    else:
        setattr(message, field.name, draw(value))


def _add(message: Any, field: FieldDescriptor, item: Any) -> None:
    column = getattr(message, field.name)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        column.add().CopyFrom(item)
    else:
        column.append(item)


def _value(field: FieldDescriptor, choices: Choices, depth: int) -> st.SearchStrategy[Any]:
    kind = field.type
    if kind == FieldDescriptor.TYPE_MESSAGE:
        return messages(field.message_type, choices, depth - 1)
    if kind == FieldDescriptor.TYPE_STRING:
        return st.one_of(st.sampled_from(TEXTS), st.text(max_size=20))
    if kind == FieldDescriptor.TYPE_BYTES:
        return st.one_of(st.binary(max_size=40), st.sampled_from((b"", bytes(8), bytes(1000))))
    if kind == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([*(value.number for value in field.enum_type.values), 99, -1])
    if kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return st.floats(width=32)
    return _integers(kind)


def _integers(kind: int) -> st.SearchStrategy[int]:
    if kind in _UNSIGNED_64:
        return st.one_of(st.sampled_from((*EDGES_64, (1 << 64) - 1)), st.integers(0, 40))
    if kind in _SIGNED_64:
        edges = (*EDGES_64, *(-edge for edge in EDGES_64), -(1 << 63))
        return st.one_of(st.sampled_from(edges), st.integers(-40, 40))
    if kind in _UNSIGNED_32:
        return st.sampled_from((0, 1, 2, 10, 1000, (1 << 31) - 1, (1 << 32) - 1))
    assert kind in _SIGNED_32, f"a protobuf type that is not known here: {kind}"
    return st.sampled_from((0, 1, -1, 10, (1 << 31) - 1, -(1 << 31)))
