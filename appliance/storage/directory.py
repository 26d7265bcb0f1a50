"""The data directory: locked by one process, bound to one node, machine and cluster.

    LOCK       held while a process uses the directory; names its pid
    identity   who this is (identity.py)
    journal/   LMDB environment of the log
    CURRENT    names the store in use
    store.N/   LMDB environment of the store
    QUARANTINED  there once peers or damage have put this node in doubt: why
    REMOVED    there once this node is no member of its cluster any more, or the cluster was superseded: how that came
    CREATING   there while the first start is not finished; what it left is thrown away

Invariant: a directory is used only if all of it is there and it is this node's. A member id is
handed out only after everything it needs is durable, so an unfinished first start can be redone.
Called by whoever starts the node, before any thread exists.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from appliance.errors import CorruptData, DataDirectoryRefused, InDoubt
from appliance.limits import SUPERSEDED_MAX
from appliance.model import ClusterId, Configuration, Member, MemberId, hex_id
from appliance.storage.files import remove, sync_directory, write_file
from appliance.storage.identity import Identity, decode_identity, encode_identity
from appliance.storage.lmdb_journal import JOURNAL_MAP_BYTES, LmdbJournal
from appliance.storage.lmdb_store import CURRENT_FILE, STORE_MAP_BYTES, LmdbStore

LOCK_FILE: Final = "LOCK"
IDENTITY_FILE: Final = "identity"
JOURNAL_DIRECTORY: Final = "journal"
CREATING_FILE: Final = "CREATING"
QUARANTINE_FILE: Final = "QUARANTINED"
REMOVED_FILE: Final = "REMOVED"
_OURS: Final = (IDENTITY_FILE, JOURNAL_DIRECTORY, CURRENT_FILE, QUARANTINE_FILE, REMOVED_FILE)
_REJOIN: Final = "to make it a new node, empty the directory and let it rejoin"
_DOUBT: Final = "it takes no part, and what is there is kept"


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Address space of the two maps: above the largest quota an operator may set."""

    journal_map_bytes: int = JOURNAL_MAP_BYTES
    store_map_bytes: int = STORE_MAP_BYTES


DEFAULT_OPTIONS: Final = StorageOptions()


