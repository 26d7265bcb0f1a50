"""A leader proposes what it was forwarded once, and only in the term it was forwarded in."""

from __future__ import annotations

from appliance.limits import PROPOSALS_PENDING_MAX
from appliance.model import MemberId
from appliance.node.forwarding import ForwardQueue
from raftberry.internal.v1 import peer_pb2

PEER = MemberId(3)


class Refusals:
    def __init__(self) -> None:
        self.seen: list[tuple[list[int], bool]] = []

    def __call__(self, member: MemberId, requests: list[int], *, is_overload: bool, text: str = "") -> None:
        assert member == PEER
        self.seen.append((requests, is_overload))


def forward(term: int, *requests: int, boot: int = 1) -> peer_pb2.Frame:
    body = peer_pb2.Forward(requests=requests, operations=[bytes([request % 256]) for request in requests])
    return peer_pb2.Frame(from_member=PEER, boot_count=boot, term=term, forward=body)


def drain(queue: ForwardQueue, term: int) -> list[bytes]:
    taken = []
    while queue.peek_size(term) is not None:
        taken.append(queue.take())
    return taken


def test_each_number_of_a_boot_is_taken_once() -> None:
    queue = ForwardQueue(Refusals())
    queue.put(PEER, forward(2, 1, 2), no_room="")
    queue.put(PEER, forward(2, 1, 2, 3), no_room="")
    assert drain(queue, 2) == [b"\1", b"\2", b"\3"]


def test_a_new_boot_counts_anew() -> None:
    queue = ForwardQueue(Refusals())
    queue.put(PEER, forward(2, 5), no_room="")
    queue.put(PEER, forward(2, 1, boot=2), no_room="")
    assert drain(queue, 2) == [b"\5", b"\1"]


def test_what_was_forwarded_in_an_earlier_term_is_never_proposed() -> None:
    queue = ForwardQueue(Refusals())
    queue.put(PEER, forward(2, 1), no_room="")
    assert queue.peek_size(3) is None
    queue.entered_term(3)
    queue.put(PEER, forward(3, 2), no_room="")
    assert drain(queue, 3) == [b"\2"]


def test_what_was_taken_in_an_earlier_term_is_remembered() -> None:
    """Numbers only rise: the sender may have it in the log, and must not hear that it is not."""
    queue = ForwardQueue(Refusals())
    queue.put(PEER, forward(2, 1, 2), no_room="")
    queue.entered_term(3)
    assert [queue.has_taken(PEER, 1, number) for number in (1, 2, 3)] == [True, True, False]
    assert not queue.has_taken(PEER, 2, 1)


def test_a_full_queue_refuses_by_number() -> None:
    refusals = Refusals()
    queue = ForwardQueue(refusals)
    queue.put(PEER, forward(2, *range(1, PROPOSALS_PENDING_MAX + 3)), no_room="")
    assert refusals.seen == [([PROPOSALS_PENDING_MAX + 1, PROPOSALS_PENDING_MAX + 2], True)]
