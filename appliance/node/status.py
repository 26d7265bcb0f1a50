"""What a node says of itself. The fields are those of raftberry.v1.GetStatusResponse and Peer, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from appliance.model import Role


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """match_index: on the leader, else 0. heard_ms_ago None: never, or not known on this node."""

    name: str
    member_id: str
    number: int
    peer_address: str
    connected: bool
    match_index: int
    heard_ms_ago: int | None
    voter: bool
    refused: str


@dataclass(frozen=True, slots=True)
class SecurityStatus:
    """secured: encrypted, with tokens. The times and the fingerprint are those of the certificate and the CA."""

    secured: bool = False
    certificate_expires_unix_nano: int = 0
    authority_fingerprint: str = ""
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    name: str
    leader: str = ""
    role: Role = Role.FOLLOWER
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    durable_index: int = 0
    peers: tuple[PeerStatus, ...] = ()
    cluster_id: str = ""
    member_id: str = ""
    version: str = ""
    checkpoint_index: int = 0
    earliest_index: int = 0
    series_count: int = 0
    reading_count: int = 0
    readings_per_second: float = 0.0
    journal_size_bytes: int = 0
    store_size_bytes: int = 0
    commit_latency_us_median: int = 0
    commit_latency_us_max: int = 0
    boot_count: int = 0
    uptime_seconds: int = 0
    alarms: tuple[str, ...] = ()
    has_quorum: bool = False
    key_count: int = 0
    last_index: int = 0
    written_bytes: int = 0
    written_bytes_per_day: int = 0
    write_budget_bytes_per_day: int = 0
    card_life_used_percent: int = 0
    disk_free_bytes: int = 0
    scrubbed_unix_nano: int = 0
    scrub_percent: int = 0
    secured: bool = False
    certificate_expires_unix_nano: int = 0
    authority_fingerprint: str = ""


def with_security(status: NodeStatus, security: SecurityStatus) -> NodeStatus:
    """The same node, with what its ports are."""
    return replace(
        status,
        secured=security.secured,
        certificate_expires_unix_nano=security.certificate_expires_unix_nano,
        authority_fingerprint=security.authority_fingerprint,
        alarms=(*status.alarms, *security.alarms),
    )
