"""A node catches up by a snapshot while other work goes on (a write of its own, a checkpoint, a scrub); or can't."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from appliance.consensus import snapshot
from appliance.errors import StorageFailed
from appliance.model import Position
from appliance.node import snapshot_receiver
from appliance.node.options import NodeOptions
from appliance.state import StateOptions
from appliance.state.operations import encode_columns, write_readings
from appliance.storage.memory import MemoryInstaller
from appliance.storage.store import Record
from raftberry.internal.v1 import command_pb2
from tests.simulation.ablation_snapshots import SMALL
from tests.simulation.lmdb_disk import LmdbDisk
from tests.simulation.schedule import MICROSECOND_NS, MILLISECOND_NS
from tests.simulation.script import Call, Stage, process_of, stage

KEEPS_NO_LOG = NodeOptions(watch_keep_bytes=0, checkpoint_bytes_min=1 << 40)


def written_and_left_behind(s: Stage) -> Call:
    """f's write of (p, 1) is applied; f hears nothing of it, and is away."""
    a, b, f = s.nodes
    s.elect(a)
    s.hold(a, f)
    s.hold(b, f)
    call = s.put(f, "k0", producer="p", sequence=1)
    s.wait(100)
    assert process_of(a).core.state.key("k0") is not None
    s.cut(f)
    return call


def catch_up(s: Stage) -> None:
    a, b, f = s.nodes
    s.propose(a, 80, size=60)
    s.wait(100)
    s.checkpoint(a)
    s.checkpoint(b)
    s.connect(f)
    s.until(lambda: process_of(f).core.events.counts["installed"] > 0, "installed")
    s.wait(1_500)


def test_a_write_inside_a_snapshot_whose_producer_went_far_ahead_is_not_said_to_be_not_applied() -> None:
    with stage(node=KEEPS_NO_LOG) as s:
        call = written_and_left_behind(s)
        s.put(s.nodes[0], "k1", producer="p", sequence=1_100)
        catch_up(s)
        assert call.outcome == "unknown"
        s.finish()


def test_a_write_inside_a_snapshot_whose_producer_was_forgotten_is_not_sent_again() -> None:
    s = Stage(3, node=KEEPS_NO_LOG)
    for machine in s.nodes:
        machine.cluster = replace(machine.cluster, state=StateOptions(producers_max=5))
    with s.world.opened():
        s.start(*s.nodes)
        call = written_and_left_behind(s)
        for number in range(8):
            s.put(s.nodes[0], f"x{number}", producer=f"p{number}", sequence=1)
            s.wait(20)
        catch_up(s)
        assert call.outcome == "unknown"
        s.finish()
    s.close()


def test_a_write_inside_a_snapshot_of_a_known_producer_is_found_to_be_applied() -> None:
    with stage(node=KEEPS_NO_LOG) as s:
        call = written_and_left_behind(s)
        catch_up(s)
        assert call.outcome == "ok"
        s.finish()


# what else goes on ----------------------------------------------------------------------------------------


def many_series(count: int = 1_500) -> command_pb2.Operation:
    time, value = np.array([1_000], np.int64), np.array([1.0])
    return write_readings(
        encode_columns(f"s{number}", "m", time, value, integer=False) for number in range(count)
    )


class Install:
    """On LMDB's files: a snapshot of many series is on its way to f, whole."""

    def __init__(self, node: NodeOptions) -> None:
        self.stage = s = Stage(3, node=node)
        for machine in s.nodes:
            machine.disk = LmdbDisk(s.world.cards)
            machine.speed.commit_ns_median = MILLISECOND_NS
        self.a, _, self.f = s.nodes

    def begin(self) -> None:
        s, a, f = self.stage, self.a, self.f
        s.replace(snapshot, "SNAPSHOT_CHUNK_BYTES", 256 << 10)
        s.start(*s.nodes)
        s.elect(a)
        s.propose_operation(a, many_series())
        s.wait(200)
        s.cut(f)
        s.propose(a, 40, size=60)
        s.wait(200)
        s.checkpoint(a)
        s.wait(200)
        s.hold(a, f)
        s.hold(f, a)
        s.connect(a, f)
        s.wait(300)
        s.release(f, a)
        s.hold(f, a)
        self.chunks = len(s.links.under_way(a.member_id, f.member_id, "bulk"))
        assert self.chunks

    def deliver(self) -> None:
        self.stage.links.deliver(self.a.member_id, self.f.member_id, self.chunks, "bulk")
        assert process_of(self.f).core.receiver.is_finishing

    def end(self) -> None:
        s, core = self.stage, process_of(self.f).core
        s.release(self.a, self.f)
        s.release(self.f, self.a)
        s.wait(500)
        assert core.events.counts["installed"] == 1
        s.finish()
        s.close()


def test_a_checkpoint_that_is_captured_meanwhile_is_not_written_over_the_snapshot() -> None:
    install = Install(KEEPS_NO_LOG)
    with install.stage.world.opened():
        install.begin()
        told: list[Position] = []
        process = process_of(install.f)
        process.call(lambda: process.core.checkpoint(told.append))
        install.stage.world.run_for(60 * MICROSECOND_NS)
        assert process.core.housekeeping._capturing is not None, "a turn takes some of the series only"
        install.deliver()
        install.end()
        assert told, "who waited for the checkpoint is told which one there is"


def test_a_scrub_that_waits_for_a_reader_meanwhile_reads_the_store_that_was() -> None:
    options = replace(KEEPS_NO_LOG, scrub_interval_ns=1, scrub_bytes_per_second=1 << 40)
    install = Install(options)
    with install.stage.world.opened():
        install.begin()
        install.deliver()
        install.stage.release(install.a, install.f)
        install.stage.release(install.f, install.a)
        process = process_of(install.f)
        for _ in range(20_000):
            install.stage.world.run_for(20 * MICROSECOND_NS)
            process.call(process.core.housekeeping.scrub.cycle)
            if process.core.events.counts["installed"] and not process.core.housekeeping.scrub._is_reading:
                break
        install.end()


# no room --------------------------------------------------------------------------------------------------


def test_a_card_without_room_for_a_second_store_ends_nobody_and_is_not_written_full_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stage(node=SMALL) as s:
        a, b, f = s.nodes
        s.replace(snapshot, "SNAPSHOT_CHUNK_BYTES", 600)
        s.elect(a)
        s.cut(f)
        s.propose(a, 80, size=60)
        s.wait(100)
        s.checkpoint(a)
        s.checkpoint(b)
        s.wait(100)
        room, add, is_full, attempts = 3_000, MemoryInstaller.add, [True], [0]

        def add_some(self: MemoryInstaller, records: list[Record]) -> None:
            taken = sum(len(key) + len(value) for key, value in (self._records or {}).items())
            if is_full[0] and self._disk is f.disk and taken > room:
                attempts[0] += 1
                raise StorageFailed("store install: No space left on device")
            add(self, records)

        s.replace(MemoryInstaller, "add", add_some)
        starts = f.start_count
        s.connect(f)
        s.wait(60_000)
        core = process_of(f).core
        s.expect(attempts[0] == 1 and f.start_count == starts, "stays_up")
        assert "could not be written: store install: No space left on device" in core.receiver.obstacle
        call = s.put(a)
        s.wait(200)
        assert call.outcome == "ok", "the others go on"
        is_full[0] = False
        s.wait(snapshot_receiver.RETRY_NS // MILLISECOND_NS)
        s.until(lambda: core.events.counts["installed"] > 0, "installed", within_ms=60_000)
        assert core.receiver.obstacle == ""
        s.finish()
