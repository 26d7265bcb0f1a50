"""A log entry's bytes: what was put in comes out, deflated or not; what is damaged says so and bounds what it takes."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Fatal
from appliance.limits import ENTRY_BYTES_MAX
from appliance.model import CONFIGURATION, DEFLATED, NO_OP, REGULAR
from appliance.state.entry import (
    DEFLATE_BYTES_MAX,
    DEFLATE_BYTES_MIN,
    command_bytes,
    command_of,
    encode_entry,
)
from appliance.state.operations import encode_columns, encode_command, write_readings


def single_readings(count: int) -> bytes:
    operations = []
    for number in range(count):
        time = (1_700_000_000_000_000_000 + number * 1_000_003).to_bytes(8, "little")
        columns = encode_columns(f"room-{number % 7}", "temperature", time, bytes(8), integer=False)
        operation = write_readings([columns])
        operation.origin_member, operation.origin_boot, operation.origin_request = 1 << 60, 1 << 61, number
        operations.append(operation)
    return encode_command(operations, time_unix_nano=1, elapsed_nano=1)


def deflated(content: bytes, *, size: int | None = None) -> bytes:
    """size: what it says of itself."""
    stream = zlib.compressobj(wbits=-15)
    said = len(content) if size is None else size
    return DEFLATED + said.to_bytes(4, "little") + stream.compress(content) + stream.flush()


@given(content=st.binary(max_size=3_000), repeat=st.integers(1, 200), may_deflate=st.booleans())
def test_what_goes_in_comes_out(content: bytes, repeat: int, may_deflate: bool) -> None:
    command = content * repeat
    entry = encode_entry(command, may_deflate=may_deflate)
    assert command_of(7, entry) == command
    assert len(entry) <= len(command) + 1
    assert may_deflate or entry == REGULAR + command
    assert command_bytes(entry) in (len(command), len(entry))


def test_single_readings_become_a_third_at_most() -> None:
    command = single_readings(48)
    entry = encode_entry(command, may_deflate=True)
    assert entry.startswith(DEFLATED)
    assert len(entry) * 3 < len(command)


@pytest.mark.parametrize("size", [DEFLATE_BYTES_MIN - 1, DEFLATE_BYTES_MAX + 1])
def test_too_small_or_too_large_stays(size: int) -> None:
    assert encode_entry(bytes(size), may_deflate=True) == REGULAR + bytes(size)


def test_golden_bytes_of_a_deflated_entry() -> None:
    """What a journal holds stays readable: bytes that were written once, whatever zlib writes today."""
    assert (
        command_of(2, bytes.fromhex("04 80020000 2b4a4d4cc9cc4b57281aa547c36100d20100")) == b"reading " * 80
    )


def test_other_types_carry_no_command() -> None:
    assert command_of(2, NO_OP) == b""
    assert command_of(2, CONFIGURATION + b"x") == b""


@pytest.mark.parametrize(
    "entry",
    [
        DEFLATED,
        DEFLATED + b"\x00" * 4,
        DEFLATED + b"\x10\x00\x00\x00" + b"\xff" * 20,
        deflated(bytes(1_000))[:-1],
        deflated(bytes(1_000)) + b"x",
        deflated(bytes(1_000), size=999),
        deflated(bytes(1_000), size=1_001),
        deflated(b"", size=0),
        deflated(bytes(ENTRY_BYTES_MAX + 1)),
    ],
    ids=[
        "empty",
        "no end",
        "nonsense",
        "cut",
        "more",
        "too long",
        "too short",
        "nothing",
        "larger than may be",
    ],
)
def test_what_cannot_be_inflated_ends_the_node(entry: bytes) -> None:
    with pytest.raises(Fatal, match=r"log entry 9 .* can't be inflated: .*it must be rebuilt"):
        command_of(9, entry)
