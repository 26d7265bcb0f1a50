"""Every promise is justified by what its sender's disk holds at the moment it leaves (H1, H2, H7).

An ack for the leader's log of that term up to an index: the entries, with the leader's terms, and the term. Entries of
a leader: its term, with the vote for itself. A vote: term and vote. A vote request: the term and the vote for oneself.
A snapshot installed: the store's position. Every frame: the boot count and the highest index it claims.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2
from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.disks import DiskView
from tests.simulation.checkers.raft import RaftChecker
from tests.simulation.failure import CheckFailed
from tests.simulation.node import Process


class PromiseChecker(Checker):
    def __init__(self, views: Mapping[int, DiskView], raft: RaftChecker) -> None:
        self._views, self._raft = views, raft
        self._sent: defaultdict[int, dict[int, int]] = defaultdict(dict)
        """Leader's term -> index -> term of the entry, as its frames said."""

        self._transfers: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def sending(self, process: Process, member: MemberId, frame: peer_pb2.Frame) -> None:
        kind = frame.WhichOneof("kind")
        view = self._views[process.station]
        high_index = max(view.state.hard_state.high_index, view.checkpoint_index)
        if frame.high_index > high_index or frame.boot_count != view.boot_count:
            self._fail(process, kind, f"it claims index {frame.high_index} in boot {frame.boot_count}")
        if kind == "append_entries":
            self._check_vote(process, frame, process.member)
            self._learn(frame)
        elif kind == "append_entries_reply" and frame.append_entries_reply.success:
            self._check_ack(process, frame)
        elif kind == "vote":
            self._check_vote(process, frame, member)
        elif kind == "request_vote":
            self._check_vote(process, frame, process.member)
        elif kind == "snapshot_chunk":
            self._transfers[frame.snapshot_chunk.transfer_id] = frame.snapshot_chunk.snapshot_index
        elif kind == "snapshot_reply" and frame.snapshot_reply.installed:
            self._check_installed(process, frame)

    def _learn(self, frame: peer_pb2.Frame) -> None:
        body = frame.append_entries
        terms = self._sent[frame.term]
        terms[body.prev_log_index] = body.prev_log_term
        for index, entry in enumerate(body.entries, start=body.prev_log_index + 1):
            terms[index] = entry.term

    def _check_ack(self, process: Process, frame: peer_pb2.Frame) -> None:
        view = self._views[process.station]
        index = frame.append_entries_reply.next_index - 1
        self.counts["acks"] += 1
        if view.state.hard_state.term < frame.term:
            self._fail(
                process, "ack", f"of term {frame.term}: its disk knows term {view.state.hard_state.term}"
            )
        term = self._sent[frame.term].get(index, self._raft.term_of(index))
        if index <= 1 or (term is not None and view.holds(index, term)):
            return
        self._fail(
            process,
            "ack",
            f"up to {index} (the leader's entry is of term {term}): its disk ends at {view.state.last} and holds term "
            f"{view.term_at(index)} there",
        )

    def _check_vote(self, process: Process, frame: peer_pb2.Frame, candidate: MemberId) -> None:
        hard = self._views[process.station].state.hard_state
        self.counts["votes"] += 1
        if (hard.term, hard.vote) != (frame.term, candidate):
            self._fail(
                process, "vote", f"in term {frame.term}: its disk says term {hard.term}, vote {hard.vote}"
            )

    def _check_installed(self, process: Process, frame: peer_pb2.Frame) -> None:
        view = self._views[process.station]
        index = self._transfers[frame.snapshot_reply.transfer_id]
        self.counts["installs"] += 1
        term = self._raft.term_of(index)
        if index > 1 and (term is None or not view.holds(index, term)):
            self._fail(process, "snapshot", f"{index} as installed: its disk has {view.checkpoint_index}")

    def _fail(self, process: Process, kind: str | None, what: str) -> None:
        raise CheckFailed("promise_is_durable", f"{process.machine.name} sends {kind} {what}")
