"""What the guard assumes of PySyncObj 0.3.17: another version must be read before it is trusted."""

from __future__ import annotations

import inspect
import socket

import pysyncobj
import pysyncobj.syncobj as syncobj
from pysyncobj.version import VERSION

from appliance.consensus.core import Core

PRIVATE_NAMES = (
    "__raftState", "__raftCurrentTerm", "__raftLeader", "__raftElectionDeadline", "__raftLog", "__raftCommitIndex",
    "__raftLastApplied", "__raftNextIndex", "__raftMatchIndex", "__lastResponseTime", "__noopIDx",
    "__transferInProgress", "__connectedNodes", "__generateRaftTimeout", "__doApplyCommand", "__getEntries",
    "__setState",
)  # fmt: skip


def test_the_version_is_the_one_the_guard_was_written_for() -> None:
    assert VERSION == "0.3.17"


def test_every_private_name_that_core_touches_is_still_there() -> None:
    source = inspect.getsource(pysyncobj.SyncObj)
    missing = [name for name in PRIVATE_NAMES if f"self.{name}" not in source and f"def {name}" not in source]
    assert missing == []


def test_the_module_names_that_are_rebound_are_still_used() -> None:
    source = inspect.getsource(syncobj)
    for name in ("createJournal(", "Serializer(", "PIPE_NOTIFIER_ENABLED", "monotonicTime()"):
        assert name in source


def test_the_library_does_not_change_how_this_process_writes_addresses() -> None:
    """H31: its transport replaces socket.inet_ntop when it is imported; whoever lists connections then fails."""
    assert socket.inet_ntop(socket.AF_INET, b"\x7f\0\0\1") == "127.0.0.1"
    assert Core.__module__ == "appliance.consensus.core"
