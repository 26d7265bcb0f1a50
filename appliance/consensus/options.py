"""What an operator may set about consensus. Filled by config.py, read here only."""

from __future__ import annotations

from dataclasses import dataclass

MILLISECOND_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class ConsensusOptions:
    """Timeouts of Raft (paper, section 5.2): heartbeat << election timeout << time between failures."""

    heartbeat_ns: int = 150 * MILLISECOND_NS
    election_timeout_min_ns: int = 500 * MILLISECOND_NS
    election_timeout_max_ns: int = 1_000 * MILLISECOND_NS
    succession_stagger_ns: int = 150 * MILLISECOND_NS
    """A follower whose stream from the leader broke stands within this time, drawn at random."""

    news_hold_ns: int = 5 * MILLISECOND_NS
    """A commit index waits this long for entries to go with, unless a follower has somebody waiting for it."""

    hot_bytes_max: int = 16 << 20
    """Log entries held in memory; older ones are read from the journal."""

    def __post_init__(self) -> None:
        assert self.election_timeout_min_ns > 3 * self.heartbeat_ns, "PySyncObj needs more than 3 heartbeats"
        assert self.election_timeout_max_ns > self.election_timeout_min_ns

    @property
    def leader_fallback_ns(self) -> int:
        """A leader that hears no majority for this long stops leading (H17)."""
        return 2 * self.election_timeout_max_ns
