"""Which members have room on their disks: the leader takes what needs space only while a majority of the voters has.

Invariant: what it refuses has not been proposed. Who was not heard lately is taken to have room: a node that is away
stops nobody. Followers say it with their clock samples. Loop thread only.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.clock import Clock
from appliance.model import Member, MemberId
from appliance.node.clocks import SAMPLE_AGE_MAX_NS
from raftberry.internal.v1 import peer_pb2


class Rooms:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full: dict[MemberId, tuple[str, int]] = {}
        """Why it has none, and when it said so."""

    def heard(self, member: MemberId, sample: peer_pb2.ClockSample) -> None:
        if sample.no_room:
            self._full[member] = sample.no_room, self._clock.monotonic_ns()
        else:
            self._full.pop(member, None)

    def refusal(self, members: Mapping[MemberId, Member], own_refusal: str) -> str:
        """Why the cluster takes nothing that needs space; empty: a majority of the voters has room."""
        if own_refusal or not self._full:
            return own_refusal
        oldest_ns = self._clock.monotonic_ns() - SAMPLE_AGE_MAX_NS
        voters = [member for member in members.values() if member.is_voter]
        full = {
            member.name: self._full[member.member_id][0]
            for member in voters
            if member.member_id in self._full and self._full[member.member_id][1] >= oldest_ns
        }
        if 2 * (len(voters) - len(full)) > len(voters):
            return ""
        told = "; ".join(f"{name}: {reason}" for name, reason in sorted(full.items()))
        return f"no majority of the nodes has room: refusing writes ({told})"
