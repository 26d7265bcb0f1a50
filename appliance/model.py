"""The vocabulary every floor shares: identities, log entries, hard state, operations' outcomes.

Values only: nothing here does I/O, reads a clock or guards state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType

MemberId = NewType("MemberId", int)
"""Random 64-bit number, never 0, drawn when a data directory is first used; text form: 16 hex digits."""

ClusterId = NewType("ClusterId", int)
"""64-bit number derived from the founders' member ids; 0: belongs to no cluster yet."""

Entry = tuple[bytes, int, int]
"""(command, index, term), the order PySyncObj uses. The first byte of command is PySyncObj's type."""

REGULAR = b"\0"
"""First byte of an entry that carries a Command; the rest is the encoded message."""

DEFLATED = b"\4"
"""First byte of an entry that carries a Command as well; the rest is the encoded message, deflated (state/entry.py)."""

NO_OP = b"\1"
"""A leader's first entry in its term, and the placeholder at a log's anchor."""

CONFIGURATION = b"\2"
"""First byte of an entry that is a Configuration and nothing else; the rest is the encoded message."""


NODE_HOST = "raftberry.internal"
"""In every node's certificate: clients check this name and the CA, because addresses change and the CA does not."""


def member_uri(cluster_id: ClusterId, member_id: MemberId) -> str:
    """What a node's certificate says of whom it belongs to."""
    return f"raftberry://{hex_id(cluster_id)}/member/{hex_id(member_id)}"


def member_host(cluster_id: ClusterId, member_id: MemberId) -> str:
    """The name that whoever dials a member wants to see in its certificate, wherever it listens."""
    return f"{hex_id(member_id)}.member.{hex_id(cluster_id)}.{NODE_HOST}"


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What one end of TLS shows and trusts, as PEM. Its repr shows nothing."""

    authority_pem: bytes
    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "TlsMaterial()"


def hex_id(number: int) -> str:
    """Text form of a MemberId, ClusterId or boot nonce: 16 hex digits."""
    return f"{number:016x}"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a log or a state stands: the index and term of its last (or first) entry."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a crash beside the entries (Raft paper, figure 2).

    commit_index is a hint: it may be older than what was committed.
    high_index is the highest index that was ever durable here; acknowledgements never exceed it.
    """

    term: int = 0
    vote: MemberId | None = None
    commit_index: int = 1
    high_index: int = 1


@dataclass(frozen=True, slots=True)
class PeerMemory:
    """What this node has seen of a peer, to notice a peer that comes back with less (design: amnesia)."""

    boot_count: int = 0
    high_index: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the replicated state knows it. number is what the api.v1 calls use.

    is_promotable: a learner that the leader makes a voter by itself, once it has caught up.
    """

    member_id: MemberId
    name: str
    number: int
    peer_address: str
    is_voter: bool = True
    is_promotable: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who is in the cluster (Ongaro's thesis, chapter 4): the founders, or what one entry of the log says.

    members: by member id. removed: ids that were members once and never come back, oldest first, bounded.
    last_number: the highest number ever given. index: of its entry; 0: of no entry. Version 0: nothing is known.
    """

    version: int = 0
    members: tuple[Member, ...] = ()
    removed: tuple[MemberId, ...] = ()
    last_number: int = 0
    index: int = 0

    def member(self, member_id: MemberId) -> Member | None:
        return next((member for member in self.members if member.member_id == member_id), None)

    @property
    def voters(self) -> tuple[MemberId, ...]:
        """Whose votes and acknowledgements make a majority; ascending."""
        return tuple(member.member_id for member in self.members if member.is_voter)

    @property
    def learners(self) -> tuple[MemberId, ...]:
        """Who is sent the log, and counts for nothing; ascending."""
        return tuple(member.member_id for member in self.members if not member.is_voter)


class Role(Enum):
    """What a node is to the cluster at this moment."""

    FOUNDING = "founding"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    LEARNER = "learner"
    QUARANTINED = "quarantined"
    JOINING = "joining"
    REMOVED = "removed"


class Verdict(Enum):
    """What became of one operation when its entry was applied."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
