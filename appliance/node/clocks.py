"""Whether clocks may delete: only while a majority of the voters agree on the time and none of them has jumped.

Followers tell the leader their clock (ClockSample); the leader compares it with its own, and each node watches its own
wall clock against its monotonic one. Invariant: in doubt, time deletes nothing. Sans-IO; loop thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.clock import Clock
from appliance.limits import CLOCK_EARLIEST_UNIX_NANO
from appliance.model import Member, MemberId
from raftberry.internal.v1 import peer_pb2

SECOND_NS: Final = 1_000_000_000
AGREEMENT_NS: Final = 60 * SECOND_NS
SAMPLE_EVERY_NS: Final = 10 * SECOND_NS
SAMPLE_AGE_MAX_NS: Final = 3 * SAMPLE_EVERY_NS
HOLD_AFTER_JUMP_NS: Final = 3_600 * SECOND_NS
HOLD_AFTER_JUMP_ALONE_NS: Final = 24 * HOLD_AFTER_JUMP_NS
"""A cluster of one has nobody who contradicts: a day for a person to see the alarm."""


@dataclass(frozen=True, slots=True)
class _Sample:
    heard_ns: int
    offset_ns: int
    is_unsteady: bool


class Clocks:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._monotonic_ns, self._wall_ns = clock.monotonic_ns(), clock.wall_ns()
        self._jumped_ns: int | None = None
        self._jump_ns = 0
        self._samples: dict[MemberId, _Sample] = {}
        self._sent_ns = self._monotonic_ns - SAMPLE_EVERY_NS

    def watch(self) -> None:
        """Compare the wall clock's progress with the monotonic one's; called in every cycle."""
        monotonic_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        jump_ns = (wall_ns - self._wall_ns) - (monotonic_ns - self._monotonic_ns)
        if abs(jump_ns) > AGREEMENT_NS:
            self._jumped_ns, self._jump_ns = monotonic_ns, jump_ns
        if monotonic_ns - self._monotonic_ns >= SECOND_NS or abs(jump_ns) > AGREEMENT_NS:
            self._monotonic_ns, self._wall_ns = monotonic_ns, wall_ns

    def is_sample_due(self) -> bool:
        """Whether a follower tells the leader its clock now; once each SAMPLE_EVERY_NS."""
        now = self._clock.monotonic_ns()
        if now - self._sent_ns < SAMPLE_EVERY_NS:
            return False
        self._sent_ns = now
        return True

    def sample(self) -> peer_pb2.ClockSample:
        return peer_pb2.ClockSample(
            wall_unix_nano=self._clock.wall_ns(), unsteady=self._is_jumping(HOLD_AFTER_JUMP_NS)
        )

    def heard(self, member: MemberId, sample: peer_pb2.ClockSample) -> None:
        offset_ns = sample.wall_unix_nano - self._clock.wall_ns()
        self._samples[member] = _Sample(self._clock.monotonic_ns(), offset_ns, sample.unsteady)

    def doubt(self, own: MemberId, members: Mapping[MemberId, Member]) -> str:
        """Why time must not delete now; empty: it may."""
        voters = [member for member in members.values() if member.is_voter]
        if self._clock.wall_ns() < CLOCK_EARLIEST_UNIX_NANO:
            return "this node's clock is not set"
        hold_ns = HOLD_AFTER_JUMP_ALONE_NS if len(voters) <= 1 else HOLD_AFTER_JUMP_NS
        if self._is_jumping(hold_ns):
            hours = hold_ns // HOLD_AFTER_JUMP_NS
            return f"this node's clock jumped by {self._jump_ns // SECOND_NS:,} s less than {hours} h ago"
        others = [member for member in voters if member.member_id != own]
        faults = dict(self._faults(others))
        if 2 * (len(others) - len(faults) + 1) > len(voters):
            return ""
        told = "; ".join(f"{name}: {fault}" for name, fault in sorted(faults.items()))
        return f"no majority of the voters' clocks agrees within {AGREEMENT_NS // SECOND_NS} s ({told})"

    def _faults(self, others: Iterable[Member]) -> Iterable[tuple[str, str]]:
        now = self._clock.monotonic_ns()
        for member in others:
            sample = self._samples.get(member.member_id)
            if sample is None or now - sample.heard_ns > SAMPLE_AGE_MAX_NS:
                yield member.name, "not heard"
            elif abs(sample.offset_ns) > AGREEMENT_NS:
                yield member.name, f"{sample.offset_ns // SECOND_NS:+,} s"
            elif sample.is_unsteady:
                yield member.name, "jumped lately"

    def _is_jumping(self, hold_ns: int) -> bool:
        return self._jumped_ns is not None and self._clock.monotonic_ns() - self._jumped_ns < hold_ns
