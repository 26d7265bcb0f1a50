"""What other nodes forwarded to this leader, until it is proposed.

Invariant: an operation is proposed only in the term that its frame was stamped with, and each number of a boot at
most once: the sender relies on both (see proposals.py). A sender's numbers only rise, in all terms. Loop thread only.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from appliance.limits import PROPOSALS_PENDING_BYTES_MAX, PROPOSALS_PENDING_MAX
from appliance.model import MemberId
from appliance.node.space import needs_space
from raftberry.internal.v1 import command_pb2, peer_pb2


class Refuse(Protocol):
    def __call__(
        self, member: MemberId, requests: list[int], *, is_overload: bool, text: str = ""
    ) -> None: ...


class _Forwarded(NamedTuple):
    term: int
    operation: bytes


class ForwardQueue:
    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
        self._queue: deque[_Forwarded] = deque()
        self._bytes = 0
        self._taken: dict[MemberId, tuple[int, int]] = {}
        """Of each sender: boot count and number of the last that was taken, in whatever term."""

        self._term = 0

    @property
    def count(self) -> int:
        return len(self._queue)

    def put(self, member: MemberId, frame: peer_pb2.Frame, *, no_room: str) -> None:
        """frame.term is this leader's term. no_room: why nothing that needs space is taken."""
        self.entered_term(frame.term)
        overloaded: list[int] = []
        homeless: list[int] = []
        for request, operation in zip(frame.forward.requests, frame.forward.operations, strict=True):
            if self.has_taken(member, frame.boot_count, request):
                continue
            self._taken[member] = (frame.boot_count, request)
            if no_room and needs_space(command_pb2.Operation.FromString(operation)):
                homeless.append(request)
                continue
            if len(self._queue) >= PROPOSALS_PENDING_MAX or self._bytes > PROPOSALS_PENDING_BYTES_MAX:
                overloaded.append(request)
                continue
            self._queue.append(_Forwarded(frame.term, operation))
            self._bytes += len(operation)
        if overloaded:
            self._refuse(member, overloaded, is_overload=True)
        if homeless:
            self._refuse(member, homeless, is_overload=True, text=no_room)

    def has_taken(self, member: MemberId, boot_count: int, request: int) -> bool:
        """Whether it may have been proposed here, since this process started."""
        return (boot_count, request) <= self._taken.get(member, (0, 0))

    def peek_size(self, term: int) -> int | None:
        """Bytes of the operation that `take` gives; None: there is none of this term."""
        if self._queue and self._queue[0].term == term:
            return len(self._queue[0].operation)
        return None

    def take(self) -> bytes:
        operation = self._queue.popleft().operation
        self._bytes -= len(operation)
        return operation

    def entered_term(self, term: int) -> None:
        """What was forwarded in an earlier term must not be proposed any more."""
        if term != self._term:
            self._term = term
            self._queue.clear()
            self._bytes = 0
