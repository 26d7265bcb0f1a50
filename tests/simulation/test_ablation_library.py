"""Hazards that our node can't reach, because the part of PySyncObj that has them is never used.

For each: the hazard, shown on the plain library; the seam that keeps it out; and what happens without the seam.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pysyncobj.syncobj as syncobj
import pytest
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.dns_resolver import DnsCachingResolver
from pysyncobj.journal import MemoryJournal
from pysyncobj.node import Node
from pysyncobj.poller import POLL_EVENT_TYPE
from pysyncobj.serializer import SERIALIZER_STATE, Serializer
from pysyncobj.tcp_connection import TcpConnection
from pysyncobj.transport import TCPTransport, Transport

from appliance.consensus import core
from appliance.node.runtime import Node as RunningNode
from tests.simulation import ablation_guards as guards
from tests.simulation import ablation_snapshots as snapshots_scripts
from tests.simulation.failure import CheckFailed
from tests.simulation.mutation import mutate
from tests.simulation.script import process_of, stage

Message = dict[str, Any]


class Wire(Transport):  # type: ignore[misc]
    """Keeps what the library sends."""

    def __init__(self) -> None:
        super().__init__(None, None, None)
        self.sent: list[Message] = []

    def send(self, _node: Node, message: Message) -> bool:
        self.sent.append(message)
        return True


class Broken(SyncObj):  # type: ignore[misc]
    @replicated  # type: ignore[untyped-decorator]
    def fail(self) -> None:
        raise ZeroDivisionError


class Clock:
    now = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(syncobj, "monotonicTime", lambda: made.now)
    return made


def plain(
    others: tuple[str, ...] = (), kind: type[SyncObj] = SyncObj, **options: Any
) -> tuple[SyncObj, Wire]:
    """The library as it comes, without its TCP."""
    wire = Wire()
    conf = SyncObjConf(autoTick=False, appendEntriesUseBatch=False, pollerType="select", **options)
    made = kind(Node("a"), [Node(other) for other in others], conf, transport=wire)
    for other in others:
        wire._onNodeConnected(Node(other))
    return made, wire


def lead(node: SyncObj, wire: Wire, clock: Clock) -> None:
    clock.now += 10
    node.doTick(0.0)
    wire._onMessageReceived(Node("b"), {"type": "response_vote", "term": node.raftCurrentTerm})
    node.doTick(0.0)
    assert node._isLeader()


EXPLODED: list[str] = []


class Bomb:
    """A pickle that does something when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return explode, ("read",)


def explode(how: str) -> None:
    EXPLODED.append(how)


@pytest.fixture
def bomb() -> bytes:
    EXPLODED.clear()
    return pickle.dumps(Bomb())


def forbid(patch: pytest.MonkeyPatch, owner: object, name: str, check: str) -> None:
    def called(*_: object, **__: object) -> NoReturn:
        raise CheckFailed(check, f"{name} was called")

    patch.setattr(owner, name, called)


# H10 -----------------------------------------------------------------------------------------------------


def test_h10_the_librarys_callback_of_a_deposed_leader_never_fires(clock: Clock) -> None:
    node, wire = plain(("b", "c"), Broken)
    lead(node, wire, clock)
    heard: list[object] = []
    node.fail(callback=lambda *outcome: heard.append(outcome))
    node.doTick(0.0)
    rejoined = {"type": "append_entries", "term": 9, "commit_index": 2, "entries": [(b"\1", 2, 9)]}
    wire._onMessageReceived(Node("b"), rejoined | {"prevLogIdx": 1, "prevLogTerm": 0})
    for _ in range(1_000):
        clock.now += 1
        node.doTick(0.0)
    assert heard == []


# H11 -----------------------------------------------------------------------------------------------------


def test_h11_the_library_tries_an_apply_that_raises_for_ever(clock: Clock) -> None:
    node, wire = plain(("b",), Broken)
    lead(node, wire, clock)
    node.fail()
    node.doTick(0.0)
    answer = {"type": "next_node_idx", "reset": False, "success": True, "next_node_idx": 4}
    wire._onMessageReceived(Node("b"), answer)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            node.doTick(0.0)
    assert node.raftLastApplied == 2


