"""import and export: exact, resumable, precise about what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from appliance.cli.csv_files import CHUNK_ROWS, import_producer_id
from tests.cli.conftest import Raftberry
from tests.cli.fake_server import FakeNode, abort

SERIES = ("--sensor", "machine", "--metric", "temperature")
ROWS = 3 * CHUNK_ROWS + 17


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose values need all their digits."""
    path = tmp_path / "machine.csv"
    lines = [f"2013-12-{1 + i // 1440:02d} {i // 60 % 24:02d}:{i % 60:02d}:00,{i / 7!r}" for i in range(ROWS)]
    path.write_text("\n".join(["timestamp,value", *lines, ""]))
    return path


def test_an_exported_file_is_the_imported_one(raftberry: Raftberry, file: Path, tmp_path: Path) -> None:
    result = raftberry("import", str(file), *SERIES)
    assert (result.status, result.out) == (
        0,
        f"machine.csv: {ROWS} rows in machine temperature, {ROWS} written now\n",
    )
    back = tmp_path / "back.csv"
    assert raftberry("export", str(back), *SERIES).status == 0
    assert back.read_text() == file.read_text()


def test_a_second_import_writes_nothing(raftberry: Raftberry, file: Path) -> None:
    raftberry("import", str(file), *SERIES)
    assert raftberry("import", str(file), *SERIES).out.endswith("0 written now\n")


def test_an_import_again_writes_everything(raftberry: Raftberry, file: Path, nodes: list[FakeNode]) -> None:
    raftberry("import", str(file), *SERIES)
    nodes[0].memory.series.clear()
    assert raftberry("import", str(file), *SERIES, "--again").out.endswith(f"{ROWS} written now\n")
    assert len(nodes[0].memory.series["machine", "temperature"]) == ROWS


def test_an_import_goes_on_through_another_node_without_writing_twice(
    raftberry: Raftberry, file: Path, nodes: list[FakeNode]
) -> None:
    def applied_but_not_answered(method: str, request: Any, context: grpc.ServicerContext) -> None:
        if method == "StreamWrite" and request.sequence == 2:
            nodes[0].memory.write(request)
            abort(context, grpc.StatusCode.UNAVAILABLE, "node-1 is going down")

    nodes[0].misbehave = applied_but_not_answered
    result = raftberry("import", str(file), *SERIES)
    assert result.status == 0
    assert "node-1 is going down" in result.err
    memory = nodes[0].memory
    assert len(memory.log) == 4
    assert memory.producers[
        import_producer_id(file, sensor="machine", metric="temperature", is_integer=False)
    ] == {1, 2, 3, 4}


def test_an_import_that_was_cut_off_resumes_and_leaves_no_gap(
    raftberry: Raftberry, file: Path, nodes: list[FakeNode]
) -> None:
    producer = import_producer_id(file, sensor="machine", metric="temperature", is_integer=False)
    nodes[0].memory.producers[producer] = {3}
    result = raftberry("import", str(file), *SERIES)
    assert "resuming, 3 of 4 chunks" in result.err
    assert nodes[0].memory.producers[producer] == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "line 1: no column 'timestamp'; found nothing"),
        ("time,value\n", "line 1: no column 'timestamp'; found time, value"),
        ("timestamp,value\n2020-01-01,1\nyesterday,2\n", "line 3, column timestamp: 'yesterday'"),
        ("timestamp,value\n2020-02-30,1\n", "line 2, column timestamp: '2020-02-30'"),
        ("timestamp,value\n2020-01-01,warm\n", "line 2, column value: 'warm' is not a number"),
        ("timestamp,value\n2020-01-01,1,2\n", "line 2: 3 columns, the header has 2"),
        ("timestamp,value\n1577836800000,1\n", "neither epoch seconds nor epoch nanoseconds"),
        ("timestamp,value\n9999-01-01,1\n", "outside the years 1677 to 2262"),
    ],
)
def test_a_bad_file_is_refused_whole_naming_line_and_column(
    raftberry: Raftberry, tmp_path: Path, nodes: list[FakeNode], content: str, complaint: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    result = raftberry("import", str(path), *SERIES)
    assert result.status == 1
    assert complaint in result.err
    assert nodes[0].memory.log == []


@pytest.mark.parametrize("rows_before", [0, 20_000])
@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3"])
def test_a_file_that_is_not_utf8_is_refused_naming_the_line(
    raftberry: Raftberry, nodes: list[FakeNode], tmp_path: Path, rows_before: int, wrong: bytes
) -> None:
    path = tmp_path / "latin.csv"
    rows = b"2020-01-01,1\n" * rows_before
    path.write_bytes(
        b"\xef\xbb\xbftimestamp,value\n" + rows + b"2020-01-01," + wrong + b"\n" + 20_000 * b"\n"
    )
    result = raftberry("import", str(path), *SERIES)
    assert (result.status, nodes[0].memory.log) == (1, [])
    assert (
        f"line {rows_before + 2}: not UTF-8 (byte 12 is 0x{wrong.hex()}); save the file as UTF-8"
        in result.err
    )


def test_export_of_no_series_exits_with_4_and_leaves_no_file(raftberry: Raftberry, tmp_path: Path) -> None:
    assert raftberry("export", str(tmp_path / "out.csv"), *SERIES).status == 4
    assert list(tmp_path.iterdir()) == []


def test_the_sensor_streams_numbered_readings_of_this_machine(
    raftberry: Raftberry, nodes: list[FakeNode]
) -> None:
    result = raftberry("sensor", "--name", "pi-1", "--interval", "1ms", "--count", "3")
    assert result.status == 0
    assert len(nodes[0].memory.series["pi-1", "load_1m"]) == 3
    assert list(nodes[0].memory.producers.values()) == [{1, 2, 3}]
