"""What the parts of the guard share about this replica: who it is, its log, its clocks, its way out.

Invariant: `voters`, `others` and `members` are those of the configuration in effect, which is the log's last one.
A node that is no voter counts nothing, and is counted by nobody.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.clock import Clock
from appliance.consensus.events import EventLog
from appliance.consensus.log import LogImage
from appliance.consensus.options import ConsensusOptions
from appliance.model import Configuration, MemberId
from raftberry.internal.v1 import peer_pb2

Send = Callable[[MemberId, peer_pb2.Frame], bool]
"""Queue a frame for a peer; False: not connected or its lane is full."""


@dataclass(slots=True)
class Replica:
    self_id: MemberId
    boot_count: int
    log: LogImage
    options: ConsensusOptions
    clock: Clock
    rng: random.Random
    events: EventLog
    send: Send
    connected: set[MemberId] = field(default_factory=set)
    dropped_count: dict[str, int] = field(default_factory=dict)
    """Frames the guard dropped, by reason."""

    voters: tuple[MemberId, ...] = ()
    others: tuple[MemberId, ...] = ()
    """The other voters."""

    learners: tuple[MemberId, ...] = ()
    """The other learners."""

    members: frozenset[MemberId] = frozenset()

    def adopt(self, configuration: Configuration) -> frozenset[MemberId]:
        """The configuration is in effect. Returns who was a member, and is none any more."""
        before = self.members
        self.voters = configuration.voters
        self.others = tuple(member for member in configuration.voters if member != self.self_id)
        self.learners = tuple(member for member in configuration.learners if member != self.self_id)
        self.members = frozenset(configuration.voters + configuration.learners)
        return before - self.members

    @property
    def is_voter(self) -> bool:
        return self.self_id in self.voters

    @property
    def is_alone(self) -> bool:
        """Nobody else votes."""
        return not self.others

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1

    def now_ns(self) -> int:
        return self.clock.monotonic_ns()

    def frame(self, term: int) -> peer_pb2.Frame:
        """A frame with the envelope that every frame carries (H5)."""
        return peer_pb2.Frame(
            from_member=self.self_id, boot_count=self.boot_count, term=term, high_index=self.log.high_index
        )

    def record(self, kind: str, index: int, peer: MemberId | None = None, **attributes: int | str) -> None:
        self.events.record(kind, self.log.term, index, peer, **attributes)

    def drop(self, reason: str, peer: MemberId) -> None:
        self.dropped_count[reason] = self.dropped_count.get(reason, 0) + 1
        self.record("dropped", self.log.last_index, peer, reason=reason)