def test_h11_a_bug_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, ends = RunningNode.__new__(RunningNode), list[BaseException]()
    runtime._on_fatal = ends.append

    def tick() -> None:
        raise ZeroDivisionError

    runtime.guarded(tick)
    assert [type(error) for error in ends] == [ZeroDivisionError]
    with monkeypatch.context() as patch:
        mutate(patch, RunningNode, "guarded", "self._on_fatal(error)", "pass")
        for _ in range(5):
            runtime.guarded(tick)
        assert len(ends) == 1, "without the guard the node would go on"


# H12 -----------------------------------------------------------------------------------------------------


def test_h12_the_librarys_parts_of_an_entry_cant_be_put_together_at_some_sizes(clock: Clock) -> None:
    """Its flag for the last part is judged by the entry's size without its pickle's frame."""
    broken = []
    for size in range(100, 400):
        leader, wire = plain(("b",), appendEntriesBatchSizeBytes=100)
        lead(leader, wire, clock)
        wire.sent.clear()
        leader._applyCommand(b"\1" + bytes(size - 1), None)
        leader.doTick(0.0)
        parts = [message for message in wire.sent if "transmission" in message]
        flags = [message["transmission"] for message in parts]
        if flags != ["start", *["process"] * (len(parts) - 2), "finish"]:
            broken.append(size)
    assert 0 < len(broken) < 300


# H14 -----------------------------------------------------------------------------------------------------


