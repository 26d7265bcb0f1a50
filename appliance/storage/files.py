"""Small files and directories whose presence is a promise: written whole or not at all.

Invariant: when a function returns, what it did survives a power cut (file and directory synced).
Called at start and by the committer's thread, never on the loop.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import StorageFailed


@contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Translate the operating system's refusals."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"{what} failed: {error.strerror or error} ({error.filename or 'no file named'}); check the "
            f"card, its free space and the directory's owner"
        ) from error


def write_file(path: Path, content: bytes) -> None:
    """Replace the file as a whole: written beside it, synced, renamed over it."""
    with file_errors(f"writing {path}"):
        temporary = path.with_name(path.name + ".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names added to or taken from the directory durable."""
    with file_errors(f"syncing {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a directory with all it holds, if it is there."""
    with file_errors(f"removing {path}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        else:
            return
    sync_directory(path.parent)
