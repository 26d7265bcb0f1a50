"""Every pure decoder: what it is fed, valid examples of it, and which errors are an answer.

One table for hypothesis (test_decoders.py) and for coverage-guided fuzzing (guided.py). `run` takes any bytes;
an exception that is not in `answers` is a find. Where a checksum stands before a decoder, the target puts the right one
there, so that the decoder behind it is reached.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from appliance.api.failures import status_of
from appliance.api.write_request import sequence_of, write_operation
from appliance.cli.csv_files import CsvError, parse_rows
from appliance.cli.times import parse_time, parse_time_or_age
from appliance.config import load, parse_members
from appliance.consensus.plausible import implausible
from appliance.consensus.snapshot import RecordDecoder, encode_records
from appliance.errors import (
    ConditionFailed,
    ConfigurationError,
    CorruptData,
    DataDirectoryRefused,
    Fatal,
    InvalidArgument,
    NotApplied,
)
from appliance.model import DEFLATED, Configuration, Entry, HardState, Member, MemberId, PeerMemory, Position
from appliance.node.backup import BackupReader, encode_backup
from appliance.peers.founding import Founder, FoundingDesk, decide_founding, decode_answer
from appliance.peers.wire import BadFrame, decode_frame, decode_response, encode_batch, split_batch
from appliance.state import QuerySpec, StateMachine, StateOptions
from appliance.state.columns import decode_columns, encode_columns
from appliance.state.configuration import decode_configuration, encode_configuration
from appliance.state.entry import command_of, encode_entry
from appliance.state.layouts import decode_block
from appliance.state.names import matcher
from appliance.state.operations import delete_key, encode_command, put_key, set_series, write_readings
from appliance.state.sweep import load_chunk
from appliance.storage import layout
from appliance.storage.batch import JournalState
from appliance.storage.identity import Identity, decode_identity, encode_identity
from appliance.storage.records import HEADER, decode_record, encode_record
from appliance.storage.store import TABLES, Record
from appliance.units import parse_duration, parse_size
from raftberry.internal.v1 import backup_pb2, command_pb2, peer_pb2
from raftberry.v1 import reading_pb2
from tests.state.fakes import Cluster, FakeReader

MEMBERS: Final = (Member(MemberId(1), "n1", 1, "n1:7441"), Member(MemberId(2), "n2", 2, "n2:7441"))
DAMAGED: Final = (CorruptData, DataDirectoryRefused)


@dataclass(frozen=True, slots=True)
class Target:
    """seeds: valid inputs. examples: of hypothesis, in CI."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    answers: tuple[type[BaseException], ...] = ()
    examples: int = 300
    words: Sequence[bytes] = field(default=())
    """Pieces that grammars are made of, for what is text."""


# peers ---------------------------------------------------------------------------------------------------


def _frames(data: bytes) -> None:
    for encoded in split_batch(data):
        implausible(decode_frame(encoded, sender=None), 5)


def _response(data: bytes) -> None:
    decode_response(data)


def _found_request(data: bytes) -> None:
    desk = FoundingDesk("n1", MemberId(1), ["n1", "n2"])
    desk.answer(peer_pb2.FoundRequest.FromString(data)).SerializeToString()


def _found_response(data: bytes) -> None:
    own = Founder("n1", MemberId(1), {"n1": "n1:7441", "n2": "n2:7441"})
    answer = decode_answer(peer_pb2.FoundResponse.FromString(data))
    founding = decide_founding(own, {"n2": answer})
    if founding is not None:
        assert founding.cluster_id
        assert MemberId(1) in {member.member_id for member in founding.members}, "founded without this node"
        names = tuple(member.name for member in founding.members)
        kept = Identity(MemberId(1), "n1", "m", founding.cluster_id, names, founding.members)
        assert decode_identity(encode_identity(kept)) == kept


FRAMES: Final = [
    peer_pb2.Frame(from_member=1, boot_count=2, term=3, high_index=4, **{kind: body}).SerializeToString()
    for kind, body in {
        "hello": peer_pb2.Hello(protocol=1, cluster_id=5, name="n1", to_member=2, boot_nonce=7, version="1"),
        "append_entries": peer_pb2.AppendEntries(
            prev_log_index=4,
            prev_log_term=3,
            commit_index=4,
            entries=[peer_pb2.LogEntry(term=3, command=b"\0\x08\x01")],
        ),
        "forward": peer_pb2.Forward(operations=[put_key("a", b"b").SerializeToString()], requests=[1]),
        "snapshot_chunk": peer_pb2.SnapshotChunk(transfer_id=1, snapshot_index=4, data=b"abc", last=True),
    }.items()
]

# state ---------------------------------------------------------------------------------------------------


