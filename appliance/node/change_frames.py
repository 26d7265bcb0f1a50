"""Membership changes and the leader's answers, as frames. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import ConditionFailed, NotApplied, NotFound, Overloaded
from appliance.model import Configuration, MemberId
from appliance.state.configuration import from_message, to_message
from appliance.state.membership import (
    AddLearner,
    Change,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    UpdateMember,
)
from raftberry.internal.v1 import peer_pb2

_Verdict = peer_pb2.MembershipReply.Verdict

_REFUSALS: tuple[tuple[type[NotApplied], peer_pb2.MembershipReply.Verdict], ...] = (
    (NotFound, _Verdict.VERDICT_NOT_FOUND),
    (Overloaded, _Verdict.VERDICT_OVERLOADED),
    (ConditionFailed, _Verdict.VERDICT_CONDITION_FAILED),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """The leader's word: an error for good; configuration: it is so, and committed; else ask again, for the reason."""

    error: NotApplied | None = None
    configuration: Configuration | None = None
    is_begun: bool = False
    reason: str = ""


def write_request(frame: peer_pb2.Frame, number: int, change: Change) -> None:
    request = frame.membership_request
    request.request = number
    match change:
        case AddLearner():
            add = request.add
            add.member_id, add.name = change.member_id, change.name
            add.peer_address, add.promote = change.peer_address, change.promote
        case RemoveMember():
            request.remove.member_id, request.remove.force = change.member_id, change.force
        case PromoteMember():
            request.promote.member_id = change.member_id
        case UpdateMember():
            request.update.member_id, request.update.peer_address = change.member_id, change.peer_address
        case ReplaceMember():
            again = request.replace
            again.member_id, again.successor_id = change.member_id, change.successor_id
            again.peer_address = change.peer_address


def read_request(request: peer_pb2.MembershipRequest) -> Change | None:
    """None: a kind that this version does not know."""
    match request.WhichOneof("change"):
        case "add":
            add = request.add
            return AddLearner(MemberId(add.member_id), add.name, add.peer_address, add.promote)
        case "remove":
            return RemoveMember(MemberId(request.remove.member_id), request.remove.force)
        case "promote":
            return PromoteMember(MemberId(request.promote.member_id))
        case "update":
            return UpdateMember(MemberId(request.update.member_id), request.update.peer_address)
        case "replace":
            again = request.replace
            return ReplaceMember(MemberId(again.member_id), MemberId(again.successor_id), again.peer_address)
    return None


def write_reply(frame: peer_pb2.Frame, number: int, reply: Reply) -> None:
    message = frame.membership_reply
    message.request, message.message = number, reply.reason
    if reply.error is not None:
        message.verdict = next(verdict for kind, verdict in _REFUSALS if isinstance(reply.error, kind))
        message.message = str(reply.error)
    elif reply.configuration is not None:
        message.verdict = _Verdict.VERDICT_DONE
        message.index = reply.configuration.index
        message.configuration.CopyFrom(to_message(reply.configuration))
    else:
        message.verdict = _Verdict.VERDICT_BEGUN if reply.is_begun else _Verdict.VERDICT_LATER


def read_reply(message: peer_pb2.MembershipReply) -> Reply:
    for kind, verdict in _REFUSALS:
        if message.verdict == verdict:
            return Reply(error=kind(message.message))
    if message.verdict == _Verdict.VERDICT_DONE:
        return Reply(configuration=from_message(message.configuration, message.index))
    return Reply(is_begun=message.verdict == _Verdict.VERDICT_BEGUN, reason=message.message)
