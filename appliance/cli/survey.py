"""Asks every named endpoint for its status and makes one row for each node of the cluster.

Invariant: one row a node, whether it was asked itself or is only known through the leader; a node that does not
answer is shown as such and holds up nobody: all are asked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from appliance import errors
from appliance.cli.common import connect
from appliance.cli.output import Row
from appliance.cli.times import format_time
from appliance.client.connection import Connection
from appliance.client.methods import GET_STATUS
from appliance.units import Duration
from raftberry.v1 import cluster_pb2

COLUMNS: Final = (
    "name",
    "role",
    "term",
    "leader",
    "applied_index",
    "lag",
    "durable_index",
    "readings_per_second",
    "store_size_bytes",
    "endpoint",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one endpoint said: a status, or why there is none."""

    endpoint: str
    status: cluster_pb2.GetStatusResponse | None
    problem: str = ""

    @property
    def reason(self) -> str:
        """The problem, without the endpoint."""
        return self.problem.removeprefix(f"{self.endpoint}: ")


class Survey:
    """Connections to all endpoints, kept for the next time."""

    def __init__(self, endpoints: Sequence[str], *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connections = [connect([endpoint], Duration(int(timeout_s * 1e9))) for endpoint in endpoints]
        self._pool = ThreadPoolExecutor(max_workers=min(16, len(endpoints)))

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for connection in self._connections:
            connection.close()

    def ask(self) -> list[Answer]:
        """One answer for each endpoint, in their order."""
        return list(self._pool.map(self._ask_one, self._connections))

    def _ask_one(self, connection: Connection) -> Answer:
        endpoint = connection.endpoints[0]
        request = cluster_pb2.GetStatusRequest()
        try:
            status = connection.call_at(endpoint, GET_STATUS, request, timeout_s=self._timeout_s)
        except errors.RaftberryError as error:
            return Answer(endpoint, None, str(error))
        return Answer(endpoint, status)


def leader_of(answers: Sequence[Answer]) -> cluster_pb2.GetStatusResponse | None:
    """The status of the leader of the highest term among those that answered."""
    leaders = [one.status for one in answers if one.status and one.status.role == cluster_pb2.ROLE_LEADER]
    return max(leaders, key=lambda status: status.term, default=None)


def has_quorum(answers: Sequence[Answer]) -> bool:
    """Whether a node says that the cluster commits."""
    return any(one.status is not None and one.status.has_quorum for one in answers)


def rows(answers: Sequence[Answer]) -> list[Row]:
    """A row for each node that answered, by name; then those only the leader knows; then silent endpoints."""
    leader = leader_of(answers)
    heads = [one.status.last_index for one in answers if one.status]
    head = leader.last_index if leader else max(heads, default=0)
    answered = sorted(
        ((one.endpoint, one.status) for one in answers if one.status), key=lambda pair: pair[1].name
    )
    found = [_status_row(endpoint, status, head) for endpoint, status in answered]
    names = {status.name for _, status in answered}
    peers = sorted(leader.peers, key=lambda peer: peer.name) if leader else []
    found += [_peer_row(peer, head) for peer in peers if peer.name not in names]
    found += [_silent_row(one) for one in answers if one.status is None]
    return found


def alarms(answers: Sequence[Answer]) -> list[str]:
    """What the nodes want a person to know, each with the node's name."""
    return [f"{one.status.name}: {alarm}" for one in answers if one.status for alarm in one.status.alarms]


def role_name(role: cluster_pb2.Role) -> str:
    """`leader`."""
    return cluster_pb2.Role.Name(role).removeprefix("ROLE_").lower()


def _status_row(endpoint: str, status: cluster_pb2.GetStatusResponse, head: int) -> Row:
    return {
        "name": status.name,
        "role": role_name(status.role),
        "term": status.term,
        "leader": status.leader,
        "applied_index": status.applied_index,
        "lag": max(0, head - status.applied_index),
        "durable_index": status.durable_index,
        "readings_per_second": status.readings_per_second,
        "store_size_bytes": status.store_size_bytes,
        "endpoint": endpoint,
        "commit_index": status.commit_index,
        "last_index": status.last_index,
        "checkpoint_index": status.checkpoint_index,
        "earliest_index": status.earliest_index,
        "journal_size_bytes": status.journal_size_bytes,
        "series_count": status.series_count,
        "reading_count": status.reading_count,
        "key_count": status.key_count,
        "commit_latency_us_median": status.commit_latency_us_median,
        "commit_latency_us_max": status.commit_latency_us_max,
        "boot_count": status.boot_count,
        "uptime_seconds": status.uptime_seconds,
        "has_quorum": status.has_quorum,
        "member_id": status.member_id,
        "cluster_id": status.cluster_id,
        "version": status.version,
        "secured": status.secured,
        "certificate_expires": format_time(status.certificate_expires_unix_nano)
        if status.certificate_expires_unix_nano
        else "",
        "written_bytes": status.written_bytes,
        "written_bytes_per_day": status.written_bytes_per_day,
        "card_life_used_percent": status.card_life_used_percent or None,
        "scrubbed_unix_nano": status.scrubbed_unix_nano,
        "alarms": list(status.alarms),
    }


def _peer_row(peer: cluster_pb2.Peer, head: int) -> Row:
    row = dict.fromkeys(_status_row("", cluster_pb2.GetStatusResponse(), 0))
    known = {
        "name": peer.name,
        "role": ("voter" if peer.voter else "learner") if peer.connected else "unreachable",
        "lag": max(0, head - peer.match_index),
        "durable_index": peer.match_index,
        "endpoint": f"not asked (peer {peer.peer_address})",
        "member_id": peer.member_id,
        "alarms": [peer.refused] if peer.refused else [],
    }
    return {**row, **known}


def _silent_row(answer: Answer) -> Row:
    row = dict.fromkeys(_status_row("", cluster_pb2.GetStatusResponse(), 0))
    return {
        **row,
        "name": "?",
        "role": "unreachable",
        "endpoint": answer.endpoint,
        "alarms": [answer.problem],
    }
