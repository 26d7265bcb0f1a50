"""Operations on their way to an outcome: queued, sent (proposed here or forwarded), applied or given back.

Invariant: a caller hears NotApplied only when its operation has no effect and never will have. What was sent in
term T and has not been applied when an entry of a later term is applied here, never will be: the log's terms do
not fall, and a leader proposes what it was forwarded only within the frame's own term. Such an operation is sent
again, under a new number, until its deadline. Within a term a leader takes each number of a boot once, in order, so
that what was on a broken connection can be forwarded again (H9, H10). What may be inside an installed snapshot stays
in doubt for good: it is never given back as NotApplied. Sans-IO; loop thread only.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.errors import NoLeader, NotApplied, OutcomeUnknown, Overloaded
from appliance.limits import PROPOSALS_PENDING_BYTES_MAX, PROPOSALS_PENDING_MAX
from appliance.model import MemberId
from raftberry.internal.v1 import command_pb2

Done = Callable[["Completion"], None]

DEADLINES_SPARE = 1_024
"""Deadlines of finished operations that are kept, beside as many as operations wait: a deadline may be a day away."""


@dataclass(slots=True)
class Completion:
    """The outcome for one caller: either error, or the result that apply gave at (index, term).

    One for each write: not frozen, which would take twice as long to make.
    """

    error: NotApplied | OutcomeUnknown | None
    result: object = None
    index: int = 0
    term: int = 0


@dataclass(slots=True)
class Proposal:
    """One operation. term: in which it was proposed or forwarded; None: not sent yet."""

    body: bytes
    is_idempotent: bool
    deadline_ns: int
    done: Done
    request: int = 0
    term: int | None = None
    was_forwarded: bool = False
    is_resent: bool = False
    is_in_doubt: bool = False


class Proposals:
    def __init__(self, member: MemberId, boot_nonce: int) -> None:
        self._member, self._boot_nonce = member, boot_nonce
        self._queue: deque[Proposal] = deque()
        self._sent: dict[int, Proposal] = {}
        self._again: deque[int] = deque()
        self._deadlines: list[tuple[int, int, Proposal]] = []
        self._request = 0
        self._order = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent)

    @property
    def has_queued(self) -> bool:
        return bool(self._queue)

    @property
    def queued_count(self) -> int:
        return len(self._queue)

    def submit(self, operation: command_pb2.Operation, deadline_ns: int, done: Done) -> None:
        """Queue an operation; done is called once. Raises Overloaded at the bounds."""
        body = operation.SerializeToString()
        if len(self) >= PROPOSALS_PENDING_MAX or self._bytes + len(body) > PROPOSALS_PENDING_BYTES_MAX:
            raise Overloaded(
                f"{len(self)} writes of {self._bytes} bytes wait for their outcome on this node "
                f"(limits {PROPOSALS_PENDING_MAX}, {PROPOSALS_PENDING_BYTES_MAX} bytes): this one was refused; "
                "send fewer at a time or retry later"
            )
        is_idempotent = bool(operation.producer_id and operation.sequence)
        proposal = Proposal(body, is_idempotent, deadline_ns, done)
        self._bytes += len(body)
        self._queue.append(proposal)
        self._order += 1
        if len(self._deadlines) > DEADLINES_SPARE + 2 * len(self):
            self._deadlines = [item for item in self._deadlines if item[2].done is not _finished]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline_ns, self._order, proposal))

    def peek_size(self) -> int:
        """Bytes of the operation that `take` gives next."""
        return len(self._queue[0].body) + 32

    def take(self, term: int, *, is_forwarded: bool) -> tuple[int, bytes]:
        """(number, encoded operation) of the next one in the queue, which counts as sent in term."""
        proposal = self._queue.popleft()
        self._request += 1
        proposal.request, proposal.term, proposal.was_forwarded = self._request, term, is_forwarded
        self._sent[self._request] = proposal
        return self._request, self._encode(proposal)

    def resend(self, term: int) -> None:
        """What was forwarded in this term and is not applied is sent again: its connection broke meanwhile."""
        self._again.clear()
        for request, proposal in self._sent.items():
            if proposal.was_forwarded and proposal.term == term:
                proposal.is_resent = True
                self._again.append(request)

    def peek_again(self, term: int) -> int | None:
        """Bytes of the operation that `take_again` gives next; None: nothing has to be sent again in this term."""
        while self._again:
            proposal = self._sent.get(self._again[0])
            if proposal is not None and proposal.is_resent and proposal.term == term:
                return len(proposal.body) + 32
            self._again.popleft()
        return None

    def take_again(self) -> tuple[int, bytes]:
        """What `take` gave, in the same order and under the same number."""
        request = self._again.popleft()
        return request, self._encode(self._sent[request])

    def not_sent(self, requests: list[int]) -> None:
        """What was just taken did not fit into the lane."""
        self._again.extendleft(request for request in reversed(requests) if self._sent[request].is_resent)
        self._requeue([request for request in requests if not self._sent[request].is_resent])

    def applied(self, request: int, result: object, error: NotApplied | None, index: int, term: int) -> None:
        """An entry held this boot's operation with that number."""
        proposal = self._sent.pop(request, None)
        if proposal is not None and error is not None and proposal.is_in_doubt:
            self._give_back(proposal, error)
        elif proposal is not None:
            self._finish(proposal, Completion(error, result, index, term))

    def entered_term(self, term: int) -> None:
        """An entry of term was applied: what was sent in an earlier one is not in the log. Send it again."""
        stale = [request for request, proposal in self._sent.items() if (proposal.term or 0) < term]
        self._requeue(stale)

    def refused(self, requests: list[int], *, is_overload: bool, text: str = "") -> None:
        """The leader did not take them; another one may.

        Of one that was sent twice, a node that does not lead any more only refuses the second: it may be in the
        log, and waits until an entry of a later term says that it is not.
        """
        known = [request for request in requests if request in self._sent]
        if not is_overload:
            self._requeue([request for request in known if not self._sent[request].is_resent])
            return
        for request in known:
            reason = text or "the leader has too many writes waiting: this one was refused; retry later"
            self._give_back(self._sent.pop(request), Overloaded(reason))

    def lost_trail(self, is_remembered: Callable[[str], bool]) -> None:
        """A snapshot was installed: what was sent may be inside it. Only what counts once is sent again.

        is_remembered: whether the snapshot's state would know a producer's operation if it held it.
        """
        again = [
            request
            for request, proposal in self._sent.items()
            if proposal.is_idempotent
            and is_remembered(command_pb2.Operation.FromString(proposal.body).producer_id)
        ]
        for request in again:
            self._sent[request].is_in_doubt = True
        for request in [request for request in self._sent if request not in again]:
            error = OutcomeUnknown(
                "this node caught up by a snapshot while the write was under way: it may or may not be applied; "
                "read it back, or write with a producer and sequence to retry safely"
            )
            self._finish(self._sent.pop(request), Completion(error))
        self._requeue(again)

    def expire(self, now_ns: int, reason: str) -> None:
        """Give up on what is past its deadline."""
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            _, _, proposal = heapq.heappop(self._deadlines)
            if proposal.done is _finished:
                continue
            if proposal.term is None:
                self._queue.remove(proposal)
                self._give_back(proposal, NoLeader(f"{reason}; the write was not sent and has no effect"))
            else:
                del self._sent[proposal.request]
                self._finish(
                    proposal, Completion(OutcomeUnknown(f"{reason}; the write may still be applied"))
                )

    def next_deadline_ns(self) -> int | None:
        while self._deadlines and self._deadlines[0][2].done is _finished:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def fail_all(self, error: NotApplied) -> None:
        """This node stops serving."""
        for proposal in list(self._queue):
            self._give_back(proposal, error)
        self._queue.clear()
        for proposal in list(self._sent.values()):
            unknown = OutcomeUnknown(f"{error}; the write may still be applied")
            self._finish(proposal, Completion(unknown))
        self._sent.clear()

    def _requeue(self, requests: list[int]) -> None:
        for request in reversed(requests):
            proposal = self._sent.pop(request)
            proposal.term, proposal.was_forwarded, proposal.is_resent = None, False, False
            self._queue.appendleft(proposal)

    def _give_back(self, proposal: Proposal, error: NotApplied) -> None:
        """It is not in the log under its present number."""
        if not proposal.is_in_doubt:
            self._finish(proposal, Completion(error))
            return
        unknown = OutcomeUnknown(
            "this node caught up by a snapshot while the write was under way, and could not learn what became of it: "
            "it may or may not be applied; retry with the same producer and sequence"
        )
        self._finish(proposal, Completion(unknown))

    def _finish(self, proposal: Proposal, completion: Completion) -> None:
        done, proposal.done = proposal.done, _finished
        self._bytes -= len(proposal.body)
        proposal.body = b""
        done(completion)

    def _encode(self, proposal: Proposal) -> bytes:
        """Protobuf merges what follows: the origin behind the body."""
        origin = command_pb2.Operation(
            origin_member=self._member, origin_boot=self._boot_nonce, origin_request=proposal.request
        )
        return proposal.body + origin.SerializeToString()


def _finished(_completion: Completion) -> None:
    raise AssertionError("an outcome was given twice")
