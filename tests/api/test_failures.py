"""Every error of ours reaches the client with code, reason and outcome."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc import StatusCode

from appliance import errors
from appliance.api import calls, failures
from appliance.rpc import CallOver

CASES: list[tuple[Exception, StatusCode, str, str]] = [
    (errors.InvalidArgument("f", "m"), StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "NOT_APPLIED"),
    (errors.NoLeader("m"), StatusCode.UNAVAILABLE, "NO_LEADER", "NOT_APPLIED"),
    (errors.Overloaded("m"), StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "NOT_APPLIED"),
    (errors.ConditionFailed("m"), StatusCode.FAILED_PRECONDITION, "CONDITION_FAILED", "NOT_APPLIED"),
    (errors.SequenceTooOld("m"), StatusCode.OUT_OF_RANGE, "SEQUENCE_TOO_OLD", "OUTCOME_UNKNOWN"),
    (errors.SequenceReused("m"), StatusCode.FAILED_PRECONDITION, "SEQUENCE_REUSED", "NOT_APPLIED"),
    (errors.ClientStalled("m"), StatusCode.ABORTED, "CLIENT_STALLED", "NOT_APPLIED"),
    (errors.IndexNotReached("m", 12), StatusCode.OUT_OF_RANGE, "INDEX_NOT_REACHED", "NOT_APPLIED"),
    (errors.HistoryGone("m", 12), StatusCode.OUT_OF_RANGE, "HISTORY_GONE", "NOT_APPLIED"),
    (errors.NotFound("m"), StatusCode.NOT_FOUND, "NOT_FOUND", "NOT_APPLIED"),
    (errors.Quarantined("m"), StatusCode.UNAVAILABLE, "QUARANTINED", "NOT_APPLIED"),
    (errors.NotApplied("m"), StatusCode.UNAVAILABLE, "NOT_APPLIED", "NOT_APPLIED"),
    (errors.OutcomeUnknown("m"), StatusCode.DEADLINE_EXCEEDED, "DEADLINE", "OUTCOME_UNKNOWN"),
    (errors.StorageFailed("m"), StatusCode.INTERNAL, "INTERNAL", "OUTCOME_UNKNOWN"),
    (ValueError("secret"), StatusCode.INTERNAL, "INTERNAL", "OUTCOME_UNKNOWN"),
]


@pytest.mark.parametrize(("error", "code", "reason", "outcome"), CASES)
def test_an_error_has_its_code_reason_and_outcome(
    error: Exception, code: StatusCode, reason: str, outcome: str
) -> None:
    status = failures.status_of(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert failures.code_of(error) is code
    assert status.code == code.value[0]
    assert (info.reason, info.domain, info.metadata["outcome"]) == (reason, "raftberry.v1", outcome)


def test_every_error_that_is_not_fatal_is_in_the_table() -> None:
    classes = {each for each in vars(errors).values() if isinstance(each, type)}
    request_errors = {each for each in classes if issubclass(each, errors.NotApplied | errors.OutcomeUnknown)}
    assert request_errors == set(failures.TABLE)


def test_a_subclass_has_the_verdict_of_its_base() -> None:
    class Unset(errors.NoLeader):
        pass

    assert failures.code_of(Unset("m")) is StatusCode.UNAVAILABLE


def test_a_bad_field_is_named_in_bad_request() -> None:
    status = failures.status_of(errors.InvalidArgument("readings[0].sensor", "empty"))
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "readings[0].sensor"
    assert bad.field_violations[0].description == "empty"
    assert status.message == "readings[0].sensor: empty"


def test_unavailable_says_when_to_retry() -> None:
    retry = error_details_pb2.RetryInfo()
    assert failures.status_of(errors.NoLeader("m")).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == failures.RETRY_DELAY_MS


def test_history_gone_says_where_history_begins() -> None:
    info = error_details_pb2.ErrorInfo()
    failures.status_of(errors.HistoryGone("m", 12)).details[0].Unpack(info)
    assert info.metadata["earliest_index"] == "12"


def test_insides_of_a_bug_stay_inside() -> None:
    assert "secret" not in failures.status_of(ValueError("secret")).message
    assert failures.status_of(errors.StorageFailed("m")).message != "m"


async def test_what_a_departed_client_cannot_be_told_is_not_logged_as_a_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def behaviour(_request: object, _context: object) -> Message:
        raise CallOver

    handler: Any = calls.unary(behaviour, None)
    with pytest.raises(CallOver):
        await handler.unary_unary(b"", None)
    assert not caplog.records
