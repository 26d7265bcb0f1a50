"""Scripts for the guards of those who write, and who govern (H9 to H13, H22, an older card).

Each leads to the point where only the guard helps, passes with the guard on, and is judged by the checkers that
always look, or by an expectation of its own.
"""

from __future__ import annotations

from appliance.state.membership import RemoveMember
from tests.simulation.node import Machine
from tests.simulation.schedule import MILLISECOND_NS, SECOND_NS
from tests.simulation.script import (
    Call,
    process_of,
    stage,
)


def an_operation_outlives_the_process_that_sent_it() -> None:
    """It is number 1 of its boot, and so is the one that waits in the next."""
    with stage() as s:
        a, b, _ = s.nodes
        s.elect(a)
        s.stall(a, 2_000)
        s.put(b)
        s.wait(50)
        s.crash(b)
        s.start(b)
        s.wait(50)
        s.hold(b, a)
        s.put(b)
        s.wait(3_000)
        s.finish()


def a_forward_is_sent_twice() -> None:
    """A follower hears neither of its write's commit nor of the new leader, and sends it again to the old one."""
    with stage() as s:
        old, new, follower = s.nodes
        s.elect(old)
        s.hold(old, follower)
        s.hold(new, follower)
        s.put(follower)
        s.wait(50)
        s.hand_over(old, new)
        s.until(lambda: process_of(new).core.engine.is_leader, "handed_over")
        s.cut(old, follower)
        s.connect(old, follower)
        s.wait(100)
        s.release(new, follower)
        s.wait(200)
        s.finish()


def the_leader_of_a_caller_is_cut_off() -> None:
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        s.cut(leader)
        call = s.put(leader, patience_ms=2_000)
        s.wait(4_000)
        s.expect(call.outcome == "unknown", "answered_in_time")
        s.finish()


def a_condition_fails() -> None:
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        call = s.put(leader, if_mod_revision=7)
        s.wait(100)
        s.expect(call.outcome == "not applied", "answered_in_time")
        s.finish()


def an_entry_is_large() -> None:
    with stage() as s:
        leader = s.nodes[0]
        s.elect(leader)
        s.propose(leader, 1, size=4_000)
        s.wait(100)
        s.finish()


def a_leader_of_the_few_removes_the_others() -> None:
    """a reaches b alone, of five; an operator insists that c, d and e are removed. They go on without it."""
    with stage(5) as s:
        a, b, c, d, e = s.nodes
        s.elect(a)
        for node in (c, d, e):
            s.cut(a, node)
            s.cut(b, node)
        for gone in (e, d, c):
            remove(a, gone)
            s.wait(200)
        s.elect(c)
        call = s.put(c)
        s.wait(100)
        s.expect(call.outcome == "ok", "answered_in_time")
        s.wait(2_500)
        s.finish()


def a_change_is_not_committed_before_a_restart() -> None:
    """It is in effect as long as it is in the log."""
    with stage() as s:
        a, b, c = s.nodes
        s.elect(a)
        s.cut(a)
        remove(a, c)
        s.wait(200)
        s.crash(a)
        s.start(a)
        members = process_of(a).core.log.configuration
        s.expect(members.member(c.member_id) is None, "configuration_survives")
        s.elect(b)
        s.connect(a)
        s.finish()


def remove(asked: Machine, gone: Machine) -> None:
    """By force: although those who remain are not all connected."""
    process = process_of(asked)
    change = RemoveMember(gone.member_id, force=True)
    deadline_ns = asked.clock.monotonic_ns() + SECOND_NS
    process.call(lambda: process.core.changes.ask(change, deadline_ns, lambda _: None))


def leadership_moves_under_load() -> None:
    """Somebody always has something to write, and is alone: no window leaves a moment without."""
    with stage() as s:
        leader, heir, _ = s.nodes
        s.elect(leader)

        def write(call: Call) -> None:
            if s.world.schedule.now_ns < until_ns:
                again = s.put(leader) if call.outcome else call
                s.world.schedule.after(MILLISECOND_NS // 20, lambda: write(again))

        until_ns = s.world.schedule.now_ns + 2 * SECOND_NS
        write(s.put(leader))
        s.wait(50)
        for _ in range(20):
            s.hand_over(leader, heir)
            s.wait(20)
        s.wait(100)
        s.expect(process_of(heir).core.engine.is_leader, "handed_over")
        s.finish()


def the_heir_is_gone() -> None:
    """The request to take over was lost with it: the old leader goes on."""
    with stage() as s:
        leader, heir, _ = s.nodes
        s.elect(leader)
        s.hold(leader, heir)
        s.hand_over(leader, heir)
        s.wait(5)
        s.crash(heir)
        call = s.put(leader)
        s.wait(2_000)
        s.expect(call.outcome == "ok", "answered_in_time")
        s.finish()


def an_old_card_is_put_back() -> None:
    with stage() as s:
        leader, _, forgetful = s.nodes
        s.elect(leader)
        image = forgetful.disk.copy()
        s.propose(leader, 20)
        s.wait(100)
        s.crash(forgetful)
        s.world.faults.losses.put_back(forgetful, image)
        s.start(forgetful)
        s.finish()
