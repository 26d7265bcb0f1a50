"""From a backup to a data directory of a new cluster of one, read back before anybody may use it.

Invariant: the directory appears under its name only when all of it is durable and was read back; a run that fails
leaves nothing, one whose power was cut only a directory beside it, which the next run throws away. No node runs in a
directory that is set aside: its lock is held from before the building to after the renaming. The cluster is a new one:
its id and its member's id are fresh, so no node of the old cluster will ever talk to it. Before any thread exists.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from appliance.errors import CorruptData, DataDirectoryRefused
from appliance.model import ClusterId, Member, MemberId, Position
from appliance.node.backup import BackupReader
from appliance.state import StateMachine
from appliance.state.configuration import CONFIGURATION_KEY, encode_record, founding_configuration
from appliance.state.layouts import encode_id, encode_member
from appliance.storage.directory import LOCK_FILE, DataDirectory, kept_from_others
from appliance.storage.files import file_errors, remove, sync_directory
from appliance.storage.store import Record

_OWN_KEY = ("meta", CONFIGURATION_KEY)
"""With the table of members, what a new cluster does not take over."""


@dataclass(frozen=True, slots=True)
class NewNode:
    """The only member of the new cluster. cluster_id_of: from its member id."""

    name: str
    machine_id: str
    peer_address: str
    draw_member_id: Callable[[], int]
    cluster_id_of: Callable[[MemberId], ClusterId]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was read back."""

    position: Position
    cluster_id: ClusterId
    series_count: int
    reading_count: int
    key_count: int


def restore(backup: BackupReader, path: Path, node: NewNode, *, set_aside: Path | None) -> Restored:
    """Make the data directory at path. set_aside: where a directory that is there already goes; None: refuse it.

    Raises CorruptData (the backup), DataDirectoryRefused (the directory), StorageFailed.
    """
    owner = owner_of(path)
    is_occupied = path.exists() and any(entry.name != LOCK_FILE for entry in path.iterdir())
    if is_occupied and set_aside is None:
        raise DataDirectoryRefused(
            f"{path} is not empty: nothing was changed; name another directory with --data, or give --replace to "
            "keep what is there aside"
        )
    building = path.with_name(f"{path.name}.restoring")
    # A node that runs in the directory would go on acknowledging under its new name.
    with kept_from_others(path) if path.exists() else nullcontext():
        remove(building)
        try:
            restored = _build(backup, building, node)
            give(building, owner)
        except BaseException:
            # Half a node is worth nothing, and may fill the card. What failed counts, not that this does.
            shutil.rmtree(building, ignore_errors=True)
            raise
        with file_errors(f"putting {building} in the place of {path}"):
            if is_occupied and set_aside is not None:
                os.rename(path, set_aside)
            elif path.exists():
                (path / LOCK_FILE).unlink(missing_ok=True)
            os.rename(building, path)
        sync_directory(path.parent)
    return restored


def _build(backup: BackupReader, building: Path, node: NewNode) -> Restored:
    header = backup.header
    position = Position(header.index, header.term)
    with DataDirectory.open(
        building,
        name=node.name,
        machine_id=node.machine_id,
        founders=[node.name],
        draw_member_id=node.draw_member_id,
    ) as directory:
        member_id = directory.identity.member_id
        members = (Member(member_id, node.name, 1, node.peer_address),)
        digest = sha256()
        installer = directory.store.begin_install(position)
        installer.add(_hashed(_without_configuration(backup.records()), digest.update))
        installer.add(_own_records(members))
        replaced = directory.store
        directory.replace_store(installer.finish())
        replaced.close()
        cluster_id = node.cluster_id_of(member_id)
        directory.set_cluster(cluster_id, members)
        return _read_back(directory, position, cluster_id, digest.digest())


def _read_back(
    directory: DataDirectory, position: Position, cluster_id: ClusterId, written: bytes
) -> Restored:
    """The store holds what the backup held, and the state machine understands it."""
    with directory.store.snapshot() as reader:
        digest = sha256()
        # Each is verified as it is read.
        deque(_hashed(_without_configuration(reader.records()), digest.update), maxlen=0)
        if reader.position != position or digest.digest() != written:
            raise CorruptData(
                "restored store",
                f"what was read back is not what was written to {directory.path}: check the card",
            )
        state = StateMachine.restore(reader)
    return Restored(
        position=position,
        cluster_id=cluster_id,
        series_count=state.series_count,
        reading_count=state.reading_count,
        key_count=state.key_count,
    )


def _without_configuration(records: Iterable[Record]) -> Iterator[Record]:
    return (record for record in records if record[0] != "members" and record[:2] != _OWN_KEY)


def _own_records(members: tuple[Member, ...]) -> list[Record]:
    record = encode_record(founding_configuration(members))
    own = [("members", encode_id(member.member_id), encode_member(member)) for member in members]
    return [(*_OWN_KEY, record), *own]


def _hashed(records: Iterable[Record], update: Callable[[bytes], None]) -> Iterator[Record]:
    for record in records:
        table, key, value = record
        update(b"%d:%d:%d:" % (len(table), len(key), len(value)) + table.encode() + key + value)
        yield record


def owner_of(path: Path) -> tuple[int, int] | None:
    """Who the directory belongs to now: the service's user, when root restores."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_uid, found.st_gid


def give(path: Path, owner: tuple[int, int] | None) -> None:
    """Everything in path to owner: what root wrote, the service's user must read."""
    if owner is None or owner == (os.geteuid(), os.getegid()):
        return
    with file_errors(f"giving {path} to user {owner[0]}"):
        for folder, _, files in os.walk(path):
            os.chown(folder, *owner)
            for file in files:
                os.chown(os.path.join(folder, file), *owner)
