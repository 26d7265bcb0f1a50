"""doctor: what about this machine, its network and its cluster should be changed, most harmful first."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec
from google.protobuf.json_format import MessageToDict

from appliance import __version__
from appliance.addresses import split_address
from appliance.cli.common import connect, connection_options, note, output_option
from appliance.cli.main import EXIT_ERROR, EXIT_OK
from appliance.cli.output import Row, emit
from appliance.client.connection import Connection
from appliance.client.methods import GET_STATUS, LIST_MEMBERS
from appliance.config import DEFAULT_PORTS, Config, load
from appliance.errors import ConfigurationError, RaftberryError
from appliance.host.checkup import Finding, Harm, check_certificate, check_machine, check_port
from appliance.node.tokens import INVITE_PREFIX, TOKEN_PREFIX
from appliance.units import Duration
from raftberry.v1 import cluster_pb2

COLUMNS: Final = ("harm", "what", "found", "advice")
PEER_TIMEOUT_S: Final = 2.0
SLOW_PEER_S: Final = 0.05
JOURNAL_LINES: Final = 2_000

_SECRET: Final = re.compile(
    rf"(?:{TOKEN_PREFIX}|{INVITE_PREFIX}|(?i:bearer )|raftberry_session=)[\w\-.=]+"
    r"|-----BEGIN [^-]+-----.*?-----END [^-]+-----"
    # A key whose begin the log has lost: its lines, then its last one. A checksum in hex is none.
    r"|(?<![A-Za-z0-9+/])(?![0-9a-f]{64})[A-Za-z0-9+/]{64}(?![A-Za-z0-9+/])"
    r"|[^\n]*\n[^\n]*-----END [^-]+-----",
    re.DOTALL,
)


@click.command()
@click.option("--data", metavar="DIR", help="Data directory.  [default: as configured]")
@click.option("--all", "show_all", is_flag=True, help="Also what is well.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all findings, status, configuration and the last log lines, without secrets, to this .tar.gz.",
)
@connection_options
@output_option
def doctor(
    data: str | None,
    show_all: bool,
    bundle: Path | None,
    endpoints: tuple[str, ...],
    timeout: Duration,
    output: str,
) -> int:
    """Check this machine, its network and its node, and say what to change, most harmful first.

    Exit status 1 if something may lose data or stop the node.

    \b
    Example: raftberry doctor --bundle support.tar.gz
    """
    findings: list[Finding] = []
    config = _configuration(findings, data)
    findings += check_machine(config.data)
    with connect(endpoints, timeout) as connection:
        answers = list(_check_node(connection))
    is_served = not any(finding.what == "node" and finding.harm is Harm.STOPS for finding in answers)
    findings += [*answers, *_check_ports(config, is_served=is_served)]
    findings.sort(key=lambda finding: finding.harm)
    shown = [finding for finding in findings if show_all or finding.harm is not Harm.NONE]
    emit(map(_row, shown), COLUMNS, output)
    sys.stdout.flush()
    if bundle is not None:
        with connect(endpoints, timeout) as connection:
            write_bundle(bundle, findings, config, connection)
        note(f"wrote {bundle}: read it before you send it to somebody")
    if not shown:
        note(f"nothing to change: {len(findings)} checks were well; see them with --all")
    return EXIT_ERROR if any(finding.harm <= Harm.STOPS for finding in findings) else EXIT_OK


def _configuration(findings: list[Finding], data: str | None) -> Config:
    flags = {"storage.data": data}
    try:
        return load(path=None, environment=os.environ, flags=flags)
    except ConfigurationError as error:
        findings.append(
            Finding(Harm.STOPS, "configuration", str(error), "correct it: the node does not start")
        )
        return load(path=Path(os.devnull), environment={}, flags=flags)


def _check_node(connection: Connection) -> Iterator[Finding]:
    """What the node says, and whether its peers can be reached from here."""
    try:
        status = connection.call(GET_STATUS, cluster_pb2.GetStatusRequest())
    except RaftberryError as error:
        yield Finding(Harm.STOPS, "node", str(error), "if it does not run: systemctl start raftberry")
        return
    yield Finding(Harm.NONE, "node", f"{status.name} runs version {status.version}")
    if status.version != __version__:
        yield Finding(
            Harm.SLOWS,
            "version",
            f"the node runs {status.version}, this command is {__version__}",
            "restart the node",
        )
    yield check_certificate(status.certificate_expires_unix_nano, time.time_ns())
    for alarm in status.alarms:
        yield Finding(
            Harm.STOPS if not status.has_quorum else Harm.SLOWS, "alarm", alarm, "see docs/operating.md"
        )
    for peer in status.peers:
        if peer.name != status.name:
            yield check_peer(peer.name, peer.peer_address)


def _check_ports(config: Config, *, is_served: bool) -> Iterator[Finding]:
    settled = config.listening("")
    for purpose in DEFAULT_PORTS:
        address: str = getattr(settled, purpose).address
        _, port = split_address(address, what=f"{purpose}.address")
        yield check_port(purpose, port, is_served=is_served)


def check_peer(name: str, address: str) -> Finding:
    """Whether its peer port takes a connection, and how long that takes."""
    began_s = time.perf_counter()
    try:
        host, port = split_address(address, what=f"the address of {name}")
        socket.create_connection((host, port), timeout=PEER_TIMEOUT_S).close()
    except (OSError, ConfigurationError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Finding(
            Harm.STOPS,
            "network",
            f"{name} at {address}: {reason}",
            "check its power, its cable and firewalls between",
        )
    took_s = time.perf_counter() - began_s
    found = f"{name} at {address}: connected in {took_s * 1000:.1f} ms"
    if took_s > SLOW_PEER_S:
        return Finding(Harm.SLOWS, "network", found, "every write waits for it; prefer a cable to Wi-Fi")
    return Finding(Harm.NONE, "network", found)


def write_bundle(bundle: Path, findings: Sequence[Finding], config: Config, connection: Connection) -> None:
    """A .tar.gz for somebody who helps. Whatever looks like a token or a key is taken out."""
    parts = {
        "findings.json": json.dumps([_row(finding) for finding in findings], indent=2),
        "machine.txt": f"raftberry {__version__}\n{platform.platform()}\n{platform.python_version()}\n",
        "configuration.toml": _configuration_text(config),
        "mounts.txt": Path("/proc/mounts").read_text(errors="replace"),
        "log.txt": _log_lines(),
    }
    try:
        status = connection.call(GET_STATUS, cluster_pb2.GetStatusRequest())
        members = connection.call(LIST_MEMBERS, cluster_pb2.ListMembersRequest())
        parts["status.json"] = json.dumps(MessageToDict(status), indent=2)
        parts["members.json"] = json.dumps(MessageToDict(members), indent=2)
    except RaftberryError as error:
        parts["status.json"] = str(error)
    with tarfile.open(bundle, "w:gz") as archive:
        for name, text in sorted(parts.items()):
            content = without_secrets(text).encode()
            entry = tarfile.TarInfo(f"raftberry-support/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))


def _configuration_text(config: Config) -> str:
    """What is in effect, as it would be written."""
    lines: list[str] = []
    for section in msgspec.structs.fields(config):
        options = getattr(config, section.name)
        lines.append(f"[{section.name}]")
        lines += [
            f"{field.encode_name} = {getattr(options, field.name)!r}"
            for field in msgspec.structs.fields(options)
        ]
    return "\n".join([*lines, ""])


def without_secrets(text: str) -> str:
    return _SECRET.sub("[removed]", text)


def _log_lines() -> str:
    """The last of the service's journal; what there is to say if there is none."""
    command = shutil.which("journalctl")
    if command is None:
        return "no journalctl here\n"
    done = subprocess.run(
        [command, "-u", "raftberry", "-n", str(JOURNAL_LINES), "--no-pager", "-o", "short-iso"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=30,
    )
    return done.stdout or done.stderr


def _row(finding: Finding) -> Row:
    return {
        "harm": finding.harm.name.lower().replace("_", " ") if finding.harm is not Harm.NONE else "well",
        "what": finding.what,
        "found": finding.found,
        "advice": finding.advice,
    }
