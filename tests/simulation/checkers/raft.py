"""Raft's safety properties (paper, figure 3), and that what is committed is on a majority of the disks.

Checked at every step: election safety, log matching on all that is sent, state machine safety through what each
node holds to be committed, leader completeness, applied <= commit <= durable <= last.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

from appliance.model import DEFLATED, MemberId
from raftberry.internal.v1 import peer_pb2
from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.disks import DiskView
from tests.simulation.failure import CheckFailed
from tests.simulation.node import Machine, Process


class RaftChecker(Checker):
    def __init__(self, machines: Mapping[MemberId, Machine], views: Mapping[int, DiskView]) -> None:
        self._machines, self._views = machines, views
        self.leaders: dict[int, tuple[int, int]] = {}
        self.committed: list[tuple[int, int]] = []
        """(term, checksum) of entry 2 and on: the log's first index is 2."""

        self._committed_in: list[int] = []
        """The term in which each of them was committed: later than its own if its leader fell before."""

        self._entries: dict[tuple[int, int], tuple[int, int]] = {}
        self._seen: dict[int, int] = {}
        self._voters: dict[int, tuple[MemberId, ...]] = {}
        """In force when a process was last looked at: within a step it may commit, and then take up another."""

        self.counts: Counter[str] = Counter()

    @property
    def commit_index(self) -> int:
        return len(self.committed) + 1

    def term_of(self, index: int) -> int | None:
        """Term of a committed entry."""
        return self.committed[index - 2][0] if 2 <= index <= self.commit_index else None

    # events ----------------------------------------------------------------------------------------------

    def started(self, process: Process) -> None:
        self._seen[process.station] = process.core.log.anchor.index
        self._voters[process.station] = process.core.log.configuration.voters
        self.stepped(process)

    def stepped(self, process: Process) -> None:
        engine, log = process.core.engine, process.core.log
        if engine.is_leader and self.leaders.get(engine.term) != (process.station, process.incarnation):
            self._check_new_leader(process)
        commit, seen = engine.commit_index, self._seen[process.station]
        if commit > seen:
            self._check_commits(process, seen, commit)
            self._seen[process.station] = commit
        if not engine.applied_index <= commit <= log.durable_index <= log.last_index:
            raise CheckFailed(
                "index_order",
                f"{process.machine.name}: applied {engine.applied_index} <= commit {commit} <= durable "
                f"{log.durable_index} <= last {log.last_index} does not hold",
            )
        self._voters[process.station] = log.configuration.voters
        self._check_durable_claim(process)

    def sending(self, process: Process, member: MemberId, frame: peer_pb2.Frame) -> None:
        if frame.HasField("append_entries"):
            body = frame.append_entries
            previous_term = body.prev_log_term
            for index, entry in enumerate(body.entries, start=body.prev_log_index + 1):
                self._check_matching(index, entry.term, zlib.crc32(entry.command), previous_term)
                previous_term = entry.term

    # rules -----------------------------------------------------------------------------------------------

    def _check_new_leader(self, process: Process) -> None:
        self.counts["leaders"] += 1
        engine, log = process.core.engine, process.core.log
        who = (process.station, process.incarnation)
        first = self.leaders.setdefault(engine.term, who)
        if len(log.configuration.voters) == 1:
            if first[0] == process.station:
                self.leaders[engine.term] = (
                    who  # nobody was asked: what a crash took back, no other node knew of
                )
            return
        if first != who:
            raise CheckFailed(
                "election_safety",
                f"{process.machine.name} and another lead in term {engine.term}: {first}, {who}",
            )
        # Not what was committed in a later term: votes that arrive late make a leader whom nobody follows any more.
        last = bisect_left(self._committed_in, engine.term) + 1
        term = self.term_of(last)
        if term is not None and last > log.anchor.index and log.term_at(last) != term:
            raise CheckFailed(
                "leader_completeness",
                f"{process.machine.name} leads in term {engine.term} without entry {last} of term {term}, which is "
                f"committed; its log ends at {log.last}",
            )

    def _check_commits(self, process: Process, seen: int, commit: int) -> None:
        log = process.core.log
        index = max(seen, log.anchor.index) + 1
        while index <= commit:
            entries = log.read(index)
            if not entries:
                raise CheckFailed(
                    "log_matching", f"{process.machine.name} committed {index} and does not hold it"
                )
            for command, at, term in entries:
                if at <= commit:
                    self.counts["deflated"] += command.startswith(DEFLATED)
                    self._check_commit(process, at, term, zlib.crc32(command))
            index = entries[-1][1] + 1

    def _check_commit(self, process: Process, index: int, term: int, checksum: int) -> None:
        self.counts["commits"] += 1
        if index <= self.commit_index:
            if self.committed[index - 2] != (term, checksum):
                raise CheckFailed(
                    "state_machine_safety",
                    f"{process.machine.name} committed entry {index} of term {term}, others another one of term "
                    f"{self.term_of(index)}",
                )
            return
        if index != self.commit_index + 1:
            raise CheckFailed(
                "state_machine_safety", f"{process.machine.name} committed {index} before its forerunner"
            )
        in_force = (self._voters[process.station], process.core.log.configuration.voters)
        holders = [member for member in self._machines if self._views[member].ever_held(index, term)]
        if not any(len(set(voters) & set(holders)) >= len(voters) // 2 + 1 for voters in in_force):
            names = ", ".join(self._machines[member].name for member in holders) or "no disk"
            raise CheckFailed(
                "durable_on_majority",
                f"{process.machine.name} committed entry {index} of term {term} while it is on {names} only",
            )
        self.committed.append((term, checksum))
        self._committed_in.append(process.core.engine.term)

    def _check_matching(self, index: int, term: int, checksum: int, previous_term: int) -> None:
        self.counts["entries_sent"] += 1
        known = self._entries.setdefault((index, term), (checksum, previous_term))
        if known != (checksum, previous_term):
            raise CheckFailed(
                "log_matching", f"two entries {index} of term {term}, or two histories before it"
            )

    def _check_durable_claim(self, process: Process) -> None:
        log, view = process.core.log, self._views[process.station]
        index = log.durable_index
        term = log.term_at(index)
        if index == log.anchor.index or index <= view.checkpoint_index:
            return
        self.counts["durable_claims"] += 1
        if view.term_at(index) != term and not (index < view.state.anchor.index):
            raise CheckFailed(
                "durable_index",
                f"{process.machine.name} holds {index} of term {term} to be durable; its disk says {view.state.last}",
            )
