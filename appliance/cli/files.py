"""The FILE that a command writes.

Invariant: a regular file appears complete or not at all, with the mode that the umask gives; what is no regular file
(a pipe, a device) is written into, and a symbolic link stays one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from appliance.errors import RaftberryError
from appliance.storage.files import sync_directory


@contextmanager
def whole_file(file: Path, *, encoding: str | None = None) -> Iterator[IO[Any]]:
    """What is written to it is on the disk under the file's name when the block ends; without an encoding bytes."""
    if file.exists() and not file.is_file():
        with _reader_stays(file), file.open("w" if encoding else "wb", encoding=encoding) as out:
            yield out
        return
    target = Path(os.path.realpath(file))
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    with _named(file, partial), partial.open("x" if encoding else "xb", encoding=encoding) as out:
        try:
            yield out
            out.flush()
            os.fsync(out.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    sync_directory(target.parent)


@contextmanager
def _named(file: Path, partial: Path) -> Iterator[None]:
    """Errors name the file that was typed, not the one beside it."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise


@contextmanager
def _reader_stays(file: Path) -> Iterator[None]:
    """Behind a pipe half of a file is a loss, other than on standard output."""
    try:
        yield
    except BrokenPipeError as error:
        raise RaftberryError(f"{file}: its reader has gone before all was written; write it again") from error
