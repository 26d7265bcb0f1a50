"""Callers hear the truth: applied, not applied, or unknown, and only once."""

from __future__ import annotations

import pytest

from appliance.errors import NoLeader, NotApplied, OutcomeUnknown, Overloaded
from appliance.limits import PROPOSALS_PENDING_MAX
from appliance.model import MemberId
from appliance.node.proposals import Completion, Proposals
from raftberry.internal.v1 import command_pb2

ME = MemberId(7)


def put(key: str = "k", sequence: int = 0) -> command_pb2.Operation:
    operation = command_pb2.Operation(put=command_pb2.PutKey(key=key))
    if sequence:
        operation.producer_id, operation.sequence = "p", sequence
    return operation


def make(*operations: command_pb2.Operation) -> tuple[Proposals, list[Completion]]:
    proposals = Proposals(ME, 99)
    outcomes: list[Completion] = []
    for operation in operations:
        proposals.submit(operation, 1_000, outcomes.append)
    return proposals, outcomes


def again(proposals: Proposals, term: int) -> list[tuple[int, bytes]]:
    taken = []
    while proposals.peek_again(term) is not None:
        taken.append(proposals.take_again())
    return taken


def test_an_operation_carries_its_origin() -> None:
    proposals, _ = make(put("a"))
    number, encoded = proposals.take(1, is_forwarded=False)
    operation = command_pb2.Operation.FromString(encoded)
    assert (operation.put.key, operation.origin_member, operation.origin_boot) == ("a", 7, 99)
    assert operation.origin_request == number


def test_the_caller_hears_from_apply() -> None:
    proposals, outcomes = make(put())
    number, _ = proposals.take(3, is_forwarded=False)
    proposals.applied(number, "result", None, 12, 3)
    proposals.applied(number, "again", None, 13, 3)
    assert outcomes == [Completion(None, "result", 12, 3)]
    assert len(proposals) == 0


def test_what_a_later_term_did_not_bring_is_sent_again_under_a_new_number() -> None:
    proposals, outcomes = make(put("a"), put("b"))
    first, _ = proposals.take(3, is_forwarded=True)
    second, _ = proposals.take(3, is_forwarded=True)
    proposals.entered_term(3)
    assert not proposals.has_queued
    proposals.entered_term(4)
    again, encoded = proposals.take(4, is_forwarded=True)
    assert again > second > first
    assert command_pb2.Operation.FromString(encoded).put.key == "a"
    proposals.applied(first, "late", None, 9, 4)
    assert outcomes == []


def test_what_was_forwarded_in_this_term_is_sent_again_under_its_own_number_after_a_reconnect() -> None:
    proposals, _ = make(put("a"), put("b"), put("c"))
    numbers = [proposals.take(3, is_forwarded=True)[0] for _ in range(2)]
    proposals.resend(4)
    assert proposals.peek_again(4) is None
    proposals.resend(3)
    assert [number for number, _ in again(proposals, 3)] == numbers


def test_what_is_sent_again_and_does_not_fit_keeps_its_place_and_number() -> None:
    proposals, _ = make(put("a"), put("b"), put("c"))
    numbers = [proposals.take(3, is_forwarded=True)[0] for _ in range(3)]
    proposals.resend(3)
    first, _ = proposals.take_again()
    second, _ = proposals.take_again()
    proposals.not_sent([first, second])
    proposals.applied(second, "result", None, 9, 3)
    assert [number for number, _ in again(proposals, 3)] == [numbers[0], numbers[2]]
    assert not proposals.has_queued


def test_what_is_sent_for_the_first_time_and_does_not_fit_is_queued_again() -> None:
    proposals, outcomes = make(put("a"), put("b"))
    numbers = [proposals.take(3, is_forwarded=True)[0] for _ in range(2)]
    proposals.not_sent(numbers)
    assert proposals.queued_count == 2
    assert command_pb2.Operation.FromString(proposals.take(3, is_forwarded=True)[1]).put.key == "a"
    assert outcomes == []