class DataDirectory:
    """An open, locked data directory. Journal and store are opened when first asked for.

    Their damage (CorruptData) therefore shows there, and the identity stays readable: a node in
    doubt can still say who it is.
    """

    def __init__(self, path: Path, *, lock: int, identity: Identity, options: StorageOptions) -> None:
        self._path = path
        self._lock: int | None = lock
        self._identity = identity
        self._options = options
        self._journal: LmdbJournal | None = None
        self._store: LmdbStore | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str,
        machine_id: str,
        founders: Sequence[str],
        draw_member_id: Callable[[], int],
        options: StorageOptions = DEFAULT_OPTIONS,
    ) -> DataDirectory:
        """Open, or create at a node's first start. founders: names; empty to take the stored ones.

        Raises DataDirectoryRefused: its text says what was found, what was expected, what to do. InDoubt:
        `discard` makes it a new one.
        """
        directory = Path(path)
        _ensure_directory(directory)
        lock = _take_lock(directory)
        try:
            expected = Identity(
                member_id=MemberId(0),
                name=name,
                machine=machine_id,
                cluster_id=ClusterId(0),
                founders=tuple(sorted(founders)),
                members=(),
            )
            if _is_new(directory):
                identity = _create(directory, expected, draw_member_id, options)
            else:
                identity = _read_identity(directory)
                _check_parts(directory)
                _check_identity(directory, identity, expected)
        except BaseException:
            os.close(lock)
            raise
        return cls(directory, lock=lock, identity=identity, options=options)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def journal(self) -> LmdbJournal:
        """Raises CorruptData when its file is damaged."""
        assert self._lock is not None, "the data directory is closed"
        if self._journal is None:
            self._journal = LmdbJournal.open(
                self._path / JOURNAL_DIRECTORY, map_bytes=self._options.journal_map_bytes
            )
        return self._journal

    @property
    def store(self) -> LmdbStore:
        """Raises CorruptData when its file is damaged. After an install: see replace_store."""
        assert self._lock is not None, "the data directory is closed"
        if self._store is None:
            self._store = LmdbStore.open(self._path, map_bytes=self._options.store_map_bytes)
        return self._store

    def replace_store(self, store: LmdbStore) -> None:
        """Tell the directory which store a finished install made, so that it is the one closed."""
        self._store = store

    @property
    def quarantine_reason(self) -> str:
        """Why this directory must not vote, found in an earlier life; empty: it may."""
        path = self._path / QUARANTINE_FILE
        return path.read_text(errors="replace").strip() if path.exists() else ""

    def quarantine(self, reason: str) -> None:
        """Durable: peers forget in a crash of all nodes what they noticed, this directory must not."""
        write_file(self._path / QUARANTINE_FILE, f"{reason}\n".encode())

    @property
    def removed_reason(self) -> str:
        """Why this directory takes no part any more; empty: it does."""
        path = self._path / REMOVED_FILE
        return path.read_text(errors="replace").strip() if path.exists() else ""

    def mark_removed(self, reason: str) -> None:
        """Durable: the next start must not dial those who removed this node, for ever."""
        write_file(self._path / REMOVED_FILE, f"{reason}\n".encode())

    def join(self, cluster_id: ClusterId, configuration: Configuration) -> None:
        """Make this new directory one of a member that the cluster has taken in; the node then starts as a learner.

        configuration: the committed one that names this member id. Idempotent, so that a join can be done again
        after a power cut; another cluster is refused.
        """
        member = configuration.member(self._identity.member_id)
        assert member is not None, "a cluster that has not taken this member in can't be joined"
        self.set_cluster(cluster_id, configuration.members, configuration.version)

    def renew_cluster(self, cluster_id: ClusterId, members: Sequence[Member], version: int) -> None:
        """The node is of another cluster from now on: nobody of the old one will talk to it, and it tells them why."""
        remove(self._path / REMOVED_FILE)
        superseded = (*self._identity.superseded, self._identity.cluster_id)[-SUPERSEDED_MAX:]
        self._write_identity(
            replace(
                self._identity,
                cluster_id=cluster_id,
                members=tuple(members),
                members_version=version,
                superseded=superseded,
                outlived=(),
            )
        )

    def outlive(self, cluster_id: ClusterId) -> None:
        """Durable: that cluster was made of this one, and this one goes on all the same."""
        if cluster_id not in self._identity.outlived:
            outlived = (*self._identity.outlived, cluster_id)[-SUPERSEDED_MAX:]
            self._write_identity(replace(self._identity, outlived=outlived))

    def remember_members(self, members: Sequence[Member], version: int) -> None:
        """Whom to dial at the next start. An older version than what is held is passed over."""
        if version >= self._identity.members_version:
            self._write_identity(replace(self._identity, members=tuple(members), members_version=version))

    def set_cluster(self, cluster_id: ClusterId, members: Sequence[Member], version: int = 1) -> None:
        """Persist what the founding exchange found. Idempotent; another cluster is refused.

        version: of the configuration that names the members; above 1 they are not the founders any more.
        """
        stored = self._identity.cluster_id
        if stored not in (0, cluster_id):
            raise DataDirectoryRefused(
                f"{self._path} belongs to cluster {hex_id(stored)}, the peers to {hex_id(cluster_id)}; "
                f"check --initial-members; {_REJOIN}"
            )
        self._write_identity(
            replace(self._identity, cluster_id=cluster_id, members=tuple(members), members_version=version)
        )

    def _write_identity(self, identity: Identity) -> None:
        if identity != self._identity:
            write_file(self._path / IDENTITY_FILE, encode_identity(identity))
            self._identity = identity

    def close(self) -> None:
        """Close journal and store, then let go of the lock. Idempotent."""
        if self._journal is not None:
            self._journal.close()
        if self._store is not None:
            self._store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def discard(path: str | os.PathLike[str]) -> None:
    """Give up a node's data: the next `open` finds a new directory and draws a new member id.

    Raises DataDirectoryRefused when a process uses it, or it is not Raftberry's. Durable at once and done again after
    a power cut: the data itself goes with the next open.
    """
    directory = Path(path)
    _ensure_directory(directory)
    with kept_from_others(directory):
        if not _is_new_already(directory):
            write_file(directory / CREATING_FILE, b"")


def check_holds_node(path: Path) -> None:
    """Raises DataDirectoryRefused where `open` would make a new node, or empty what was given up. Changes nothing."""
    try:
        is_empty = not path.exists() or _is_new(path)
    except OSError:
        # `open` says what is in the way.
        return
    if is_empty:
        raise DataDirectoryRefused(
            f"{path} {'holds no node' if path.exists() else 'does not exist'}: nothing was changed; name the node's "
            "data directory with --data"
        )


