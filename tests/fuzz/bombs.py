"""A few bytes that claim much. `python -m tests.fuzz.bombs` decodes all of them with a bound on its own memory.

The bound is far below what is claimed and far above what a decoder needs; where a decoder believes a claim, the process
ends with MemoryError, or by the kernel.
"""

from __future__ import annotations

import resource
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from pcodec import ChunkConfig, standalone

from appliance.api.columns import MESSAGE_BYTES_TARGET
from appliance.limits import MIB
from appliance.state.columns import CODEC_PCODEC, CODEC_RAW
from raftberry.internal.v1 import command_pb2, peer_pb2, wire_pb2
from tests.fuzz.targets import TARGETS, image_records_once

ROOM_BYTES: Final = 256 * MIB
CLAIMED: Final = (1 << 32) - 1
CONSTANT: Final = bytes(standalone.simple_compress(np.zeros(5_000_000, np.int64), ChunkConfig()))
"""Five million readings in some hundred bytes."""

ZEROS: Final = zlib.compress(bytes(64 * MIB), 9, wbits=-15)
"""64 MiB in 64 KiB."""

_CHUNK: Final = struct.Struct(">BIqqII")
_HEAD: Final = struct.Struct(">QqqqQQQH")
_ROLL_UP: Final = struct.Struct(">qqQH")

assert len(CONSTANT) < 1_000
assert MESSAGE_BYTES_TARGET < ROOM_BYTES


def bombs() -> Iterator[tuple[str, bytes]]:
    """(target, bytes)"""
    for count in (1, 200_000, 200_001, 5_000_000, CLAIMED):
        for codec in (CODEC_RAW, CODEC_PCODEC):
            yield "columns", _columns(count, codec, CONSTANT)
            yield "command", _command(count, codec)
        yield "block", _block(count)
        yield "store_record", _head(count)
    for place in range(min(40, len(CONSTANT))):
        for value in (0x7F, 0xFF):
            changed = CONSTANT[:place] + bytes([value]) + CONSTANT[place + 1 :]
            yield "columns", _columns(200_000, CODEC_PCODEC, changed)
    # Ten thousand series in a message of some kilobytes, and as many frames, entries and names.
    series = wire_pb2.WriteRequestColumns(readings=[wire_pb2.ReadingsColumns()] * 100_000)
    yield "write_request", series.SerializeToString()
    yield "peer_frames", peer_pb2.FrameBatch(frames=[b""] * 500_000).SerializeToString()
    for size in (8 * MIB, CLAIMED):
        yield "deflated_entry", struct.pack("<I", size) + ZEROS
    yield "snapshot_stream", struct.pack(">BHI", 4, 4, CLAIMED) + b"keys"
    yield "backup", b"RAFTBERRYBACKUP\n" + struct.pack(">HI", 1, CLAIMED)
    yield "csv", b"timestamp,value\n" + b'"' + b"9" * (8 * MIB)
    yield "csv", b"timestamp,value\n1700000000," + b"9" * 100_000
    yield "configuration_file", b"a = " + b"[" * 100_000
    yield "configuration_file", b"[a" + b".a" * 100_000 + b"]"
    yield "settings", b"storage__size_max=" + b"9" * 1_000_000
    yield "glob", b"*a" * 99 + b"b\n" + b"a" * 199
    yield "identity", b"[" * 200_000


def _columns(count: int, codec: int, column: bytes) -> bytes:
    return _series_columns(count, codec, column).SerializeToString()


def _series_columns(count: int, codec: int, column: bytes) -> command_pb2.SeriesColumns:
    return command_pb2.SeriesColumns(
        sensor="s", metric="m", codec=codec, count=count, integer=True, times=column, values=column
    )


def _command(count: int, codec: int) -> bytes:
    """A hundred series, each with the claim, in one entry of some 20 KB."""
    write = command_pb2.WriteReadings(columns=[_series_columns(count, codec, CONSTANT)] * 100)
    operation = command_pb2.Operation(write=write)
    return command_pb2.Command(format=1, operations=[operation]).SerializeToString()


def _chunk(count: int) -> bytes:
    return _CHUNK.pack(CODEC_PCODEC, count, 0, 1, len(CONSTANT), len(CONSTANT))


def _block(count: int) -> bytes:
    """A key, and a block of format 2 whose only chunk claims count readings (layouts.py)."""
    return (
        struct.pack(">QQQ", 1, 1 << 63, 0) + b"\x02" + struct.pack(">BH", 1, 1) + _chunk(count) + CONSTANT * 2
    )


def _head(count: int) -> bytes:
    """The head of the image's only series replaced: its only chunk claims count readings."""
    place = [table for table, _, _ in image_records_once()].index("heads")
    figures = _HEAD.pack(1, 0, 1, 0, 0, 1, 1, 1)
    return bytes([place, 2]) + figures + _chunk(count) + CONSTANT * 2 + _ROLL_UP.pack(0, 0, 0, 0)


def main() -> None:
    made = list(bombs())
    for target in TARGETS.values():
        target.run(target.seeds[0])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))
    for name, data in made:
        print(f"{name}: {len(data)} bytes", flush=True)
        began = time.process_time()
        try:
            TARGETS[name].run(data)
        except TARGETS[name].answers as answer:
            print(f"  {str(answer)[:200]}", flush=True)
        print(f"  {time.process_time() - began:.3f} s", flush=True)
    print(f"{len(made)} bombs, none went off")


if __name__ == "__main__":
    sys.exit(main())
