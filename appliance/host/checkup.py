"""What about this machine may hurt a node: found by reading files of the kernel, each with what to do about it.

Invariant: nothing is changed but a file of its own in the data directory's disk, and nothing needs root; what cannot be
read is said to be unknown, never to be well. root: where the files are, for tests.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import stat
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import psutil

from appliance.host.disk import sync_latencies_s
from appliance.host.machine import ROOT
from appliance.limits import CLOCK_EARLIEST_UNIX_NANO, GIB, MIB

SYNCS: Final = 50
SLOW_SYNC_S: Final = 0.05
BAD_SYNC_S: Final = 0.5
LEAST_MEMORY_BYTES: Final = 256 * MIB
LEAST_FREE_BYTES: Final = 1 * GIB
OPEN_FILES_LEAST: Final = 1_024
CERTIFICATE_DAYS_LEAST: Final = 30
"""Renewal is due a year before the end."""

DAY_NS: Final = 86_400_000_000_000

VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
WEAK: Final = frozenset({"vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "nfs", "nfs4", "cifs", "9p", "overlay"})

_THROTTLED: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"
_THROTTLED_BITS: Final = (
    (0, "the supply's voltage is too low now"),
    (2, "the processor is throttled now"),
    (16, "the supply's voltage was too low since the start"),
    (18, "the processor was throttled since the start"),
)
_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""


class Harm(IntEnum):
    """How much a finding hurts; most harmful first."""

    LOSES_DATA = 0
    STOPS = 1
    SLOWS = 2
    UNKNOWN = 3
    NONE = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """what was looked at, what was found there, and what to do; advice "" where all is well."""

    harm: Harm
    what: str
    found: str
    advice: str = ""


def check_machine(data: Path, *, root: Path = ROOT) -> Iterator[Finding]:
    """Everything that needs no running node. data: the data directory, or where it will be."""
    place = next(path for path in (data, *data.parents) if path.exists())
    yield check_filesystem(place, (root / "proc/mounts").read_text(errors="replace"))
    yield check_sync(place)
    yield check_space(place)
    yield check_owner(data)
    yield check_memory()
    yield check_clock(time.time_ns(), is_synchronised())
    yield check_supply(root)
    yield check_pages()
    yield check_open_files()


def check_filesystem(place: Path, mounts: str) -> Finding:
    """mounts: text of /proc/mounts."""
    where, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if (place.resolve() == Path(point) or Path(point) in place.resolve().parents) and len(point) >= len(
            where
        ):
            where, kind = point, found
    found_text = f"{place} is on {kind}, mounted at {where or '?'}"
    if kind in VOLATILE:
        return Finding(
            Harm.LOSES_DATA,
            "filesystem",
            found_text,
            "it is memory: everything is lost at a restart; use a disk",
        )
    if kind in WEAK:
        return Finding(
            Harm.LOSES_DATA,
            "filesystem",
            found_text,
            "it may lose synced writes at a power cut; use ext4, xfs, btrfs or f2fs",
        )
    return Finding(Harm.NONE, "filesystem", found_text)


def check_sync(place: Path) -> Finding:
    try:
        latencies = sync_latencies_s(place, count=SYNCS)
    except OSError as error:
        return Finding(
            Harm.UNKNOWN, "disk", f"{place}: {error.strerror}", "run doctor as root or as the service's user"
        )
    median, worst = statistics.median(latencies), max(latencies)
    found = f"fdatasync of 4 KiB: median {median * 1000:.1f} ms, worst of {SYNCS} {worst * 1000:.1f} ms"
    if median >= BAD_SYNC_S:
        return Finding(Harm.STOPS, "disk", found, "elections will happen by themselves; replace the card")
    if median >= SLOW_SYNC_S:
        return Finding(
            Harm.SLOWS, "disk", found, "every write waits this long; use a faster card (A2) or an SSD"
        )
    return Finding(Harm.NONE, "disk", found)


def check_space(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free at {place}"
    if free < LEAST_FREE_BYTES:
        return Finding(Harm.STOPS, "space", found, "writes are refused when it is full; free some space")
    return Finding(Harm.NONE, "space", found)


def check_owner(data: Path) -> Finding:
    if not data.exists():
        return Finding(Harm.NONE, "permissions", f"{data} does not exist yet")
    mode = stat.S_IMODE(data.stat().st_mode)
    found = f"{data} has mode {mode:04o}, owner {data.stat().st_uid}"
    if mode & 0o077:
        return Finding(
            Harm.LOSES_DATA,
            "permissions",
            found,
            f"others can read keys and readings in it: chmod 0700 {data}",
        )
    return Finding(Harm.NONE, "permissions", found)


def check_memory() -> Finding:
    available = psutil.virtual_memory().available
    found = f"{available / MIB:.0f} MiB available"
    if available < LEAST_MEMORY_BYTES:
        return Finding(
            Harm.STOPS, "memory", found, "a node may be ended by the kernel; stop what else runs here"
        )
    return Finding(Harm.NONE, "memory", found)


def check_clock(now_unix_nano: int, synchronised: bool | None) -> Finding:
    """synchronised None: the kernel does not say."""
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_unix_nano / 1e9))
    if now_unix_nano < CLOCK_EARLIEST_UNIX_NANO:
        return Finding(
            Harm.STOPS,
            "clock",
            f"{found}: it was never set",
            "readings without a time are refused, certificates look wrong; connect it to a time server, or fit a clock",
        )
    if synchronised is None:
        return Finding(Harm.UNKNOWN, "clock", found, "see `timedatectl`")
    if not synchronised:
        return Finding(
            Harm.SLOWS,
            "clock",
            f"{found}, not synchronised",
            "times of readings are this machine's own, and retention goes by them; enable systemd-timesyncd or chrony",
        )
    return Finding(Harm.NONE, "clock", f"{found}, synchronised")


def is_synchronised() -> bool | None:
    """What the kernel says of its clock; None: nothing."""
    timex = ctypes.create_string_buffer(512)  # struct timex, modes 0: only ask
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    return None if state < 0 else state != _TIME_ERROR


def check_supply(root: Path) -> Finding:
    """A Pi's firmware says whether its voltage was too low: the most common cause of a broken card."""
    try:
        bits = int((root / _THROTTLED).read_text().strip(), 16)
    except (OSError, ValueError):
        return Finding(Harm.NONE, "power supply", "this machine does not report it")
    said = [text for bit, text in _THROTTLED_BITS if bits >> bit & 1]
    if not said:
        return Finding(Harm.NONE, "power supply", "good since the start")
    return Finding(
        Harm.LOSES_DATA,
        "power supply",
        "; ".join(said),
        "cards break from it: use the official supply, a short cable, and cooling if it throttles",
    )


