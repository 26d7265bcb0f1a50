"""/metrics: the node's figures in Prometheus' text format.

Invariant: the number of time series depends on the members, methods and event kinds, never on what is stored.
Everything is read when Prometheus asks; nothing is counted here. Names: prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from appliance.model import Role
from appliance.node.figures import Figures
from appliance.node.status import NodeStatus, PeerStatus
from appliance.web.port import Facts, Node

NS_PER_S: Final = 1e9

_GAUGES: Final = (
    ("term", "Raft's current term.", "term"),
    ("commit_index", "Highest log index known to be committed.", "commit_index"),
    ("applied_index", "Highest log index applied to the state.", "applied_index"),
    ("durable_index", "Highest log index on this node's disk.", "durable_index"),
    ("last_index", "Highest log index this node holds.", "last_index"),
    ("checkpoint_index", "Log index of the last checkpoint.", "checkpoint_index"),
    ("earliest_index", "Log index that a watch can resume behind at the earliest.", "earliest_index"),
    ("series", "Series in the state.", "series_count"),
    ("readings", "Readings in the state, those that overwrote another included.", "reading_count"),
    ("keys", "Keys in the state.", "key_count"),
    ("journal_size_bytes", "Size of the log on disk.", "journal_size_bytes"),
    ("store_size_bytes", "Size of the checkpointed state on disk.", "store_size_bytes"),
    ("boots", "Starts of this node since its data directory was made.", "boot_count"),
    ("uptime_seconds", "Time since this node began to serve.", "uptime_seconds"),
)
"""(name, help, field of NodeStatus)"""

_ELECTION_EVENTS: Final = {"started": "became_candidate", "won": "became_leader"}


def exposition(node: Node, facts: Facts, accept: str) -> tuple[bytes, str]:
    """(body, content type) in the format that `accept` asks for."""
    encode, content_type = choose_encoder(accept)
    return encode(registry_of(node, facts)), content_type


def registry_of(node: Node, facts: Facts) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(node, facts))
    ProcessCollector(registry=registry)
    return registry


class NodeCollector(Collector):
    """One scrape of one node."""

    def __init__(self, node: Node, facts: Facts) -> None:
        self._node, self._facts = node, facts

    def collect(self) -> Iterator[Metric]:
        status, figures = self._node.status(), self._node.figures()
        yield _info(status)
        for name, text, field in _GAUGES:
            yield GaugeMetricFamily(f"raftberry_{name}", text, value=getattr(status, field))
        yield from _health(status, figures)
        yield from _peers(status)
        yield from _counters(figures)
        yield _histogram(figures)
        yield from _turns(figures)
        yield from self._resources()
        yield _requests(self._facts.request_counts())
        yield _certificates(self._facts.certificates())

    def _resources(self) -> Iterator[Metric]:
        """What cannot be had is left out: a scrape of zero bytes free would ring an alarm."""
        found = self._facts.resources()
        if found.written_bytes is not None:
            yield CounterMetricFamily(
                "raftberry_written_bytes_total",
                "Bytes this process sent to disks: what wears a card.",
                value=found.written_bytes,
            )
        if found.disk_free_bytes is not None and found.disk_size_bytes is not None:
            yield GaugeMetricFamily(
                "raftberry_disk_free_bytes", "Room on the data directory's disk.", value=found.disk_free_bytes
            )
            yield GaugeMetricFamily(
                "raftberry_disk_size_bytes", "Size of the data directory's disk.", value=found.disk_size_bytes
            )
        if found.memory_bytes is not None:
            yield GaugeMetricFamily(
                "raftberry_memory_anonymous_bytes",
                "Memory of this process that is backed by no file.",
                value=found.memory_bytes,
            )
        if found.clock_synchronized is not None:
            yield GaugeMetricFamily(
                "raftberry_clock_synchronized",
                "1 if the kernel says that a time service keeps the clock right.",
                value=float(found.clock_synchronized),
            )


def _info(status: NodeStatus) -> Metric:
    family = InfoMetricFamily("raftberry_node", "Who this node is.")
    labels = {
        "name": status.name,
        "version": status.version,
        "member_id": status.member_id,
        "cluster_id": status.cluster_id,
    }
    family.add_metric([], labels)
    return family


def _health(status: NodeStatus, figures: Figures) -> Iterator[Metric]:
    roles = GaugeMetricFamily("raftberry_role", "1 for the role this node has now.", labels=["role"])
    for role in Role:
        roles.add_metric([role.value], float(status.role is role))
    yield roles
    yield GaugeMetricFamily(
        "raftberry_has_leader", "1 if this node knows a leader.", value=float(bool(status.leader))
    )
    yield GaugeMetricFamily(
        "raftberry_has_quorum",
        "1 if a majority has confirmed a leader within two election timeouts.",
        value=float(status.has_quorum),
    )
    is_writable = status.has_quorum and not figures.write_refusal
    yield GaugeMetricFamily(
        "raftberry_writable", "1 if writes through this node are taken.", value=float(is_writable)
    )
    yield GaugeMetricFamily(
        "raftberry_alarms", "Alarms that `raftberry status` shows for this node.", value=len(status.alarms)
    )
    yield GaugeMetricFamily("raftberry_members", "Members of the cluster.", value=len(status.peers))
    yield GaugeMetricFamily(
        "raftberry_storage_limit_bytes",
        "Quota for journal and store; writes are refused at 85% of it.",
        value=figures.store_bytes_max,
    )
    yield GaugeMetricFamily(
        "raftberry_watches", "Watches of readings and keys that are open here.", value=figures.watch_count
    )


def _peers(status: NodeStatus) -> Iterator[Metric]:
    """Of every other member; the lag is known to the leader only."""
    others = [peer for peer in status.peers if peer.name != status.name]
    connected = GaugeMetricFamily("raftberry_peer_connected", "1 if the link is up.", labels=["peer"])
    refused = GaugeMetricFamily(
        "raftberry_peer_refused", "1 if this node refuses the peer: it came back with less.", labels=["peer"]
    )
    heard = GaugeMetricFamily(
        "raftberry_peer_heard_seconds", "Time since something was heard from the peer.", labels=["peer"]
    )
    lag = GaugeMetricFamily(
        "raftberry_peer_lag_entries",
        "Log entries that the peer has not acknowledged; on the leader only.",
        labels=["peer"],
    )
    for peer in others:
        connected.add_metric([peer.name], float(peer.connected))
        refused.add_metric([peer.name], float(bool(peer.refused)))
        if peer.heard_ms_ago is not None:
            heard.add_metric([peer.name], peer.heard_ms_ago / 1_000)
        if status.role is Role.LEADER:
            lag.add_metric([peer.name], lag_entries(status, peer))
    yield from (connected, refused, heard, lag)


def lag_entries(status: NodeStatus, peer: PeerStatus) -> int:
    return max(status.last_index - peer.match_index, 0)


def _counters(figures: Figures) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "raftberry_readings_applied_total",
        "Readings applied by this node since it started.",
        value=figures.readings_applied_count,
    )
    elections = CounterMetricFamily(
        "raftberry_elections_total", "Elections this node stood in and won.", labels=["outcome"]
    )
    for outcome, kind in _ELECTION_EVENTS.items():
        elections.add_metric([outcome], figures.event_counts.get(kind, 0))
    yield elections
    events = CounterMetricFamily(
        "raftberry_consensus_events_total", "Decisions of consensus on this node.", labels=["kind"]
    )
    for kind, count in sorted(figures.event_counts.items()):
        events.add_metric([kind], count)
    yield events
    dropped = CounterMetricFamily(
        "raftberry_guard_dropped_frames_total", "Frames of peers that the guard dropped.", labels=["reason"]
    )
    for reason, count in sorted(figures.dropped_counts.items()):
        dropped.add_metric([reason], count)
    yield dropped


def _histogram(figures: Figures) -> Metric:
    family = HistogramMetricFamily(
        "raftberry_commit_duration_seconds", "How long a commit of the journal took: this node's fsync."
    )
    buckets = [(repr(bound / NS_PER_S), float(count)) for bound, count in figures.commits.cumulative()]
    buckets.append(("+Inf", float(figures.commits.count)))
    family.add_metric([], buckets, figures.commits.total / NS_PER_S)
    return family


def _turns(figures: Figures) -> Iterator[Metric]:
    longest = GaugeMetricFamily(
        "raftberry_loop_turn_seconds_max",
        "Longest that one piece of work held the node's loop, of the last one to two minutes.",
        labels=["kind"],
    )
    for kind, duration_ns in sorted(figures.loop_turn_longest_ns.items()):
        longest.add_metric([kind], duration_ns / NS_PER_S)
    yield longest
    long = CounterMetricFamily(
        "raftberry_loop_long_turns_total", "Turns of the loop that took more than 5 ms.", labels=["kind"]
    )
    for kind, count in sorted(figures.loop_turn_long_counts.items()):
        long.add_metric([kind], count)
    yield long


def _requests(counts: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(
        "raftberry_requests_total", "Calls at the client port that ended.", labels=["method", "code"]
    )
    for (method, code), count in sorted(counts.items()):
        family.add_metric([method, code], count)
    return family


def _certificates(ends: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(
        "raftberry_certificate_expiry_timestamp_seconds",
        "When each certificate in use ends, in seconds since 1970.",
        labels=["certificate"],
    )
    for name, end in sorted(ends.items()):
        family.add_metric([name], end)
    return family
