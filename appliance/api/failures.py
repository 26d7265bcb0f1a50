"""How our errors reach a client: one table from error class to gRPC code and reason.

Invariant: every failed call carries a google.rpc.Status with ErrorInfo, and its metadata says in "outcome"
whether a write may have happened (NOT_APPLIED or OUTCOME_UNKNOWN). Pure functions, no I/O.
Source: google.aip.dev/193 and grpc/proposal A-richer error model (grpc-status-details-bin).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from appliance import errors

DOMAIN: Final = "raftberry.v1"
DETAILS_KEY: Final = "grpc-status-details-bin"
NOT_APPLIED: Final = "NOT_APPLIED"
OUTCOME_UNKNOWN: Final = "OUTCOME_UNKNOWN"

RETRY_DELAY_MS: Final = 250
"""What RetryInfo asks for: about half an election timeout, so that the second try finds the new leader."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Code and reason of one class of error."""

    code: StatusCode
    reason: str


TABLE: Final[dict[type[errors.RaftberryError], Verdict]] = {
    errors.InvalidArgument: Verdict(StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    errors.NoLeader: Verdict(StatusCode.UNAVAILABLE, "NO_LEADER"),
    errors.Overloaded: Verdict(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.ConditionFailed: Verdict(StatusCode.FAILED_PRECONDITION, "CONDITION_FAILED"),
    errors.SequenceTooOld: Verdict(StatusCode.OUT_OF_RANGE, "SEQUENCE_TOO_OLD"),
    errors.SequenceReused: Verdict(StatusCode.FAILED_PRECONDITION, "SEQUENCE_REUSED"),
    errors.HistoryGone: Verdict(StatusCode.OUT_OF_RANGE, "HISTORY_GONE"),
    errors.IndexNotReached: Verdict(StatusCode.OUT_OF_RANGE, "INDEX_NOT_REACHED"),
    errors.ClientStalled: Verdict(StatusCode.ABORTED, "CLIENT_STALLED"),
    errors.NotFound: Verdict(StatusCode.NOT_FOUND, "NOT_FOUND"),
    errors.Quarantined: Verdict(StatusCode.UNAVAILABLE, "QUARANTINED"),
    errors.Unauthenticated: Verdict(StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.PermissionDenied: Verdict(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.RateLimited: Verdict(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    errors.NotApplied: Verdict(StatusCode.UNAVAILABLE, "NOT_APPLIED"),
    errors.OutcomeUnknown: Verdict(StatusCode.DEADLINE_EXCEEDED, "DEADLINE"),
}
"""A subclass that is not named here gets the verdict of its nearest base."""

_INTERNAL: Final = Verdict(StatusCode.INTERNAL, "INTERNAL")


def status_of(error: BaseException) -> status_pb2.Status:
    """The google.rpc.Status a client gets. Errors that are not ours, and Fatal ones, say nothing of our insides."""
    verdict = _verdict(error)
    # grpc's own stub types code.value as Any-like; it is (number, text).
    number: int = verdict.code.value[0]
    message = str(error) if verdict is not _INTERNAL else "internal error; the node's journal says more"
    status = status_pb2.Status(code=number, message=message)
    for detail in _details(error, verdict):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def code_of(error: BaseException) -> StatusCode:
    return _verdict(error).code


def is_internal(error: BaseException) -> bool:
    """The error is a bug or the end of the process: whoever converts it also logs it."""
    return _verdict(error) is _INTERNAL


def _verdict(error: BaseException) -> Verdict:
    for base in type(error).__mro__:
        if base in TABLE:
            return TABLE[base]
    return _INTERNAL


def _details(
    error: BaseException, verdict: Verdict
) -> list[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo]:
    is_known = isinstance(error, errors.NotApplied) and not error.leaves_doubt
    outcome = NOT_APPLIED if is_known else OUTCOME_UNKNOWN
    info = error_details_pb2.ErrorInfo(reason=verdict.reason, domain=DOMAIN, metadata={"outcome": outcome})
    details: list[
        error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo
    ] = [info]
    if isinstance(error, errors.HistoryGone):
        info.metadata["earliest_index"] = str(error.earliest_index)
    if isinstance(error, errors.IndexNotReached):
        info.metadata["last_index"] = str(error.last_index)
    if isinstance(error, errors.InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.description, reason=verdict.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if verdict.code is StatusCode.UNAVAILABLE or isinstance(error, errors.RateLimited):
        retry = error_details_pb2.RetryInfo()
        delay_ms = error.retry_ms if isinstance(error, errors.RateLimited) else RETRY_DELAY_MS
        retry.retry_delay.FromMilliseconds(delay_ms)
        details.append(retry)
    return details