def check_pages() -> Finding:
    size = os.sysconf("SC_PAGE_SIZE")
    if size > 4096:
        return Finding(
            Harm.SLOWS,
            "page size",
            f"{size // 1024} KiB",
            "each commit writes four times as much as with 4 KiB; on a Pi 5 set kernel=kernel8.img in config.txt",
        )
    return Finding(Harm.NONE, "page size", f"{size // 1024} KiB")


def check_open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_LEAST:
        return Finding(
            Harm.STOPS, "open files", f"limit {soft}", f"raise it to {OPEN_FILES_LEAST} or more (ulimit -n)"
        )
    return Finding(Harm.NONE, "open files", f"limit {soft}")


def check_port(purpose: str, port: int, *, is_served: bool) -> Finding:
    """Who listens at one of the node's ports. is_served: the node answers."""
    holder = _listener(port)
    found = f"{port} ({purpose}): {f'{holder} listens' if holder else 'nothing listens'}"
    if holder and not is_served:
        return Finding(
            Harm.STOPS,
            "port",
            found,
            f"end it, or choose another port: {purpose}.address in the configuration",
        )
    if is_served and not holder:
        advice = "what answered is another machine's node, or its configuration changed since: restart it"
        return Finding(Harm.UNKNOWN, "port", found, advice)
    return Finding(Harm.NONE, "port", found)


def _listener(port: int) -> str:
    """The program that listens there on any address; empty: none."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            try:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
            except (psutil.Error, TypeError):
                return "a program that only root may name"
    return ""


def check_certificate(expires_unix_nano: int, now_unix_nano: int) -> Finding:
    """expires_unix_nano: of the node's own; 0: it has none."""
    if not expires_unix_nano:
        return Finding(Harm.NONE, "certificate", "none: nothing here is encrypted")
    days = (expires_unix_nano - now_unix_nano) // DAY_NS
    found = f"this node's ends in {days} days" if days >= 0 else f"this node's ended {-days} days ago"
    if days < CERTIFICATE_DAYS_LEAST:
        advice = "it should have been renewed long before: see the clock, and the node's log; then restart it"
        return Finding(Harm.STOPS, "certificate", found, advice)
    return Finding(Harm.NONE, "certificate", f"{found}, and is renewed by itself")
