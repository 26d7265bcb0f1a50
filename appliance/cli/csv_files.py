"""import and export: one series from and to a CSV file with the columns timestamp and value.

Invariant: a file is read to its end and found good before its first reading is written. Its chunks are numbered,
under a producer id made of the file's content and the series, so that an import that was cut off goes on where it
stood and never counts a reading twice.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Final

import click

from appliance.cli.common import connect, connection_options, note
from appliance.cli.files import whole_file
from appliance.cli.times import format_time, parse_time
from appliance.cli.values import parse_value
from appliance.client.connection import Connection
from appliance.client.methods import GET_PRODUCER, QUERY
from appliance.client.writer import Batch, ResumingWriter
from appliance.errors import NotFound, RaftberryError
from appliance.units import Duration
from raftberry.v1 import reading_pb2

CHUNK_ROWS: Final = 1_000
"""Part of the meaning of a producer's sequence: changing it would make a resumed import skip or repeat rows."""

CHUNKS_IN_FLIGHT: Final = 16
"""A resumed import sends this many chunks again: of those in flight a later one may be in before an earlier."""

sensor_option = click.option("--sensor", required=True, help="Sensor of the series.")
metric_option = click.option("--metric", required=True, help="Metric of the series.")


class CsvError(RaftberryError):
    """A file is not what an import needs; the text names line and column."""


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@sensor_option
@metric_option
@click.option("--integer", is_flag=True, help="Keep the values as 64-bit integers.")
@click.option("--again", is_flag=True, help="Write all rows again, even if the file was imported before.")
@connection_options
def import_csv(
    file: Path,
    sensor: str,
    metric: str,
    integer: bool,
    again: bool,
    endpoints: tuple[str, ...],
    timeout: Duration,
) -> None:
    """Write FILE (columns timestamp and value) into one series.

    Timestamps are ISO 8601 (without a zone: UTC), epoch seconds or epoch nanoseconds. Run it again after an
    interruption: it goes on where it stood.

    \b
    Example: raftberry import kitchen.csv --sensor kitchen --metric temperature
    """
    name = click.format_filename(file.name)
    row_count = sum(1 for _ in parse_rows(file, is_integer=integer))
    chunk_count = -(-row_count // CHUNK_ROWS)
    producer_id = import_producer_id(file, sensor=sensor, metric=metric, is_integer=integer)
    with connect(endpoints, timeout) as connection:
        highest = _highest_sequence(connection, producer_id)
        if highest >= chunk_count > 0 and again:
            producer_id, highest = f"{producer_id}-{_next_attempt(connection, producer_id)}", 0
        skipped = max(0, min(highest, chunk_count) - CHUNKS_IN_FLIGHT)
        if highest:
            note(f"{name}: resuming, {min(highest, chunk_count)} of {chunk_count} chunks were begun before")
        writer = ResumingWriter(
            connection,
            producer_id=producer_id,
            capacity=CHUNKS_IN_FLIGHT,
            give_up_s=timeout / 1e9,
            on_trouble=note,
        )
        chunks = make_chunks(parse_rows(file, is_integer=integer), sensor, metric, is_integer=integer)
        source = (chunk for chunk in chunks if chunk.sequence > skipped)
        written = 0
        with click.progressbar(length=row_count, label=name, file=sys.stderr) as progress:
            progress.update(skipped * CHUNK_ROWS)
            with closing(writer.acknowledgements(source)) as acknowledgements:
                for one in acknowledgements:
                    count = len(one.batch.readings[0].time_unix_nano)
                    written += 0 if one.is_duplicate else count
                    progress.update(count)
    click.echo(f"{name}: {row_count} rows in {sensor} {metric}, {written} written now")


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@sensor_option
@metric_option
@connection_options
def export_csv(
    file: Path | None, sensor: str, metric: str, endpoints: tuple[str, ...], timeout: Duration
) -> None:
    """Write one series to FILE (default: standard output) with the columns timestamp and value, exactly.

    \b
    Example: raftberry export kitchen.csv --sensor kitchen --metric temperature
    """
    if set("*?[") & set(sensor + metric):
        raise click.UsageError("--sensor and --metric name one series: no * ? [ in them.")
    request = reading_pb2.QueryRequest(sensor=sensor, metric=metric)
    with connect(endpoints, timeout) as connection:
        responses = connection.stream(QUERY, request)
        if file is None:
            write_rows(responses, sys.stdout, series=f"{sensor} {metric}")
        else:
            with whole_file(file, encoding="utf-8") as out:
                count = write_rows(responses, out, series=f"{sensor} {metric}")
            note(f"{count} readings written to {click.format_filename(file)}")


def parse_rows(file: Path, *, is_integer: bool) -> Iterator[tuple[int, float]]:
    """(time_unix_nano, value) of each row; CsvError names line and column."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            time_at, value_at = (_column(file, header, name) for name in ("timestamp", "value"))
            for row in reader:
                if row:
                    yield _parse_row(file, reader.line_num, row, header, time_at, value_at, is_integer)
        except csv.Error as error:
            raise CsvError(f"{file}: line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise CsvError(f"{file}: {_where_not_utf8(file)}; save the file as UTF-8") from error


def _where_not_utf8(file: Path) -> str:
    """The reader is ahead of the rows that it has given, so the bad byte is looked for again."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number}: not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})"
    return "not UTF-8"


def make_chunks(
    rows: Iterable[tuple[int, float]], sensor: str, metric: str, *, is_integer: bool
) -> Iterator[Batch]:
    """Chunks of CHUNK_ROWS rows, numbered from 1."""
    sequence = 1
    readings = reading_pb2.Readings(sensor=sensor, metric=metric)
    for time_unix_nano, value in rows:
        readings.time_unix_nano.append(time_unix_nano)
        if is_integer:
            readings.int_value.append(int(value))
        else:
            readings.value.append(value)
        if len(readings.time_unix_nano) == CHUNK_ROWS:
            yield Batch(sequence, [readings])
            sequence += 1
            readings = reading_pb2.Readings(sensor=sensor, metric=metric)
    if readings.time_unix_nano:
        yield Batch(sequence, [readings])


def import_producer_id(file: Path, *, sensor: str, metric: str, is_integer: bool) -> str:
    """The same for the same content into the same series, whatever the file is called."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        digest.update(hashlib.file_digest(content, "sha256").digest())
    digest.update("\0".join((sensor, metric, "integer" if is_integer else "")).encode())
    return f"import-{digest.hexdigest()[:32]}"


def write_rows(responses: Iterable[reading_pb2.QueryResponse], out: IO[str], *, series: str) -> int:
    """CSV of raw readings, every value as the shortest text that reads back as the same number."""
    count = 0
    for response in responses:
        for readings in response.readings:
            if count == 0:
                out.write("timestamp,value\n")
            values = readings.int_value or readings.value
            for time_unix_nano, value in zip(readings.time_unix_nano, values, strict=True):
                out.write(f"{format_time(time_unix_nano, separator=' ', suffix='')},{value!r}\n")
                count += 1
    if count == 0:
        raise NotFound(f"{series} does not exist or has no readings")
    return count


def _column(file: Path, header: list[str], name: str) -> int:
    if name not in header:
        found = ", ".join(header) or "nothing"
        raise CsvError(f"{file}: line 1: no column {name!r}; found {found}; needed are timestamp and value")
    return header.index(name)


def _parse_row(
    file: Path, line: int, row: list[str], header: list[str], time_at: int, value_at: int, is_integer: bool
) -> tuple[int, float]:
    if len(row) != len(header):
        raise CsvError(f"{file}: line {line}: {len(row)} columns, the header has {len(header)}")
    try:
        time_unix_nano = parse_time(row[time_at])
    except ValueError as error:
        raise CsvError(f"{file}: line {line}, column timestamp: {error}") from error
    try:
        return time_unix_nano, parse_value(row[value_at], is_integer=is_integer)
    except ValueError as error:
        raise CsvError(f"{file}: line {line}, column value: {error}") from error


def _highest_sequence(connection: Connection, producer_id: str) -> int:
    request = reading_pb2.GetProducerRequest(producer_id=producer_id)
    return connection.call(GET_PRODUCER, request).highest_sequence


def _next_attempt(connection: Connection, producer_id: str) -> int:
    """The first number behind the id that was not used yet."""
    attempt = 2
    while _highest_sequence(connection, f"{producer_id}-{attempt}"):
        attempt += 1
    return attempt