@contextmanager
def kept_from_others(path: Path) -> Iterator[None]:
    """No process opens the directory meanwhile. Raises DataDirectoryRefused when one uses it."""
    lock = _take_lock(path)
    try:
        yield
    finally:
        os.close(lock)


def _is_new_already(path: Path) -> bool:
    try:
        return _is_new(path)
    except InDoubt:
        return False


def _ensure_directory(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise DataDirectoryRefused(f"{path} is a file, a directory is expected; name another with --data")
    try:
        if not path.exists():
            path.mkdir(mode=0o700, parents=True)
            sync_directory(path.parent)
    except OSError as error:
        raise DataDirectoryRefused(
            f"{path} cannot be created: {error.strerror}; create it, owned by the user that runs "
            f"Raftberry, or name another with --data"
        ) from error


def _take_lock(path: Path) -> int:
    try:
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirectoryRefused(
            f"{path} is not writable for user id {os.geteuid()}: {error.strerror}; give it to the user "
            f"that runs Raftberry (chown -R), or name another with --data"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise DataDirectoryRefused(
            f"{path} is in use by process {holder}; stop that node first, or name another with --data"
        ) from error
    pid = f"{os.getpid()}\n".encode()
    if os.pread(lock, 20, 0) != pid:
        os.ftruncate(lock, 0)
        os.pwrite(lock, pid, 0)
    return lock


def _is_new(path: Path) -> bool:
    if (path / CREATING_FILE).exists():
        return True
    ignored = (LOCK_FILE, f"{CREATING_FILE}.tmp", "lost+found")
    found = sorted(entry.name for entry in path.iterdir() if entry.name not in ignored)
    if not found:
        return True
    if IDENTITY_FILE in found:
        return False
    if JOURNAL_DIRECTORY in found or CURRENT_FILE in found:
        raise InDoubt(
            f"{path} holds {', '.join(found)} but no identity: it was partly wiped, and what is left "
            f"cannot be trusted to vote: {_DOUBT}; restore the whole directory"
        )
    raise DataDirectoryRefused(
        f"{path} holds {', '.join(found[:5])}, which is not Raftberry's; name an empty directory with --data"
    )


def _create(
    path: Path, expected: Identity, draw_member_id: Callable[[], int], options: StorageOptions
) -> Identity:
    write_file(path / CREATING_FILE, b"")
    for entry in sorted(path.iterdir()):
        if entry.name in _OURS or entry.name.startswith("store."):
            remove(entry)
    LmdbJournal.create(path / JOURNAL_DIRECTORY, map_bytes=options.journal_map_bytes).close()
    LmdbStore.create(path, map_bytes=options.store_map_bytes).close()
    identity = replace(expected, member_id=MemberId(draw_member_id()))
    assert 0 < identity.member_id < 1 << 64, "a member id has 64 bits and is never 0"
    write_file(path / IDENTITY_FILE, encode_identity(identity))
    remove(path / CREATING_FILE)
    return identity


def _read_identity(path: Path) -> Identity:
    try:
        return decode_identity((path / IDENTITY_FILE).read_bytes())
    except CorruptData as error:
        raise InDoubt(f"{path}: {error}: {_DOUBT}; restore the whole directory") from error
    except OSError as error:
        raise DataDirectoryRefused(
            f"{path / IDENTITY_FILE} cannot be read: {error.strerror}; check owner and card"
        ) from error


def _check_parts(path: Path) -> None:
    for part in (JOURNAL_DIRECTORY, CURRENT_FILE):
        if not (path / part).exists():
            raise InDoubt(
                f"{path} has an identity but no {part}: it was partly wiped and may have forgotten votes "
                f"and acknowledged writes: {_DOUBT}; restore the whole directory"
            )


def _check_identity(path: Path, found: Identity, expected: Identity) -> None:
    if found.name != expected.name:
        raise DataDirectoryRefused(
            f"{path} belongs to node {found.name!r}, this is {expected.name!r}; check --name and --data"
        )
    if found.machine != expected.machine:
        raise InDoubt(
            f"{path} belongs to machine {found.machine!r}, this is {expected.machine!r}: a cloned or moved "
            f"card, and two nodes with one identity would vote twice: {_DOUBT}; put the card back into its machine"
        )
    if expected.founders and found.founders != expected.founders:
        raise DataDirectoryRefused(
            f"{path} belongs to a cluster founded by {', '.join(found.founders) or 'nobody'}, "
            f"--initial-members names {', '.join(expected.founders)}: another cluster; name the founders "
            f"as at the first start, or another directory with --data"
        )
