"""Rows on stdout in the format that was asked for: table, json, jsonl or csv.

A row is a dict in column order; every row of one output has the same keys. Units stand in the column's name and
are made readable only in tables. There, what would steer the terminal is escaped, and long values are cut.
"""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click
from rich.cells import cell_len, set_cell_size

from appliance.cli.times import format_time
from raftberry.v1 import reading_pb2

FORMATS: Final = ("table", "json", "jsonl", "csv")

VALUE_WIDTH_MAX: Final = 60
"""Columns of a value in a table of many; the other formats have it whole."""

Row = dict[str, object]


def emit(rows: Iterable[Row], columns: Sequence[str], output: str) -> None:
    """Print all rows. Only jsonl and csv print each as it comes."""
    if output == "json":
        click.echo(json.dumps([_plain(row) for row in rows], ensure_ascii=False, indent=1))
    elif output == "table":
        click.echo(render_table(list(rows), columns))
    else:
        for line in lines(rows, columns, output):
            click.echo(line)


def emit_forever(rows: Iterable[Row], columns: Sequence[str], output: str) -> None:
    """Print each row when it comes; json means jsonl, because an array would never end."""
    for line in lines(rows, columns, "jsonl" if output == "json" else output):
        click.echo(line)


def emit_one(row: Row, output: str) -> None:
    """Print a result that is not a list: an object in json, `name: value` lines as a table."""
    if output == "table":
        click.echo("\n".join(f"{name}: {_text(name, value)}" for name, value in row.items()))
    elif output == "json":
        click.echo(json.dumps(_plain(row), ensure_ascii=False, indent=1))
    else:
        emit([row], list(row), output)


def lines(rows: Iterable[Row], columns: Sequence[str], output: str) -> Iterator[str]:
    """One line for each row; csv begins with a header."""
    if output == "csv":
        yield _csv_line(list(columns))
    for row in rows:
        if output == "csv":
            yield _csv_line([_csv_text(row[column]) for column in columns])
        elif output == "jsonl":
            yield json.dumps(_plain(row), ensure_ascii=False)
        else:
            yield "  ".join(_cell(column, row[column]) for column in columns)


def render_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Aligned columns under their names; numbers to the right."""
    titles = [column.removesuffix("_bytes").replace("_", " ").upper() for column in columns]
    cells = [[_cell(column, row[column]) for column in columns] for row in rows]
    widths = [
        max(cell_len(title), *(cell_len(line[i]) for line in cells), 0) for i, title in enumerate(titles)
    ]
    is_right = [
        bool(rows) and all(isinstance(row[column], int | float | None) for row in rows) for column in columns
    ]
    return "\n".join(
        "  ".join(
            _padding(cell, width) + cell if right else cell + _padding(cell, width)
            for cell, width, right in zip(line, widths, is_right, strict=True)
        ).rstrip()
        for line in [titles, *cells]
    )


def reading_rows(readings: reading_pb2.Readings) -> Iterator[Row]:
    """One row for each reading of a series' columns."""
    values: Sequence[float] = readings.int_value or readings.value
    for time_unix_nano, value in zip(readings.time_unix_nano, values, strict=True):
        yield {
            "time": format_time(time_unix_nano),
            "sensor": readings.sensor,
            "metric": readings.metric,
            "value": value,
            "time_unix_nano": time_unix_nano,
        }


def human_size(size_bytes: float) -> str:
    """`8.0 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def _cell(column: str, value: object) -> str:
    """A value in a table of many."""
    text = _text(column, value)
    if column != "value" or cell_len(text) <= VALUE_WIDTH_MAX:
        return text
    return set_cell_size(text, VALUE_WIDTH_MAX - 1).rstrip() + "…"


def _padding(cell: str, width: int) -> str:
    return " " * (width - cell_len(cell))


def _text(column: str, value: object) -> str:
    """A value for a person's eyes, on one line."""
    text = _readable(column, value)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    """Itself, or its escape where it is no letter, sign or space but would steer the terminal."""
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def _readable(column: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    if column.endswith("_bytes") and isinstance(value, int):
        return human_size(value)
    if column == "readings_per_second" and isinstance(value, float):
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return repr(value) if isinstance(value, float) else str(value)


def _csv_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, float) else str(value)


def _csv_line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()


def _plain(row: Row) -> Row:
    """JSON has no NaN and no infinities: they go as the strings that protobuf's JSON uses."""
    names = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return {
        key: names.get(value, "NaN") if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
