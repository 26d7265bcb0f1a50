"""The rule of the pipeline (H1): nothing that promises leaves before what it promises is durable.

Acks, votes and vote requests wait here for the batch that holds what they say. A promise of an older term is
thrown away instead of sent late: it would be dropped over there, and its log may be gone here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from appliance.consensus.replica import Replica
from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2


@dataclass(frozen=True, slots=True)
class _Promise:
    sequence: int
    member: MemberId
    frame: peer_pb2.Frame


class Promises:
    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._waiting: deque[_Promise] = deque()

    def make(self, member: MemberId, frame: peer_pb2.Frame) -> bool:
        """Send as soon as all that the log says now is durable; True if that was at once."""
        sequence = self._replica.log.promise_sequence
        is_durable = sequence <= self._replica.log.durable_sequence
        if is_durable and self._replica.send(member, frame):
            return True
        if not is_durable or self._is_connected(member):
            self._waiting.append(_Promise(sequence, member, frame))
        return False

    def release(self) -> None:
        """What a full lane does not take stays, until the next tick."""
        durable = self._replica.log.durable_sequence
        kept: list[_Promise] = []
        while self._waiting and self._waiting[0].sequence <= durable:
            promise = self._waiting.popleft()
            if promise.frame.term == self._replica.log.term:
                promise.frame.high_index = self._replica.log.high_index
                if not self._replica.send(promise.member, promise.frame) and self._is_connected(
                    promise.member
                ):
                    kept.append(promise)
        self._waiting.extendleft(reversed(kept))

    def withdraw(self, member: MemberId) -> None:
        """The peer's connection broke: what was said on it is void."""
        self._waiting = deque(promise for promise in self._waiting if promise.member != member)

    def _is_connected(self, member: MemberId) -> bool:
        """Then only its lane was full; without a connection nobody waits for a promise."""
        return member in self._replica.connected
