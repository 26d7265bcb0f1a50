"""Turns a failed call into one of our errors: the only place of the client that reads gRPC statuses.

Invariant: an error is NotApplied only if the server said so or the request never left; a broken connection or
a passed deadline is OutcomeUnknown. Statuses carry google.rpc.ErrorInfo (reason, outcome).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from appliance import errors

_DETAILS_KEY: Final = "grpc-status-details-bin"
_LOCAL_SERVICE: Final = "LocalService/"
_NOT_APPLIED: Final = "NOT_APPLIED"


class Unreachable(errors.NoLeader):
    """No named endpoint accepted a connection."""


class NotServed(errors.NotApplied):
    """The server refused for a reason that has no class of its own here."""


class Unfinished(errors.OutcomeUnknown):
    """The connection broke, or the server did not say whether it applied the request."""


class Unanswered(Unfinished):
    """The same of a read, which had nothing to apply."""

    leaves_doubt = False


def no_node_answers(problems: Sequence[str]) -> Unreachable:
    """problems: `endpoint: why`, one for each that was tried."""
    return Unreachable(
        f"no node answers at {'; at '.join(problems)}; or name others with --endpoint or RAFTBERRY_ENDPOINTS"
    )


def no_such_method(endpoint: str, method: str) -> NotServed:
    """method: `Service/Name`, which the endpoint does not know."""
    if method.startswith(_LOCAL_SERVICE):
        return NotServed(
            f"{endpoint}: type this on the node itself, as root or in the group raftberry: it goes through the node's "
            "local socket only (--endpoint unix:PATH, if it is not where the service has it)"
        )
    return NotServed(
        f"{endpoint} is no client port of a node, or of an older version: it knows no {method}; see its "
        "client.address (port 7440 where nothing else is configured)"
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """A gRPC status with what we read from its details."""

    code: int
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    field_path: str = ""

    @property
    def is_not_applied(self) -> bool:
        return self.metadata.get("outcome") == _NOT_APPLIED


def from_call(call: grpc.RpcError, endpoint: str, *, is_read: bool = False) -> errors.RaftberryError:
    """The error of a call that ended with a status. A read has no outcome that could be unknown: Unanswered."""
    assert isinstance(call, grpc.Call)
    details = next((value for key, value in call.trailing_metadata() or () if key == _DETAILS_KEY), b"")
    status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
    if isinstance(details, bytes) and details:
        try:
            status = status_pb2.Status.FromString(details)
        except DecodeError:
            # Details are an extra: code and text of the call still stand.
            pass
    error = from_status(status, endpoint)
    if is_read and isinstance(error, Unfinished):
        return Unanswered(f"{error}; nothing was changed, try again")
    return error


def from_status(status: status_pb2.Status, endpoint: str) -> errors.RaftberryError:
    """The error of a google.rpc.Status, as StreamWrite carries it in each response."""
    return _classify(_read(status), endpoint)


def _read(status: status_pb2.Status) -> Failure:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    path = bad.field_violations[0].field if bad.field_violations else ""
    return Failure(status.code, status.message, info.reason, dict(info.metadata), path)


_BY_REASON: Final[dict[str, type[errors.NotApplied]]] = {
    "CONDITION_FAILED": errors.ConditionFailed,
    "SEQUENCE_TOO_OLD": errors.SequenceTooOld,
    "SEQUENCE_REUSED": errors.SequenceReused,
    "QUARANTINED": errors.Quarantined,
    "NO_LEADER": errors.NoLeader,
    "CLIENT_STALLED": errors.ClientStalled,
}

_BY_CODE: Final[dict[int, type[errors.NotApplied]]] = {
    grpc.StatusCode.NOT_FOUND.value[0]: errors.NotFound,
    grpc.StatusCode.FAILED_PRECONDITION.value[0]: errors.ConditionFailed,
    grpc.StatusCode.UNIMPLEMENTED.value[0]: NotServed,
    grpc.StatusCode.UNAUTHENTICATED.value[0]: NotServed,
    grpc.StatusCode.PERMISSION_DENIED.value[0]: NotServed,
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]: errors.Overloaded,
}


def _classify(failure: Failure, endpoint: str) -> errors.RaftberryError:
    text = failure.message or f"{endpoint} gave no reason"
    if failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]:
        path = failure.field_path or "request"
        return errors.InvalidArgument(path, text.removeprefix(f"{path}: "))
    if failure.reason == "HISTORY_GONE":
        earliest = failure.metadata.get("earliest_index", "")
        return errors.HistoryGone(text, int(earliest) if earliest.isdecimal() else 0)
    if failure.reason == "INDEX_NOT_REACHED":
        last = failure.metadata.get("last_index", "")
        return errors.IndexNotReached(text, int(last) if last.isdecimal() else 0)
    if failure.reason in _BY_REASON and (failure.is_not_applied or failure.reason != "NO_LEADER"):
        return _BY_REASON[failure.reason](text)
    if failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] and not failure.reason:
        # gRPC's own limits, of a message's size before all: what does not fit now will not fit later.
        return NotServed(f"{endpoint} refused the request: {text}")
    if failure.code in _BY_CODE:
        return _BY_CODE[failure.code](text)
    if failure.is_not_applied:
        is_unavailable = failure.code == grpc.StatusCode.UNAVAILABLE.value[0]
        return errors.NoLeader(text) if is_unavailable else NotServed(text)
    return Unfinished(f"{endpoint}: {text}")
