"""One vote a member and term, over all the lives of its processes (paper, section 5.2).

Whether a vote is on the disk when it leaves is for PromiseChecker; here is whether anybody goes back on it.
"""

from __future__ import annotations

from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.simulation.checkers.base import Checker
from tests.simulation.failure import CheckFailed
from tests.simulation.node import Process


class VoteChecker(Checker):
    def __init__(self) -> None:
        self._votes: dict[tuple[MemberId, int], MemberId] = {}

    def sending(self, process: Process, member: MemberId, frame: peer_pb2.Frame) -> None:
        kind = frame.WhichOneof("kind")
        if kind not in ("vote", "request_vote"):
            return
        candidate = member if kind == "vote" else process.member
        first = self._votes.setdefault((process.member, frame.term), candidate)
        if first != candidate:
            raise CheckFailed("one_vote", f"{process.machine.name} votes for two in term {frame.term}")
