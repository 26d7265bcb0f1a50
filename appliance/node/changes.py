"""Changes of the membership, from whoever asks on any node to the committed configuration (thesis, chapter 4).

Invariant: the leader begins a change only behind a committed entry of its term, with no other change uncommitted
(H13), and only one that leaves a majority connected. Whoever asks repeats the question until the leader says that it
is so and committed: changes are idempotent, so a lost answer, a new leader or a leader that is asked to remove itself
(it hands over first) need nothing more. Sans-IO; loop thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.clock import Clock
from appliance.consensus import ConsensusOptions, Engine, LogImage
from appliance.errors import ConditionFailed, NoLeader, NotApplied, NotFound, OutcomeUnknown, Overloaded
from appliance.model import Configuration, MemberId
from appliance.node.change_frames import Reply, read_reply, read_request, write_reply, write_request
from appliance.node.contacts import Contacts
from appliance.node.identity import Self
from appliance.node.promotion import Promotion
from appliance.node.writing import WritePath
from appliance.state.membership import (
    Change,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    UpdateMember,
    next_configuration,
)
from raftberry.internal.v1 import peer_pb2

CHANGES_PENDING_MAX: Final = 64
"""Callers that wait for a change on one node: a person, or a few machines that join."""

ASK_AGAIN_NS: Final = 50_000_000
"""A change takes a commit on a majority; a learner's catching up takes longer, and is asked about as often."""

ANSWER_NS_MAX: Final = 500_000_000
"""A question or its answer may be lost."""

LOOK_AGAIN_NS: Final = 100_000_000
"""Between two looks whether somebody is elsewhere than the cluster knows."""

ANNOUNCE_AGAIN_NS: Final = 30_000_000_000
"""Between two attempts to tell the cluster this node's address."""

ChangeDone = Callable[[Configuration | NotApplied | OutcomeUnknown], None]


class Governed(Protocol):
    """The node, as far as membership looks at it."""

    me: Self
    engine: Engine
    log: LogImage
    writes: WritePath
    clock: Clock
    contacts: Contacts
    consensus_options: ConsensusOptions

    def begin_transfer(self, target: str) -> MemberId: ...

    def send_frame(self, member: MemberId, fill: Callable[[peer_pb2.Frame], None]) -> bool: ...

    def request_wake(self) -> None: ...


@dataclass(slots=True)
class _Asked:
    change: Change
    deadline_ns: int
    done: ChangeDone
    ask_ns: int
    is_begun: bool = False
    reason: str = "no leader is known here"


