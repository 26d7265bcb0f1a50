"""A store in a dictionary, and short ways to write what the tests write."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np

from appliance.model import Position
from appliance.state import Applied, StateMachine, StateOptions
from appliance.state.operations import encode_columns, encode_command, write_readings
from appliance.storage.store import TABLES, Record, StoreBatch
from raftberry.internal.v1 import command_pb2

Tables = dict[tuple[str, bytes], bytes]


class FakeReader:
    """What StoreReader promises, over a copy of the tables."""

    def __init__(self, position: Position, tables: Tables) -> None:
        self.position = position
        self.is_closed = False
        self._tables = dict(tables)

    def get(self, table: str, key: bytes) -> bytes | None:
        assert not self.is_closed
        return self._tables.get((table, key))

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        for (name, key), value in sorted(self._tables.items()):
            assert not self.is_closed
            if name == table and key >= start and (stop is None or key < stop):
                yield key, value

    def keys(self, table: str) -> Iterator[bytes]:
        for key, _ in self.scan(table):
            yield key

    def records(self) -> Iterator[Record]:
        for table in TABLES:
            for key, value in self.scan(table):
                yield table, key, value

    def close(self) -> None:
        self.is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class FakeStore:
    def __init__(self) -> None:
        self.position = Position(1, 0)
        self.tables: Tables = {}

    def commit(self, batch: StoreBatch) -> None:
        for table, prefix in batch.delete_prefixes:
            self.tables = {
                key: value
                for key, value in self.tables.items()
                if key[0] != table or not key[1].startswith(prefix)
            }
        for key in batch.deletes:
            self.tables.pop(key, None)
        for table, name, value in batch.puts:
            self.tables[table, name] = value
        self.position = batch.position

    def reader(self) -> FakeReader:
        return FakeReader(self.position, self.tables)

    def count(self, table: str) -> int:
        return sum(name == table for name, _ in self.tables)


class Cluster:
    """One state machine with its store: entries are numbered by themselves."""

    def __init__(self, options: StateOptions | None = None) -> None:
        self.options = options or StateOptions()
        self.store = FakeStore()
        self.state = StateMachine(self.options)
        self.commands: dict[int, bytes] = {}

    def apply(self, *operations: command_pb2.Operation, elapsed_ns: int = 0) -> Applied:
        command = encode_command(operations, time_unix_nano=0, elapsed_nano=elapsed_ns)
        index = self.state.position.index + 1
        self.commands[index] = command
        return self.state.apply(index, 1, command)

    def checkpoint(self) -> None:
        work = self.state.capture_checkpoint()
        self.store.commit(work.batch(self.store.reader))
        self.state.checkpoint_done(work)

    def restart(self) -> None:
        """What a crash does: the state of the checkpoint, then the log again."""
        self.state = StateMachine.restore(self.store.reader(), self.options)
        for index, command in self.commands.items():
            self.state.apply(index, 1, command)

    def hash(self) -> bytes:
        return self.state.hash(self.store.reader())


def columns(
    times: list[int],
    values: list[float] | list[int],
    sensor: str = "s",
    metric: str = "m",
    *,
    integer: bool = False,
) -> command_pb2.SeriesColumns:
    return encode_columns(
        sensor,
        metric,
        np.array(times, np.int64),
        np.array(values, np.int64 if integer else np.float64),
        integer=integer,
    )


def write(
    times: list[int],
    values: list[float] | list[int],
    sensor: str = "s",
    metric: str = "m",
    *,
    integer: bool = False,
    producer_id: str = "",
    sequence: int = 0,
) -> command_pb2.Operation:
    return write_readings(
        [columns(times, values, sensor, metric, integer=integer)], producer_id=producer_id, sequence=sequence
    )