def column_bytes(count: int, *, integer: bool) -> command_pb2.SeriesColumns:
    times = np.arange(count, dtype="<i8") * 1_000_000_000 + 1_700_000_000_000_000_000
    values = np.arange(count, dtype="<i8") if integer else np.sin(np.arange(count))
    return encode_columns("cellar", "temperature", times, values, integer=integer)


def _column(data: bytes) -> None:
    decoded = decode_columns(command_pb2.SeriesColumns.FromString(data))
    assert len(decoded.times) == len(decoded.values)


def _command(data: bytes) -> None:
    """decode_command, then apply: total for whatever decodes, and its results reach a client."""
    machine = StateMachine(StateOptions())
    applied = machine.apply(2, 1, data)
    for result in applied.results:
        if result.error is not None:
            status_of(result.error)
    work = machine.capture_checkpoint()
    batch = work.batch(lambda: FakeReader(Position(1, 0), {}))
    reader = FakeReader(batch.position, {(table, key): value for table, key, value in batch.puts})
    again = StateMachine.restore(reader, StateOptions())
    machine.checkpoint_done(work)
    assert again.hash(reader) == machine.hash(FakeReader(batch.position, reader._tables))


def _deflated(data: bytes) -> None:
    command_of(9, DEFLATED + data)


def _configuration(data: bytes) -> None:
    decode_configuration(7, data)


def _block(data: bytes) -> None:
    block = decode_block(data[:24], data[24:])
    for chunk in block.chunks:
        load_chunk(chunk, integer=block.integer, where="block")


def _image(records: Sequence[Record]) -> None:
    """A checkpoint, or what a snapshot brought: restored, asked, hashed, written on."""
    tables = {(table, key): value for table, key, value in records}
    position = Position(40, 3)
    machine = StateMachine.restore(FakeReader(position, tables), StateOptions())
    for _ in machine.latest("", ""), machine.series("", ""), machine.keys(""), machine.members():
        list(_)
    for chunk in machine.prepare_query(QuerySpec("", ""), FakeReader(position, tables)).run():
        assert len(chunk.times) == len(chunk.values)
    machine.hash(FakeReader(position, tables))
    operations = [
        write_readings([column_bytes(3, integer=False)], producer_id="p", sequence=9),
        put_key("a", b"z"),
    ]
    machine.apply(41, 3, encode_command(operations, time_unix_nano=1, elapsed_nano=1))
    machine.capture_checkpoint().batch(lambda: FakeReader(position, tables))


def image_records() -> list[Record]:
    """A small state with something in every table, some of it written in two checkpoints."""
    made = Cluster(StateOptions())
    made.apply(
        command_pb2.Operation(found=command_pb2.FoundCluster(members=[_wire_member(m) for m in MEMBERS]))
    )
    made.apply(put_key("a", b"1", ttl_seconds=4), put_key("b", b"2", producer_id="p", sequence=1))
    made.apply(write_readings([column_bytes(4_000, integer=False)], producer_id="p", sequence=2))
    made.checkpoint()
    made.apply(write_readings([column_bytes(100, integer=False)]), delete_key("nobody", if_mod_revision=9))
    made.apply(set_series("cellar", "temperature", unit="C", labels={"room": "1"}))
    made.checkpoint()
    return list(made.store.reader().records())


def _wire_member(member: Member) -> command_pb2.Member:
    return command_pb2.Member(
        member_id=member.member_id, name=member.name, number=member.number, peer_address=member.peer_address
    )


