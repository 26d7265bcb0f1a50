"""What is on its way to a follower: bounded whatever its card does, and nobody is left hidden."""

from __future__ import annotations

import pytest

from appliance.consensus import flow, log
from appliance.limits import ENTRY_BYTES_MAX
from appliance.state.membership import RemoveMember
from appliance.state.operations import put_key
from tests.simulation.ablation_log import frame_of
from tests.simulation.node import Machine
from tests.simulation.schedule import SECOND_NS
from tests.simulation.script import process_of, stage


def remove_by_force(asked: Machine, gone: Machine) -> None:
    process = process_of(asked)
    deadline_ns = asked.clock.monotonic_ns() + SECOND_NS // 5
    change = RemoveMember(gone.member_id, force=True)
    process.call(lambda: process.core.change_members(change, deadline_ns, lambda _: None))


@pytest.mark.parametrize("is_paused", [True, False])
def test_a_member_at_its_bound_whose_removal_is_truncated_is_sent_the_log_again(is_paused: bool) -> None:
    """Its link never broke: nothing else would show it to PySyncObj again."""
    with stage() as s:
        a, b, m = s.nodes
        s.replace(flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000)
        s.replace(log, "LOG_SLICE_BYTES_MAX", 1_200)
        s.elect(a)
        s.hold(a, m)
        for _ in range(10 * is_paused):
            s.propose(a, 1, size=1_000)
            s.wait(5)
        s.wait(50)
        core = process_of(a).core
        assert (m.member_id in core.engine._flow.paused()) is is_paused
        s.cut(a, b)
        remove_by_force(a, m)
        s.wait(30)
        assert core.log.configuration.member(m.member_id) is None
        s.release(a, m)
        s.wait(700)
        s.elect(b)
        s.connect(a, b)
        s.wait(400)
        assert core.log.configuration.member(m.member_id) is not None, "its removal was truncated"
        s.hand_over(b, a)
        s.until(lambda: core.engine.is_leader and core.engine.has_committed_in_term, "elected")
        s.crash(b)
        call = s.put(a)
        s.wait(3_000)
        s.expect(call.outcome == "ok", "answered_in_time")
        s.finish()


def test_a_follower_whose_card_stands_still_holds_a_bounded_number_of_entries() -> None:
    with stage() as s:
        a, _, f = s.nodes
        s.replace(flow, "PEER_IN_FLIGHT_BYTES_MAX", 4_000)
        s.replace(log, "LOG_SLICE_BYTES_MAX", 1_200)
        s.elect(a)
        s.stall(f, 30_000)
        for _ in range(15 * 50):
            s.propose(a, 1, size=1_000)
            s.wait(20)
        held = process_of(f).core.log
        s.expect(held.last_index - held.durable_index <= 6, "under_way_is_bounded")
        s.finish()


def test_an_operation_that_fits_no_entry_with_what_goes_around_it_is_dropped() -> None:
    with stage() as s:
        a, b, _ = s.nodes
        s.elect(a)
        frame = frame_of(b, a)
        operation = put_key("k", b"")
        operation.origin_member, operation.origin_boot = b.member_id, process_of(b).nonce
        operation.origin_request = 1
        operation.put.value = bytes(ENTRY_BYTES_MAX - 1 - len(operation.SerializeToString()) - 8)
        frame.forward.requests.append(1)
        frame.forward.operations.append(operation.SerializeToString())
        s.links.inject(b.member_id, a.member_id, frame.SerializeToString())
        s.wait(50)
        s.expect(process_of(a).core.engine.dropped_count["impossible_forward"] == 1, "no_bug")
        s.finish()
