"""The sections of the configuration, with their defaults. Values only; config.py fills and checks them."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from appliance import limits
from appliance.units import Duration, Size

AUTO: Final = "auto"
"""An address: on loopback until the cluster was opened to other machines (`raftberry invite`), then on all."""

_MS: Final = 1_000_000


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the TOML file. Fields carry their unit, the key in the file (`name=`) does not."""


class NodeOptions(Section, frozen=True):
    """[node]"""

    name: str = ""
    """Unique in the cluster. Empty: the machine's host name, filled in by load()."""


class ClusterOptions(Section, frozen=True):
    """[cluster]"""

    initial_members: dict[str, str] = {}
    """Founders: name to peer address. Empty: this node founds a cluster of one."""

    rebuild_after_ns: Duration = msgspec.field(default=Duration(30_000 * _MS), name="rebuild_after")
    """A node in doubt about its data is rebuilt from its peers after this time. 0: it waits for a person."""

    heartbeat_ns: Duration = msgspec.field(default=Duration(150 * _MS), name="heartbeat")
    election_timeout_min_ns: Duration = msgspec.field(
        default=Duration(500 * _MS), name="election_timeout_min"
    )
    election_timeout_max_ns: Duration = msgspec.field(
        default=Duration(1_000 * _MS), name="election_timeout_max"
    )


class StorageOptions(Section, frozen=True):
    """[storage]"""

    data: str = "/var/lib/raftberry"
    size_max_bytes: Size = msgspec.field(default=Size(8 * limits.GIB), name="size_max")
    when_full: Literal["refuse", "drop_oldest"] = "refuse"
    """`refuse` writes at the quota's limit, or `drop_oldest` readings before it is reached."""

    disk_free_min_bytes: Size = msgspec.field(default=Size(256 * limits.MIB), name="disk_free_min")
    """Writes are refused while the file system has less, whoever filled it."""

    write_budget_per_day_bytes: Size = msgspec.field(default=Size(0), name="write_budget_per_day")
    """Bytes this node shall write in a day; commits wait for company to keep it. 0: no budget."""

    scrub_interval_ns: Duration = msgspec.field(default=Duration(604_800_000 * _MS), name="scrub_interval")
    """Everything is read and checked once in this time; 0s: never."""

    scrub_bytes_per_second: Size = msgspec.field(default=Size(limits.MIB), name="scrub_rate")
    checkpoint_bytes: Size = Size(32 * limits.MIB)
    """Log bytes after which a checkpoint is due."""


class JournalOptions(Section, frozen=True):
    """[journal]"""

    size_max_bytes: Size = msgspec.field(default=Size(256 * limits.MIB), name="size_max")


class WatchOptions(Section, frozen=True):
    """[watch]"""

    keep_bytes: Size = Size(64 * limits.MIB)
    """Log kept behind the checkpoint for watches that resume."""


class ClientOptions(Section, frozen=True):
    """[client]"""

    address: str = AUTO

    socket: str = ""
    """Of whoever may do everything without a token; empty: in systemd's runtime directory, else in storage.data."""


class PeerOptions(Section, frozen=True):
    """[peer]"""

    address: str = AUTO

    advertise: str = ""
    """Where other nodes reach this one; empty: at address, or at HOSTNAME.local where that is all of them."""


class WebOptions(Section, frozen=True):
    """[web]"""

    address: str = AUTO


class SecurityOptions(Section, frozen=True):
    """[security]"""

    insecure: bool = False
    """Listen beyond loopback without TLS."""

    require_tokens: bool = False
    """Ask for a token also where there is no TLS; with TLS it is always asked for."""


class LogOptions(Section, frozen=True):
    """[log]"""

    level: str = "info"
