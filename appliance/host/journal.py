"""Where log lines go: to journald with structured fields, or to stderr as text.

Invariant: a line reads the same in both. What it says as `key=value` is also a field, RAFTBERRY_KEY, and what
stands before the first pair is RAFTBERRY_EVENT, so that `journalctl RAFTBERRY_TERM=7` finds a term.
Called by app.py before anything is logged.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Final

try:
    from systemd import journal
except ImportError:
    # A development machine may lack libsystemd; the package for the Pi brings it.
    journal = None

STREAM_VARIABLE: Final = "JOURNAL_STREAM"
TEXT_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
FIELDS_MAX: Final = 32
"""journald takes more; a line with more pairs than this has a bug."""

_PAIR: Final = re.compile(r"(?:^| )([a-z][a-z0-9_]{0,40})=(\S+)")
_SYSLOG_PRIORITIES: Final = (
    (logging.DEBUG, 7),
    (logging.INFO, 6),
    (logging.WARNING, 4),
    (logging.ERROR, 3),
    (logging.CRITICAL, 2),
)

Send = Callable[..., object]


class JournalHandler(logging.Handler):
    """One record, one entry of the journal. journald is local and buffers: sending does not wait for a disk."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(self.format(record), **fields_of(record))
        except Exception:  # noqa: BLE001 - logging's own rule: a log line never fails its caller
            self.handleError(record)


def fields_of(record: logging.LogRecord) -> dict[str, str | int]:
    """The journal's fields of a record, but for MESSAGE."""
    message = record.getMessage()
    fields: dict[str, str | int] = {
        "PRIORITY": str(syslog_priority(record.levelno)),
        "SYSLOG_IDENTIFIER": "raftberry",
        "LOGGER": record.name,
        "THREAD_NAME": record.threadName or "",
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName or "",
    }
    pairs = list(_PAIR.finditer(message))[:FIELDS_MAX]
    if pairs:
        fields["RAFTBERRY_EVENT"] = message[: pairs[0].start()].rstrip(" :")
    fields.update({f"RAFTBERRY_{pair[1].upper()}": pair[2] for pair in pairs})
    return fields


def syslog_priority(level: int) -> int:
    """7 (debug) to 2 (critical), as in sd-daemon(3)."""
    return next((priority for bound, priority in _SYSLOG_PRIORITIES if level <= bound), 2)


def configure_logging(level: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send the process's log lines to journald if stderr is connected to it, else to stderr."""
    if journal is not None and is_journal(environment, sys.stderr.fileno()):
        handler: logging.Handler = JournalHandler(journal.send)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(TEXT_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # gRPC reports each reset connection of a client as if it were ours.
    logging.getLogger("grpc").setLevel(logging.WARNING)


def set_log_level(level: str) -> None:
    """For a reload."""
    logging.getLogger().setLevel(level.upper())


def is_journal(environment: Mapping[str, str], descriptor: int) -> bool:
    """Whether systemd connected this descriptor to the journal (JOURNAL_STREAM in systemd.exec(5))."""
    device, _, inode = environment.get(STREAM_VARIABLE, "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))
