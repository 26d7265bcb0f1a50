"""backup and restore: the whole state in one checked file, and a new cluster out of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from appliance.cli.common import connect, connection_options, note, output_option
from appliance.cli.files import whole_file
from appliance.cli.output import emit_one
from appliance.cli.times import format_time
from appliance.client.methods import BACKUP
from appliance.clock import system_random
from appliance.config import load
from appliance.host.machine import machine_id
from appliance.model import hex_id
from appliance.node.backup import BackupReader
from appliance.node.restoring import NewNode, restore
from appliance.peers.founding import derive_cluster_id
from appliance.units import Duration
from raftberry.v1 import maintenance_pb2, reading_pb2


class _Received:
    """The chunks of a call as a source for BackupReader, which also keeps them in a file."""

    def __init__(self, chunks: Iterator[maintenance_pb2.BackupResponse], kept: IO[bytes]) -> None:
        self._chunks, self._kept = chunks, kept
        self._buffer = bytearray()
        self.size_bytes = 0

    def read(self, size: int, /) -> bytes:
        while len(self._buffer) < size:
            response = next(self._chunks, None)
            if response is None:
                break
            self._buffer += response.data
            self.size_bytes += len(response.data)
            self._kept.write(response.data)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--local", is_flag=True, help="What the asked node has, also without a majority.")
@connection_options
@output_option
def backup_command(
    file: Path, local: bool, endpoints: tuple[str, ...], timeout: Duration, output: str
) -> None:
    """Write the whole state of the cluster at one index to FILE, while writes go on.

    It holds every write that was acknowledged before the call. FILE appears when all of it has arrived, was checked
    and is on the disk.

    \b
    Example: raftberry backup /media/usb/raftberry-$(date +%F).backup
    """
    consistency = reading_pb2.CONSISTENCY_LOCAL if local else reading_pb2.CONSISTENCY_LINEARIZABLE
    request = maintenance_pb2.BackupRequest(consistency=consistency)
    with connect(endpoints, timeout) as connection, whole_file(file) as kept:
        received = _Received(connection.stream(BACKUP, request), kept)
        reader = BackupReader(received)
        tables = Counter(table for table, _, _ in reader.records())
    emit_one(
        _described(reader, tables) | {"file": click.format_filename(file), "size_bytes": received.size_bytes},
        output,
    )


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--name", help="Name of the new cluster's only node.  [default: as configured, or the host name]"
)
@click.option("--data", metavar="DIR", help="Its data directory.  [default: as configured]")
@click.option("--replace", is_flag=True, help="Set a directory that is there aside, under another name.")
@click.option("--check", is_flag=True, help="Only read FILE to its end and say what it holds.")
@output_option
def restore_command(
    file: Path, name: str | None, data: str | None, replace: bool, check: bool, output: str
) -> None:
    """Make a new cluster of one from the backup FILE; the node must not be running.

    What was restored is read back before the directory gets its name. The cluster has a new id: the nodes of the old
    one can't join it by accident; add nodes as to any new cluster.

    \b
    Example: raftberry restore raftberry.backup --replace
    """
    with file.open("rb") as source:
        reader = BackupReader(source, where=click.format_filename(file))
        if check:
            tables = Counter(table for table, _, _ in reader.records())
            emit_one(_described(reader, tables) | {"file": click.format_filename(file)}, output)
            return
        config = load(path=None, environment=os.environ, flags={"node.name": name, "storage.data": data})
        rng = system_random()
        node = NewNode(
            name=config.node.name,
            machine_id=machine_id(),
            peer_address=config.listening("").peer.address,
            draw_member_id=lambda: rng.getrandbits(64) or 1,
            cluster_id_of=lambda member: derive_cluster_id({config.node.name: member}),
        )
        aside = config.data.with_name(f"{config.data.name}.replaced-{int(time.time())}") if replace else None
        restored = restore(reader, config.data, node, set_aside=aside)
    if aside is not None and aside.exists():
        note(f"the directory that was there is now {aside}; remove it when nothing in it is missed")
    emit_one(
        {
            "data": str(config.data),
            "cluster_id": hex_id(restored.cluster_id),
            "index": restored.position.index,
            "series": restored.series_count,
            "readings": restored.reading_count,
            "keys": restored.key_count,
        },
        output,
    )


def _described(reader: BackupReader, tables: Counter[str]) -> dict[str, object]:
    header = reader.header
    return {
        "cluster_id": hex_id(header.cluster_id),
        "node": header.node,
        "version": header.version,
        "made": format_time(header.time_unix_nano),
        "index": header.index,
        "series": tables["series"],
        "blocks": tables["blocks"],
        "keys": tables["keys"],
    }