def _snapshot(data: bytes) -> None:
    """The stream in three pieces, as chunks cut it; the records as the installer would hold them."""
    decoder, records = RecordDecoder(), []
    for start in range(0, len(data), max(1, len(data) // 3)):
        records += decoder.feed(data[start : start + max(1, len(data) // 3)])
    if decoder.is_complete:
        _image(records)


def _store_record(data: bytes) -> None:
    """One record of a whole checkpoint replaced: first byte which, the rest its value."""
    records = image_records_once()
    if data:
        place = data[0] % len(records)
        table, key, _ = records[place]
        records[place] = (table, key, data[1:])
    _image(records)


_made: list[Record] = []


def image_records_once() -> list[Record]:
    if not _made:
        _made.extend(image_records())
    return list(_made)


def _backup(data: bytes) -> None:
    _image(list(BackupReader(io.BytesIO(data)).records()))


def backup_bytes() -> bytes:
    records = image_records_once()
    tables = {(table, key): value for table, key, value in records}
    return b"".join(encode_backup(backup_pb2.BackupHeader(), FakeReader(Position(40, 3), tables)))


# storage -------------------------------------------------------------------------------------------------


def _sealed(key: bytes, decode: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """The payload under its right checksum."""

    def run(data: bytes) -> None:
        decode(encode_record(key, data))

    return run


def _payload(key: bytes, record: bytes) -> bytes:
    return bytes(decode_record(key, record, where="seed"))


ENTRY: Final[Entry] = (b"\0\x08\x01", 7, 3)
JOURNAL_STATE: Final = JournalState(Position(1, 0), Position(7, 3), HardState(3, MemberId(1), 6, 7))
PEERS: Final = {MemberId(1): PeerMemory(2, 9), MemberId(2): PeerMemory(1, 4)}
IDENTITY: Final = Identity(MemberId(1), "n1", "machine", 5, ("n1", "n2"), MEMBERS)  # type: ignore[arg-type]
IDENTITY_KEY: Final = b"identity"


def _envelope(data: bytes) -> None:
    decode_record(b"key", data, where="a record")


# text ----------------------------------------------------------------------------------------------------

_folder = tempfile.TemporaryDirectory(prefix="raftberry-fuzz-")


def _csv(data: bytes) -> None:
    file = Path(_folder.name, "rows.csv")
    file.write_bytes(data)
    for is_integer in (False, True):
        try:
            for _ in parse_rows(file, is_integer=is_integer):
                pass
        except CsvError:
            continue


def _configuration_file(data: bytes) -> None:
    file = Path(_folder.name, "raftberry.toml")
    file.write_bytes(data)
    load(path=file, environment={}, flags={"node.name": "n1"})


def _settings(data: bytes) -> None:
    """Environment and flags: NAME=VALUE."""
    name, _, value = data.decode("utf-8", "replace").partition("=")
    load(path=Path("/dev/null"), environment={f"RAFTBERRY_{name.upper()}": value}, flags={"node.name": "n1"})


def _text(*parsers: Callable[[str], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for parse in parsers:
            try:
                parse(text)
            except ValueError:
                continue

    return run


def _glob(data: bytes) -> None:
    pattern, _, name = data.decode("utf-8", "replace").partition("\n")
    matcher(pattern[:200])(name[:200] or "a" * 200)


def _write_request(data: bytes) -> None:
    sequence_of(data)
    try:
        operation = write_operation(data, lambda: 1_800_000_000_000_000_000)
    except NotApplied as error:
        status_of(error)
        return
    assert operation.ByteSize() < 2 * len(data) + 1_000
    machine = StateMachine(StateOptions())
    (result,) = machine.apply(2, 1, encode_command([operation], time_unix_nano=1, elapsed_nano=1)).results
    # Of one series a write may hold floats and integers: apply says so. Nothing else is left for it to find.
    is_right = result.error is None or isinstance(result.error, ConditionFailed)
    assert is_right, f"what the API let pass was refused by apply: {result.error!r}"


def _request_bytes() -> list[bytes]:
    one = reading_pb2.Readings(sensor="s", metric="m", value=[1.5])
    many = reading_pb2.Readings(sensor="s", metric="n", time_unix_nano=range(70), int_value=range(70))
    return [
        reading_pb2.WriteRequest(readings=[one], producer_id="p", sequence=4).SerializeToString(),
        reading_pb2.WriteRequest(readings=[one, many]).SerializeToString(),
    ]


def _commands() -> list[bytes]:
    operations = [
        [put_key("a", b"b", if_mod_revision=0, ttl_seconds=4, producer_id="p", sequence=1), delete_key("a")],
        [write_readings([column_bytes(1, integer=False)]), write_readings([column_bytes(100, integer=True)])],
        [set_series("s", "m", unit="C", labels={"a": "b"})],
    ]
    return [encode_command(each, time_unix_nano=1, elapsed_nano=1) for each in operations]


TOML: Final = b"""[node]
name = "n1"
[cluster]
initial_members = { n1 = "localhost:1", n2 = "b:1" }
heartbeat = "150ms"
[storage]
size_max = "8GiB"
[client]
address = "127.0.0.1:7440"
"""


def _blocks() -> list[bytes]:
    return [key + value for table, key, value in image_records_once() if table == "blocks"]


def _store_records() -> list[bytes]:
    return [bytes([place]) + value for place, (_, _, value) in enumerate(image_records_once())]


TARGETS: Final[dict[str, Target]] = {
    "peer_frames": Target(_frames, [encode_batch(FRAMES)], (BadFrame,)),
    "peer_response": Target(
        _response, [peer_pb2.ExchangeResponse(taken_bytes=4).SerializeToString()], (BadFrame,), 100
    ),
    "found_request": Target(
        _found_request,
        [peer_pb2.FoundRequest(name="n2", member_id=2, founders=["n1", "n2"]).SerializeToString()],
        (DecodeError,),
        100,
    ),
    "found_response": Target(
        _found_response,
        [
            peer_pb2.FoundResponse(name="n2", member_id=2, founders=["n1", "n2"]).SerializeToString(),
            peer_pb2.FoundResponse(
                name="n2",
                member_id=2,
                founders=["n1", "n2"],
                cluster_id=5,
                known_member_id=1,
                members=[_wire_member(m) for m in MEMBERS],
            ).SerializeToString(),
        ],
        (DecodeError, DataDirectoryRefused, ConfigurationError),
    ),
    "columns": Target(
        _column,
        [column_bytes(n, integer=i).SerializeToString() for n in (1, 64, 3_000) for i in (False, True)],
        (DecodeError, InvalidArgument),
        400,
    ),
    "command": Target(_command, _commands(), (Fatal,), 300),
    "deflated_entry": Target(
        _deflated,
        [encode_entry(command * 20, may_deflate=True).removeprefix(DEFLATED) for command in _commands()],
        (Fatal,),
        300,
    ),
    "configuration": Target(
        _configuration, [encode_configuration(Configuration(2, MEMBERS, (MemberId(9),), 2))], (Fatal,), 100
    ),
    "block": Target(_block, _blocks(), DAMAGED, 400),
    "store_record": Target(
        _store_record, _store_records(), DAMAGED, 250, words=[b"\xff" * 8, b"\x7f" + b"\xff" * 7, bytes(8)]
    ),
    "snapshot_stream": Target(_snapshot, [b"".join(encode_records(image_records_once()))], DAMAGED, 150),
    "backup": Target(_backup, [backup_bytes()], DAMAGED, 100),
    "record": Target(_envelope, [encode_record(b"key", b"payload")], DAMAGED, 200),
    "journal_entry": Target(
        _sealed(layout.entry_key(7), lambda record: layout.decode_entry(7, record)),
        [layout.encode_entry(ENTRY)[1][HEADER.size :]],
        DAMAGED,
        200,
    ),
    "journal_state": Target(
        _sealed(layout.STATE_KEY, layout.decode_state),
        [_payload(layout.STATE_KEY, layout.encode_state(JOURNAL_STATE))],
        DAMAGED,
        100,
    ),
    "journal_peers": Target(
        _sealed(layout.PEERS_KEY, layout.decode_peers),
        [_payload(layout.PEERS_KEY, layout.encode_peers(PEERS))],
        DAMAGED,
        100,
    ),
    "journal_boot": Target(
        _sealed(layout.BOOT_KEY, layout.decode_boot_count),
        [_payload(layout.BOOT_KEY, layout.encode_boot_count(3))],
        DAMAGED,
        60,
    ),
    "identity": Target(
        _sealed(IDENTITY_KEY, decode_identity),
        [_payload(IDENTITY_KEY, encode_identity(IDENTITY).removesuffix(b"\n"))],
        DAMAGED,
    ),
    "write_request": Target(_write_request, _request_bytes(), (), 400),
    "csv": Target(
        _csv,
        [b"timestamp,value\n2026-01-31T12:00:00Z,1.5\n1700000000,2\n", b'value,timestamp\n"1",1\n'],
        words=[b'"', b"\n", b"\r", b",", b"\0", b"nan", b"1e999", b"9" * 5_000, b"2026-02-30"],
    ),
    "configuration_file": Target(
        _configuration_file,
        [TOML],
        (ConfigurationError,),
        words=[
            b"[",
            b"]",
            b"{",
            b'"',
            b"\n",
            b"= 1e400",
            b"-1",
            b"0x1",
            b"[[node]]",
            b"2026-01-01",
            b"= nan",
        ],
    ),
    "settings": Target(
        _settings,
        [
            b"node__name=n1",
            b"cluster__initial_members=n1=localhost:1,n2=b:2",
            b"storage__size_max=9GiB",
            b"log__level=info",
        ],
        (ConfigurationError,),
        words=[b"__", b"=", b",", b":", b"[", b"]", b"65536", b"1e9", b"-1", b"\xff"],
    ),
    "units": Target(
        _text(
            parse_size,
            parse_duration,
            parse_members,
            parse_time,
            lambda t: parse_time_or_age(t, now_unix_nano=0),
        ),
        [b"64MiB", b"1.5s", b"n1=a:1", b"2026-01-31T12:00:00.5+02:00", b"-1h", b"1700000000"],
        words=[b"9" * 5_000, b".", b"e", b"inf", b"\xd9\xa1", b" ", b"-"],
    ),
    "glob": Target(
        _glob,
        [b"*\nabc", b"[!a-c]?*x\nabcx", b"a*b*c*d*e*f*g*h"],
        words=[b"[", b"]", b"*" * 20, b"*a" * 40, b"[z-a]", b"[[", b"[a-", b"\\", b"(?", b"[!]"],
    ),
}

assert set(TABLES) >= {table for table, _, _ in image_records_once()}