def test_a_deadline_says_not_applied_only_for_what_was_never_sent() -> None:
    proposals, outcomes = make(put("a"), put("b"))
    proposals.take(1, is_forwarded=False)
    proposals.expire(999, "no leader")
    assert outcomes == []
    proposals.expire(1_000, "no leader")
    assert {type(outcome.error) for outcome in outcomes} == {OutcomeUnknown, NoLeader}
    assert proposals.next_deadline_ns() is None


def test_after_a_snapshot_only_what_counts_once_is_sent_again() -> None:
    proposals, outcomes = make(put("a"), put("b", sequence=4))
    proposals.take(1, is_forwarded=True)
    proposals.take(1, is_forwarded=True)
    proposals.lost_trail(lambda _: True)
    assert [type(outcome.error) for outcome in outcomes] == [OutcomeUnknown]
    assert command_pb2.Operation.FromString(proposals.take(2, is_forwarded=True)[1]).put.key == "b"


@pytest.mark.parametrize("end", ["deadline", "overload", "stop"])
def test_what_may_be_inside_a_snapshot_is_never_said_to_be_not_applied(end: str) -> None:
    proposals, outcomes = make(put("b", sequence=4))
    proposals.take(1, is_forwarded=True)
    proposals.lost_trail(lambda _: True)
    if end == "deadline":
        proposals.expire(1_000, "no leader")
    elif end == "overload":
        proposals.refused([proposals.take(2, is_forwarded=True)[0]], is_overload=True)
    else:
        proposals.fail_all(NotApplied("stopping"))
    assert [type(outcome.error) for outcome in outcomes] == [OutcomeUnknown]


def test_deadlines_of_what_is_over_do_not_pile_up() -> None:
    proposals = Proposals(ME, 99)
    for _ in range(10_000):
        proposals.submit(put(), 10**18, lambda _: None)
        proposals.applied(proposals.take(1, is_forwarded=False)[0], "result", None, 2, 1)
    assert len(proposals._deadlines) < 2_000


def test_a_leaders_refusal_gives_back_and_its_overload_is_told() -> None:
    proposals, outcomes = make(put("a"), put("b"))
    first, _ = proposals.take(1, is_forwarded=True)
    second, _ = proposals.take(1, is_forwarded=True)
    proposals.refused([first, 12345], is_overload=False)
    assert proposals.has_queued
    proposals.refused([second], is_overload=True)
    assert [type(outcome.error) for outcome in outcomes] == [Overloaded]


def test_more_than_the_bound_is_refused_at_once() -> None:
    proposals, _ = make(*[put() for _ in range(PROPOSALS_PENDING_MAX)])
    with pytest.raises(Overloaded, match=str(PROPOSALS_PENDING_MAX)):
        proposals.submit(put(), 1_000, lambda _: None)
    number, _ = proposals.take(1, is_forwarded=False)
    proposals.applied(number, None, None, 2, 1)
    proposals.submit(put(), 1_000, lambda _: None)


def test_a_node_that_stops_says_what_it_knows() -> None:
    proposals, outcomes = make(put("a"), put("b"))
    proposals.take(1, is_forwarded=False)
    proposals.fail_all(NotApplied("stopping"))
    assert {type(outcome.error) for outcome in outcomes} == {NotApplied, OutcomeUnknown}


def test_a_refusal_of_what_was_sent_twice_says_nothing() -> None:
    proposals, outcomes = make(put())
    number, _ = proposals.take(3, is_forwarded=True)
    proposals.resend(3)
    assert [request for request, _ in again(proposals, 3)] == [number]
    proposals.refused([number], is_overload=False)
    assert not proposals.has_queued, "the first may be in the log of the node that led"
    proposals.entered_term(4)
    assert proposals.has_queued
    assert outcomes == []
