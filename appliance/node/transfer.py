"""Handing leadership over (Raft thesis, section 3.10; H22).

Invariant: proposals wait from the request until a new leader is seen, or an election timeout has passed: then they go
on here, and it is tried again until the deadline.
PySyncObj's own answer only means "sent", so the outcome is what this node sees.
"""

from __future__ import annotations

import asyncio

from appliance.errors import ConditionFailed, NoLeader
from appliance.model import MemberId
from appliance.node.core import NodeCore

POLL_S = 0.02
"""The drain takes a commit or two; a transfer is rare."""


async def transfer_leadership(
    core: NodeCore, target: str, deadline_ns: int, *, is_leaving: bool = False
) -> tuple[str, int]:
    """(name of the new leader, its term). Asked on a follower, the leader is told. Raises NotApplied.

    is_leaving: this node stops, so a cluster that is going down as a whole is not waited for.
    """
    before = (core.engine.leader, core.engine.term)
    if core.leader_name() == target and target:
        return target, core.engine.term
    reason = "no leader is known here"
    try:
        while core.clock.monotonic_ns() < deadline_ns:
            if core.engine.leader not in (None, before[0]) and core.engine.term > before[1]:
                return core.leader_name(), core.engine.term
            if is_leaving and not core.engine.connected:
                raise NoLeader("every other node is gone")
            reason = _ask(core, target) or reason
            core.request_wake()
            await asyncio.sleep(POLL_S)
    finally:
        core.handover.end()
    raise NoLeader(f"leadership was not taken over in time: {reason}; the old leader goes on where it can")


def _ask(core: NodeCore, target: str) -> str:
    """Begin, or begin again; returns why nothing could be begun yet."""
    leader: MemberId | None = core.engine.leader
    if not core.engine.is_leader:
        if leader is not None:
            core.handover.ask(leader, target)
        return "the leader was asked"
    try:
        core.handover.begin(target)
    except ConditionFailed as error:
        if core.handover.is_unknown(target):
            raise
        return str(error)
    return "the follower was asked to take over"
