"""One run: five nodes are founded, clients work, faults come one after the other, and at the end all is judged.

1. The network and the nodes are made; they found a cluster through links that may go through the proxy.
2. Clients start. Faults are drawn by the seed, each kind once before any comes twice; after each, all nodes serve again
   and somebody's write is acknowledged.
3. Clients stop, all nodes stand at one index with one hash, and say what they hold.
4. The nodes are stopped; their journals are read and handed, with what clients saw, to the checkers.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raftberry.v1 import key_value_pb2, key_value_pb2_grpc, reading_pb2, reading_pb2_grpc
from tests.cluster.clients import REGISTERS, World, start_clients
from tests.cluster.faults import FAULTS, TOGETHER, Faults
from tests.cluster.fleet import PATIENCE_S, Fleet
from tests.cluster.network import Network, make_network
from tests.cluster.recorder import APPLIED, NOT_APPLIED, UNKNOWN, Recorder, now_ns
from tests.cluster.streams import note_watched, start_streams
from tests.cluster.verdict import Content, Evidence, judge
from tests.process.nodes import Node, wait_for

NAMES = ("n1", "n2", "n3", "n4", "n5")


@dataclass(slots=True)
class Result:
    """What a run prints and writes to result.json."""

    seed: int
    form: str
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)
    longest_gap_s: float = 0.0
    longest_recovery_s: float = 0.0
    checks: dict[str, int] = field(default_factory=dict)
    verdict: str = "not judged"


def run_campaign(
    folder: Path, *, seed: int, seconds: float, form: str, kinds: tuple[str, ...] = ()
) -> Result:
    """kinds: the faults to inject, once each, instead of drawing until the time is over."""
    rng = random.Random(seed)
    network = make_network(form, NAMES, rng)
    fleet = Fleet(folder, network)
    result = Result(seed, form)
    try:
        for node in fleet.nodes:
            fleet.start_node(node)
        fleet.start()
        _run(fleet, network, rng, seconds, kinds, result)
    finally:
        fleet.close()
        network.close()
        (folder / "result.json").write_text(json.dumps(asdict(result), indent=1))
    return result


def _run(
    fleet: Fleet, network: Network, rng: random.Random, seconds: float, kinds: tuple[str, ...], result: Result
) -> None:
    recorder = Recorder()
    world = World(fleet.endpoints, recorder, fleet.lives, think_s=0.04)
    clients = start_clients(world, producers=2, loners=1, key_clients=3)
    streaming, watchers = start_streams(world, producers=1, watchers=2)
    began = now_ns()
    faults = Faults(fleet, rng)
    inject(faults, recorder, result, began + int(seconds * 1e9), kinds)
    ended = now_ns()
    for client in (*clients, *streaming):
        client.begin_stop()
    for client in (*clients, *streaming):
        client.finish()
    index = settle(fleet)
    _write_the_end(fleet, recorder)
    for watcher in watchers:
        watcher.stop_at(index, timeout_s=PATIENCE_S)
    note_watched(recorder, watchers)
    note(result, fleet, faults, recorder, began, ended)
    contents = {node.name: content_of(node) for node in fleet.nodes}
    fleet.stop_all()
    fleet.assert_quiet_logs()
    journals = {node.name: node.data / "journal" for node in fleet.nodes}
    result.checks = judge(recorder, Evidence(journals, contents, REGISTERS))
    result.verdict = "all checks passed"


def inject(faults: Faults, recorder: Recorder, result: Result, end_ns: int, kinds: tuple[str, ...]) -> None:
    for plan in _plans(faults.rng, kinds):
        if not kinds and now_ns() >= end_ns:
            return
        _say(f"{time.strftime('%H:%M:%S')} {recorder.acknowledged:>7} acknowledged  {' + '.join(plan)}")
        if len(plan) == 1:
            faults.run(plan[0])
        else:
            faults.run_together(plan)
        recovery = time.monotonic()
        faults.fleet.assert_running()
        recorder.wait_acknowledged(f"an acknowledgement after {plan}", timeout_s=PATIENCE_S)
        result.longest_recovery_s = max(result.longest_recovery_s, time.monotonic() - recovery)
        time.sleep(faults.rng.uniform(0.0, 1.5))


def _plans(rng: random.Random, kinds: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """kinds in order; or without end, each kind once in random order before any comes twice."""
    if kinds:
        yield from ((kind,) for kind in kinds)
        return
    while True:
        plans = [(kind,) for kind in FAULTS] + list(TOGETHER)
        rng.shuffle(plans)
        yield from plans


def settle(fleet: Fleet) -> int:
    """All nodes at one index with one hash; the index."""
    fleet.wait_equal_state(timeout_s=PATIENCE_S)
    status = wait_for("a status", lambda: fleet.nodes[0].status(timeout_s=5), timeout_s=PATIENCE_S)
    for node in fleet.nodes:
        said = wait_for("a status", lambda node=node: node.status(timeout_s=5), timeout_s=PATIENCE_S).alarms
        alarms = [alarm for alarm in said if not alarm.startswith("insecure:")]
        assert not alarms, f"{node.name} has alarms: {alarms}"
    return int(status.applied_index)


def _write_the_end(fleet: Fleet, recorder: Recorder) -> None:
    """One reading and one key, so that every watcher has something to see behind all that it missed."""
    channel = fleet.nodes[0].channel
    put = key_value_pb2.PutRequest(key="end", value=b"%d end" % recorder.new_identity())
    key_value_pb2_grpc.KeyValueServiceStub(channel).Put(put, timeout=PATIENCE_S)
    reading = reading_pb2.Readings(sensor="end", metric="end", int_value=[recorder.new_identity()])
    reading_pb2_grpc.ReadingServiceStub(channel).Write(
        reading_pb2.WriteRequest(readings=[reading]), timeout=PATIENCE_S
    )


def content_of(node: Node) -> Content:
    """Everything the node holds, from its own memory and blocks, at one index."""
    keys_stub = key_value_pb2_grpc.KeyValueServiceStub(node.channel)
    keys: dict[str, tuple[bytes, int]] = {}
    index = 0
    linearizable = reading_pb2.CONSISTENCY_LINEARIZABLE
    for page in keys_stub.List(key_value_pb2.ListRequest(consistency=linearizable), timeout=PATIENCE_S):
        index = page.index
        keys.update({each.key: (each.value, each.mod_revision) for each in page.key_values})
    readings: dict[tuple[str, str], dict[int, int]] = {}
    query = reading_pb2.QueryRequest(consistency=reading_pb2.CONSISTENCY_LOCAL)
    for answer in reading_pb2_grpc.ReadingServiceStub(node.channel).Query(query, timeout=PATIENCE_S):
        for each in answer.readings:
            series = readings.setdefault((each.sensor, each.metric), {})
            series.update(zip(each.time_unix_nano, each.int_value, strict=True))
    return Content(index, keys, readings)


def note(
    result: Result, fleet: Fleet, faults: Faults, recorder: Recorder, began_ns: int, ended_ns: int
) -> None:
    outcomes = Counter(operation.outcome for operation in recorder.operations)
    result.seconds = round((ended_ns - began_ns) / 1e9, 1)
    result.faults = dict(sorted(faults.counts.items()))
    log = "".join(node.log for node in fleet.nodes)
    result.events = {
        **fleet.counts,
        "elections": log.count("became_leader"),
        "snapshots installed": log.count("installed"),
        "truncations": log.count("truncated"),
        "bytes through the proxy": fleet.network.proxy.carried_bytes,
    }
    result.clients = {
        **{outcome: outcomes[outcome] for outcome in (APPLIED, NOT_APPLIED, UNKNOWN)},
        "linearizable reads": len(recorder.reads),
        "local reads": len(recorder.local_reads),
        "watch streams": sum(watched.stream_count for watched in recorder.watched),
    }
    result.longest_gap_s = round(recorder.longest_gap_s(began_ns, ended_ns), 2)
    result.longest_recovery_s = round(result.longest_recovery_s, 2)


def _say(line: str) -> None:
    print(line, flush=True)