def test_h14_the_library_unpickles_what_any_stranger_sends(bomb: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = TcpConnection(_NoPoller(), socket=ours, onMessageReceived=lambda _: None)
        data = zlib.compress(bomb)
        theirs.sendall(len(data).to_bytes(4, sys.byteorder) + data)
        connection._TcpConnection__processConnection(ours.fileno(), POLL_EVENT_TYPE.READ)
        assert EXPLODED


def test_h14_an_entry_is_never_unpickled(monkeypatch: pytest.MonkeyPatch, bomb: bytes) -> None:
    """The library's types (3: version) are nothing to us, and ours never are pickles. Alone: followers drop them."""

    def append_bombs() -> None:
        with stage(1) as s:
            s.stand(s.nodes[0])
            process = process_of(s.nodes[0])
            s.until(lambda: process.core.engine.is_leader, "elected")
            for kind in (b"\1", b"\3"):
                s.append(s.nodes[0], kind + bomb)
            s.wait(100)
            s.finish()

    append_bombs()
    assert not EXPLODED
    with monkeypatch.context() as patch:
        guards.apply_what_the_library_applies(patch)
        with pytest.raises(CheckFailed):
            append_bombs()
    assert EXPLODED


class _NoPoller:
    def subscribe(self, *_: object) -> None: ...

    def unsubscribe(self, *_: object) -> None: ...


# H14, H19, H20: nothing of its own is started -------------------------------------------------------------


def whole_life() -> None:
    """Election, writes, checkpoints, a trim, a snapshot, a restart of all."""
    snapshots_scripts.a_bit_flips_in_a_chunk()
    snapshots_scripts.all_restart_behind_a_checkpoint()


def test_h14_h19_h20_the_node_uses_no_thread_socket_fork_or_pickle_of_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbidden: tuple[tuple[object, str], ...] = (
        (TCPTransport, "__init__"),
        (TcpConnection, "__init__"),
        (Serializer, "__init__"),
        (syncobj.pickle, "loads"),
        (syncobj.pickle, "dumps"),
        (threading.Thread, "start"),
        (socket, "socket"),
        (socket, "getaddrinfo"),
        (os, "fork"),
    )
    for owner, name in forbidden:
        forbid(monkeypatch, owner, name, "nothing_of_its_own")
    whole_life()


def test_h19_the_library_forks_for_a_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    forbid(monkeypatch, os, "fork", "no_fork")
    node, wire = plain(("b",), fullDumpFile=str(tmp_path / "dump"), useFork=True)
    lead(node, wire, clock)
    node._applyCommand(b"\1", None)
    answer = {"type": "next_node_idx", "reset": False, "success": True, "next_node_idx": 3}
    wire._onMessageReceived(Node("b"), answer)
    node.forceLogCompaction()
    with pytest.raises(CheckFailed, match="no_fork"):
        node.doTick(0.0)


def test_h19_with_the_librarys_snapshots_the_node_would_fork(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forbid(monkeypatch, os, "fork", "no_fork")
    dump = str(tmp_path / "dump")
    monkeypatch.setattr(core, "_NoSerializer", lambda _: _Forking(dump, 1 << 16, True, None, None, None))
    monkeypatch.setattr(
        core, "SyncObjConf", lambda **names: SyncObjConf(**{**names, "logCompactionMinEntries": 10})
    )
    with pytest.raises(CheckFailed, match="no_fork"):
        whole_life()


class _Forking(Serializer):  # type: ignore[misc]
    skip_entries: object = None


def test_h20_the_library_starts_a_thread_and_caches_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    found: list[object] = [(socket.AF_INET, 0, 0, "", ("10.0.0.1", 0))]

    def look_up(name: str, _port: None) -> list[object]:
        asked.append(name)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    resolver = DnsCachingResolver(600.0, 30.0)
    for _ in range(3):
        resolver.resolve("node-1.local")
    assert asked == ["node-1.local"], "a node that moved would be dialled at its old address"
    forbid(monkeypatch, threading.Thread, "start", "no_thread")
    with pytest.raises(CheckFailed, match="no_thread"):
        SyncObj(Node("a"), [], SyncObjConf(autoTick=True), transport=Wire())


def test_h20_with_the_librarys_ticks_the_node_would_have_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, threading.Thread, "start", "no_thread")
    monkeypatch.setattr(core, "SyncObjConf", lambda **names: SyncObjConf(**{**names, "autoTick": True}))
    with pytest.raises(CheckFailed, match="no_thread"):
        snapshots_scripts.all_restart_behind_a_checkpoint()


# H21 -----------------------------------------------------------------------------------------------------


class _Checkpoint:
    """The library's serializer, with a checkpoint at 20."""

    def __init__(self, *_: object) -> None: ...

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def deserialize(self) -> tuple[None, tuple[bytes, int, int], tuple[bytes, int, int], set[Node]]:
        return None, (b"\1", 20, 1), (b"\1", 19, 1), set()


def test_h21_the_library_clears_a_log_that_begins_before_its_dump(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    journal = MemoryJournal()
    for index in range(1, 51):
        journal.add(b"\1", index, 1)
    monkeypatch.setattr(syncobj, "createJournal", lambda _: journal)
    monkeypatch.setattr(syncobj, "Serializer", _Checkpoint)
    node, _ = plain(("b",), fullDumpFile=__file__)
    assert len(journal) == 50
    node.doTick(0.0)
    assert journal[-1][1] == 20, "entries 21 to 50 are gone"


def test_h21_the_log_survives_a_start_and_may_not_be_cleared() -> None:
    snapshots_scripts.all_restart_behind_a_checkpoint()
    with stage() as s, pytest.raises(AssertionError, match="H21"):
        process_of(s.nodes[0]).core.log.clear()


# H24 -----------------------------------------------------------------------------------------------------

_TRACE = """
from tests.simulation.script import stage
from pysyncobj.node import Node
from appliance.consensus import core

def digest():
    with stage(7) as s:
        for machine in s.nodes[:3]:
            s.elect(machine)
            s.propose(machine, 3)
            s.wait(20)
            s.crash(machine)
        return s.world.report().trace_digest

print(digest())
core._MemberNode.__hash__ = Node.__hash__
print(digest())
"""


def test_h24_without_numbers_for_hashes_a_run_depends_on_the_hash_seed() -> None:
    first, second = (_digests(hash_seed) for hash_seed in ("1", "2"))
    assert first[0] == second[0]
    assert first[1] != second[1]


def _digests(hash_seed: str) -> list[str]:
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    command = [sys.executable, "-c", _TRACE]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
