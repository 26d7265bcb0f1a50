"""An entry put together from encoded operations is the entry that floor 2 would have encoded."""

from __future__ import annotations

from appliance.limits import BATCH_BYTES_TARGET, ENTRY_BYTES_MAX, ENTRY_OPERATIONS_MAX, MESSAGE_BYTES_MAX
from appliance.model import DEFLATED, REGULAR
from appliance.node.batch import Batch
from appliance.state.entry import command_of
from appliance.state.operations import encode_command
from raftberry.internal.v1 import command_pb2


def test_a_batch_encodes_as_the_command_would() -> None:
    operations = [command_pb2.Operation(put=command_pb2.PutKey(key="k" * n)) for n in (1, 200, 20_000)]
    batch = Batch()
    for operation in operations:
        batch.add(operation.SerializeToString())
    expected = encode_command(operations, time_unix_nano=5, elapsed_nano=7)
    assert batch.encode(time_unix_nano=5, elapsed_ns=7) == REGULAR + expected


def test_golden_bytes_of_an_entry() -> None:
    batch = Batch()
    batch.add(b"\x3a\x06\x0a\x01k\x12\x01v")
    encoded = batch.encode(time_unix_nano=1, elapsed_ns=2)
    assert encoded == b"\x00\x08\x01\x10\x01\x18\x02\x22\x08\x3a\x06\x0a\x01k\x12\x01v"
    operation = command_pb2.Command.FromString(encoded[1:]).operations[0]
    assert (operation.put.key, operation.put.value) == ("k", b"v")


def test_a_batch_is_closed_by_operations_and_by_bytes() -> None:
    batch = Batch()
    for _ in range(ENTRY_OPERATIONS_MAX):
        assert batch.has_room(1)
        batch.add(b"")
    assert not batch.has_room(1)
    batch = Batch()
    batch.add(bytes(BATCH_BYTES_TARGET))
    assert not batch.has_room(1)
    assert Batch().has_room(MESSAGE_BYTES_MAX)
    assert MESSAGE_BYTES_MAX < ENTRY_BYTES_MAX


def test_a_batch_is_deflated_when_all_know_how() -> None:
    batch = Batch()
    for number in range(40):
        batch.add(command_pb2.Operation(put=command_pb2.PutKey(key=f"room-{number}")).SerializeToString())
    plain = batch.encode(time_unix_nano=5, elapsed_ns=7)
    entry = batch.encode(time_unix_nano=5, elapsed_ns=7, may_deflate=True)
    assert entry.startswith(DEFLATED)
    assert command_of(2, entry) == plain[1:]
