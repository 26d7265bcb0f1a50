"""Changes of the membership while everything else goes wrong: machines are added, removed, replaced and moved.

Invariant: a fault here is what an operator may do, and what a machine may suffer under it: it asks for changes through
any machine that runs, again and again until one is done or refused, as a person would.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from appliance.errors import NoLeader, NotApplied, OutcomeUnknown
from appliance.model import Configuration, MemberId
from appliance.state.membership import AddLearner, Change, PromoteMember, RemoveMember
from tests.simulation.node import Machine, Process
from tests.simulation.scene import Strike
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS, Schedule

VOTERS_MAX = 5
MACHINES_MAX = 9

Done = Callable[[Configuration], None]


class Site(Protocol):
    """The world, as far as machines come and go in it."""

    machines: list[Machine]
    schedule: Schedule

    def add_machine(self, name: str) -> Machine:
        """New hardware, not started, of no cluster yet."""

    def connect_machine(self, machine: Machine, configuration: Configuration) -> None:
        """The cluster has taken it in: it starts."""

    def restart(self, machine: Machine) -> None: ...

    def leader(self) -> Machine | None: ...


class MemberFaults:
    def __init__(
        self, site: Site, rng: random.Random, counts: Counter[str], *, is_certain: bool = False
    ) -> None:
        """is_certain: there are some, whatever the seed draws."""
        self._site, self._rng, self.counts = site, rng, counts
        self._number = 0
        self._leaving: set[MemberId] = set()
        self.kinds: dict[str, tuple[int, Strike]] = {
            "add_member": (4 * SECOND_NS, self._add_member),
            "remove_member": (5 * SECOND_NS, self._remove_member),
            "remove_leader": (9 * SECOND_NS, self._remove_leader),
            "replace_member": (9 * SECOND_NS, self._replace_member),
            "move_member": (7 * SECOND_NS, self._move_member),
        }
        has_changes = rng.random() < 0.35 or is_certain
        self.drawn = [kind for kind in self.kinds if rng.random() < 0.6] if has_changes else []
        """By a source of their own: the other faults of a seed are what they are without them."""

    # what an operator does -------------------------------------------------------------------------------

    def _add_member(self) -> bool:
        configuration = self._configuration()
        if configuration is None or len(configuration.members) >= VOTERS_MAX:
            return False
        if len(self._site.machines) >= MACHINES_MAX:
            return False
        self._number += 1
        self._join(f"new-{self._number}")
        return True

    def _remove_member(self) -> bool:
        configuration = self._configuration()
        if configuration is None or len(configuration.voters) < 2:
            return False
        member = self._rng.choice(configuration.members).member_id
        return self._outlives(configuration, leaving=member) and self._remove(member)

    def _remove_leader(self) -> bool:
        configuration, leader = self._configuration(), self._site.leader()
        if configuration is None or leader is None or len(configuration.voters) < 2:
            return False
        return self._outlives(configuration, leaving=leader.member_id) and self._remove(leader.member_id)

    def _replace_member(self) -> bool:
        """The board is dead: its member is removed, and another board gets its name."""
        configuration = self._configuration()
        voters = [machine for machine in self._site.machines if self._is_voter(machine, configuration)]
        is_any_gone = any(machine.is_gone for machine in voters)
        machines = [machine for machine in voters if machine.member_id not in self._leaving]
        if len(machines) < 3 or is_any_gone or len(self._site.machines) >= MACHINES_MAX:
            return False
        machine = self._rng.choice(machines)
        machine.is_gone = True
        machine.crash()
        return self._remove(machine.member_id, lambda: self._join(machine.name))

    def _move_member(self) -> bool:
        """Power off, and another address when it comes back.

        Only while everybody knows where everybody is: two that lose each other's address at once need a name service.
        """
        machine = self._rng.choice(self._site.machines)
        if not self._is_everybody_known():
            return False
        machine.crash()
        self._number += 1
        machine.address = f"10.0.1.{self._number}:7441"
        delay_ns = self._rng.randint(50, 1_000) * MILLISECOND_NS
        self._site.schedule.after(delay_ns, lambda: self._site.restart(machine))
        return True

    # changes, until they are done ------------------------------------------------------------------------

    def _join(self, name: str) -> None:
        machine = self._site.add_machine(name)
        promote = self._rng.random() < 0.8
        change = AddLearner(machine.member_id, name, machine.address, promote=promote)

        def added(configuration: Configuration) -> None:
            self.counts["member_added"] += 1
            self._site.connect_machine(machine, configuration)
            if not promote and self._rng.random() < 0.5:
                self._pursue(PromoteMember(machine.member_id), lambda _: None)

        self._pursue(change, added)

    def _remove(self, member: MemberId, then: Callable[[], None] = lambda: None) -> bool:
        if member in self._leaving:
            return False
        self._leaving.add(member)

        def removed(_configuration: Configuration) -> None:
            self.counts["member_removed"] += 1
            then()

        self._pursue(RemoveMember(member), removed, lambda: self._leaving.discard(member))
        return True

    def _pursue(self, change: Change, done: Done, refused: Callable[[], None] = lambda: None) -> None:
        """Ask some machine; ask another one after a while, unless there was an answer for good.

        Refused is what was asked once: of two attempts the first may stand in some log, and be done yet.
        """
        is_answered, asked = False, 0

        def answered(outcome: Configuration | NotApplied | OutcomeUnknown) -> None:
            nonlocal is_answered
            if is_answered:
                return
            if isinstance(outcome, Configuration):
                is_answered = True
                done(outcome)
            elif isinstance(outcome, NotApplied) and not isinstance(outcome, NoLeader):
                is_answered = True
                self.counts["member_refused"] += 1
                if asked == 1:
                    refused()

        def ask(process: Process) -> None:
            nonlocal asked
            asked += 1
            deadline_ns = process.core.clock.monotonic_ns() + 3 * SECOND_NS
            if not process.core.quarantine_reason:
                process.core.change_members(change, deadline_ns, answered)

        def again() -> None:
            if is_answered:
                return
            process = self._rng.choice(self._site.machines).process
            if process is not None:
                process.call(lambda: ask(process))
            self._site.schedule.after(self._rng.randint(500, 2_000) * MILLISECOND_NS, again)

        again()

    # what is ---------------------------------------------------------------------------------------------

    def _configuration(self) -> Configuration | None:
        leader = self._site.leader()
        process = leader.process if leader is not None else None
        return None if process is None else process.core.state.configuration

    def _outlives(self, configuration: Configuration, *, leaving: MemberId) -> bool:
        """Whichever removals are done, the voters that run are a majority of those that are left.

        Of two voters none may be dead: who takes a board away from three of which one died has stopped the cluster.
        """
        gone = {machine.member_id for machine in self._site.machines if machine.is_gone}
        staying = [
            voter for voter in configuration.voters if voter in gone or voter not in self._leaving | {leaving}
        ]
        return 2 * sum(voter not in gone for voter in staying) > len(staying)

    def _is_everybody_known(self) -> bool:
        present = [
            machine for machine in self._site.machines if not machine.is_gone and not machine.is_removed
        ]
        addresses = {machine.member_id: machine.address for machine in present}
        for machine in present:
            if machine.process is None:
                return False
            members = machine.process.core.state.configuration.members
            if any(addresses.get(one.member_id, one.peer_address) != one.peer_address for one in members):
                return False
            # One that was removed and was not told yet would look for the others where they were.
            if not addresses.keys() <= {one.member_id for one in members}:
                return False
        return True

    def _is_voter(self, machine: Machine, configuration: Configuration | None) -> bool:
        return configuration is not None and machine.member_id in configuration.voters