class Changes:
    def __init__(self, node: Governed) -> None:
        self._node = node
        self._asked: dict[int, _Asked] = {}
        self._number = 0
        self._promotion = Promotion(node.engine, node.log, node.consensus_options)
        self._announce_ns = 0

    def ask(self, change: Change, deadline_ns: int, done: ChangeDone) -> None:
        """done is called once. Raises Overloaded."""
        if len(self._asked) >= CHANGES_PENDING_MAX:
            raise Overloaded(f"{CHANGES_PENDING_MAX} membership changes wait on this node: retry later")
        self._number += 1
        self._asked[self._number] = _Asked(change, deadline_ns, done, self._node.clock.monotonic_ns())
        self._node.request_wake()

    def cycle(self, now_ns: int) -> None:
        node = self._node
        for number, asked in list(self._asked.items()):
            if asked.deadline_ns <= now_ns:
                self._finish(number, _too_late(asked))
            elif asked.ask_ns <= now_ns:
                self._ask_leader(number, asked, now_ns)
        self._announce(now_ns)
        may_begin = self._may_begin() is None and not node.writes.is_held
        if may_begin and (member := self._promotion.due(now_ns)) is not None:
            with suppress(NotApplied):
                self._begin(next_configuration(node.log.configuration, PromoteMember(member)))

    def next_deadline_ns(self) -> int | None:
        """When `cycle` has something to do although nothing arrives."""
        times = [min(asked.ask_ns, asked.deadline_ns) for asked in self._asked.values()]
        return min(times, default=None)

    def was_removed(self) -> None:
        """Who asked this node to remove it has what it asked for, though the leader's answer found no link any more."""
        mine = RemoveMember(self._node.me.member_id)
        for number, asked in list(self._asked.items()):
            if isinstance(asked.change, RemoveMember) and asked.change.member_id == mine.member_id:
                with suppress(NotApplied):
                    self._finish(number, next_configuration(self._node.log.configuration, mine))

    def fail_all(self, error: NotApplied) -> None:
        """This node takes no part any more."""
        for number, asked in list(self._asked.items()):
            is_open = asked.is_begun
            self._finish(number, OutcomeUnknown(f"{error}; the change may be made") if is_open else error)

    # asking ----------------------------------------------------------------------------------------------

    def _ask_leader(self, number: int, asked: _Asked, now_ns: int) -> None:
        node, leader = self._node, self._node.engine.leader
        asked.ask_ns = now_ns + ASK_AGAIN_NS
        if node.engine.is_leader:
            self._answered(number, self._judge(asked.change))
        elif leader is not None and node.send_frame(
            leader, lambda frame: write_request(frame, number, asked.change)
        ):
            asked.ask_ns = now_ns + ANSWER_NS_MAX

    def on_reply(self, reply: peer_pb2.MembershipReply) -> None:
        asked = self._asked.get(reply.request)
        if asked is not None:
            asked.ask_ns = self._node.clock.monotonic_ns() + ASK_AGAIN_NS
            self._answered(reply.request, read_reply(reply))

    def _answered(self, number: int, reply: Reply) -> None:
        asked = self._asked[number]
        if reply.error is not None:
            self._finish(number, reply.error)
        elif reply.configuration is not None:
            self._finish(number, reply.configuration)
        else:
            asked.is_begun |= reply.is_begun
            asked.reason = reply.reason

    def _finish(self, number: int, outcome: Configuration | NotApplied | OutcomeUnknown) -> None:
        self._asked.pop(number).done(outcome)

    def _announce(self, now_ns: int) -> None:
        """Somebody is elsewhere than the cluster knows."""
        node = self._node
        if now_ns < self._announce_ns or node.engine.leader is None:
            return
        moved = next(self._moved(node.log.configuration), None)
        if moved is None:
            self._announce_ns = now_ns + LOOK_AGAIN_NS
            return
        self._announce_ns = now_ns + ANNOUNCE_AGAIN_NS
        with suppress(Overloaded):
            self.ask(moved, now_ns + ANNOUNCE_AGAIN_NS, self._announced)

    def _announced(self, outcome: Configuration | NotApplied | OutcomeUnknown) -> None:
        if isinstance(outcome, Configuration):
            self._announce_ns = 0

    def _moved(self, configuration: Configuration) -> Iterator[UpdateMember]:
        """This node, as the options of this start say; and peers that said so on a link that is up.

        A peer that moved may have no link with the leader, which looks for it where it was.
        """
        node = self._node
        places = {node.me.member_id: node.me.peer_address, **node.contacts.claims}
        for member_id, address in places.items():
            member = configuration.member(member_id)
            is_here = member_id == node.me.member_id or node.engine.is_connected(member_id)
            if is_here and address and member is not None and member.peer_address != address:
                yield UpdateMember(member_id, address)

    # the leader ------------------------------------------------------------------------------------------

    def on_request(self, member: MemberId, request: peer_pb2.MembershipRequest) -> None:
        change = read_request(request)
        unknown = ConditionFailed("the leader's version does not know this change: upgrade it, and ask again")
        reply = Reply(error=unknown) if change is None else self._judge(change)
        self._node.send_frame(member, lambda frame: write_reply(frame, request.request, reply))

    def _judge(self, change: Change) -> Reply:
        """Begin the change if it may begin now; say how it stands."""
        current = self._node.log.configuration
        obstacle = self._may_begin()
        if obstacle is not None:
            return Reply(reason=obstacle)
        try:
            wanted = next_configuration(current, change)
            if wanted is current:
                return Reply(configuration=current)
            obstacle = self._obstacle(change, current, wanted)
        except (ConditionFailed, NotFound, Overloaded) as error:
            return Reply(error=error)
        if obstacle is not None:
            return Reply(reason=obstacle)
        self._begin(wanted)
        return Reply(is_begun=True, reason="the change is in the log, and waits for a majority")

    def _begin(self, wanted: Configuration) -> None:
        self._node.engine.propose_configuration(wanted)
        self._node.request_wake()

    def _may_begin(self) -> str | None:
        """Why no change may begin now (thesis, 4.1, and its correction: an entry of the term must be committed)."""
        node = self._node
        if not node.engine.is_leader:
            return "this node does not lead"
        if not node.engine.has_committed_in_term:
            return "the leader is new, and has not committed an entry of its term yet"
        if node.engine.is_configuration_pending:
            return "another change is under way, and waits for a majority"
        return None

    def _obstacle(self, change: Change, current: Configuration, wanted: Configuration) -> str | None:
        """What must happen first. Raises ConditionFailed where only a person can help."""
        if isinstance(change, RemoveMember) and change.member_id == self._node.me.member_id:
            return self._hand_over()
        if self._node.writes.is_held:
            return "leadership is being handed over"
        match change:
            case RemoveMember(member_id, force) if member_id in current.voters and not force:
                self._check_majority(current, wanted)
            case ReplaceMember(member_id) if member_id == self._node.me.member_id:
                return "the leader is in doubt about itself: another must lead first"
            case ReplaceMember(member_id) if member_id in current.voters:
                self._check_majority(current, wanted)
            case PromoteMember(member_id):
                return self._promotion.obstacle(member_id)
        return None

    def _hand_over(self) -> str:
        """A leader that is removed hands over first: then somebody else removes it.

        Begun again at every asking, while proposals wait: once they go on, something is in flight at once.
        """
        try:
            self._node.begin_transfer("")
        except NotApplied as error:
            return f"the leader hands over before it is removed, and can't yet: {error}"
        return "the leader hands over before it is removed"

    def _check_majority(self, current: Configuration, wanted: Configuration) -> None:
        """Those who remain must be able to commit, or the cluster would stand still."""
        engine, needed = self._node.engine, len(wanted.voters) // 2 + 1
        missing = [
            member.name
            for member in wanted.members
            if member.is_voter and member.member_id != self._node.me.member_id
            if not engine.is_connected(member.member_id)
        ]
        if len(wanted.voters) - len(missing) < needed:
            (gone,) = {member for member in current.members if wanted.member(member.member_id) is None}
            raise ConditionFailed(
                f"without {gone.name} the cluster needs {needed} of {len(wanted.voters)} voters, and "
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not connected: it would stand still; "
                "remove those first, or bring them back (--force removes it all the same)"
            )


def _too_late(asked: _Asked) -> NotApplied | OutcomeUnknown:
    if asked.is_begun:
        return OutcomeUnknown(
            "the change is in the log of a leader, and no majority confirmed it in time: it may still be made; "
            "`raftberry members` shows what is, and asking again does no harm"
        )
    return NoLeader(f"the membership was not changed in time: {asked.reason}; nothing was changed")
