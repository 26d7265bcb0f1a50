"""Opens LMDB environments the one way they are opened here, and translates LMDB's errors.

Invariant: a commit returns after its pages and then its meta page are on disk (sync and metasync,
no writemap). One process, held by the data directory's lock, one writing thread; read transactions
may move between threads (py-lmdb always sets MDB_NOTLS).
LMDB counts readers in lock.mdb, a shared map: on the card each read would dirty a page that the
kernel writes back (measured: reads cost 4 KiB of writes each time the kernel flushes). The lock
file is therefore in memory, and no other process can share it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from appliance.errors import CorruptData, DataDirectoryRefused, StorageFailed
from appliance.limits import SCANS_MAX
from appliance.storage.files import file_errors, sync_directory
from appliance.storage.lmdb_files import DATA_FILE, check_data_file
from appliance.storage.records import REBUILD_HINT

LMDB_MAJOR: Final = 0
"""LMDB 0.9: py-lmdb 3 brings 1.0 as well, whose files are another format."""

READERS_MAX: Final = 1_024
"""Open read transactions: scans, snapshots and reads of the log at one time. One more would end the process."""

assert SCANS_MAX * 4 <= READERS_MAX, "clients must leave readers to the node's own work"

_LOCK_FILE: Final = "lock.mdb"
_CORRUPT: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


def create_environment(directory: Path, *, map_bytes: int) -> lmdb.Environment:
    """A new, empty environment, durable on return: its names and its meta pages."""
    with file_errors(f"creating {directory}"):
        directory.mkdir(mode=0o700)
    environment = _open(directory, map_bytes=map_bytes)
    with lmdb_errors(f"creating {directory}"):
        # LMDB writes the first meta pages without fsync; a power cut before the first commit would leave an empty
        # file (tests/system/power found it).
        environment.sync(True)
    sync_directory(directory)
    sync_directory(directory.parent)
    return environment


def open_environment(directory: Path, *, map_bytes: int) -> lmdb.Environment:
    """An existing environment, checked before it is mapped."""
    if not (directory / DATA_FILE).is_file():
        raise DataDirectoryRefused(
            f"{directory / DATA_FILE} is missing: the data directory was partly wiped; {REBUILD_HINT}"
        )
    check_data_file(directory)
    return _open(directory, map_bytes=map_bytes)


def used_bytes(environment: lmdb.Environment) -> int:
    """Bytes of pages that hold something, without those free to be used again."""
    with lmdb_errors("LMDB statistics"):
        stat = environment.stat()
    return stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])


@contextmanager
def lmdb_errors(where: str) -> Iterator[None]:
    """Translate LMDB's errors: damage is CorruptData, everything else StorageFailed."""
    try:
        yield
    except _CORRUPT as error:
        raise CorruptData(where, f"{error}; {REBUILD_HINT}") from error
    except lmdb.MapFullError as error:
        raise StorageFailed(
            f"{where}: {error}: the map is full, nothing of this commit was written; raise the size "
            f"limit in the configuration or shorten retention, then start again"
        ) from error
    except lmdb.Error as error:
        raise StorageFailed(
            f"{where}: {error}; check the card and its free space, then start again"
        ) from error


def _open(directory: Path, *, map_bytes: int) -> lmdb.Environment:
    lock_path = directory / _LOCK_FILE
    with file_errors(f"opening {directory}"):
        lock = os.memfd_create("raftberry-lmdb-lock", os.MFD_CLOEXEC)
        try:
            lock_path.unlink(missing_ok=True)
            lock_path.symlink_to(f"/proc/self/fd/{lock}")
            with lmdb_errors(f"opening {directory}"):
                return lmdb.Environment(
                    str(directory),
                    map_size=map_bytes,
                    mode=0o600,
                    sync=True,
                    metasync=True,
                    writemap=False,
                    max_readers=READERS_MAX,
                    lib_version=LMDB_MAJOR,
                )
        finally:
            # LMDB holds the file open; the name has done its work.
            os.close(lock)
            lock_path.unlink(missing_ok=True)
