"""A node's status out of its parts, with alarms in words for someone at 3 a.m. Loop thread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Protocol

from appliance.model import MemberId, Role, hex_id
from appliance.node.core import NodeCore
from appliance.node.status import NodeStatus, PeerStatus
from appliance.node.watches import Watches

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000

REUSE = (
    "to use this machine again, `sudo raftberry invite` on a member, and here the line that it prints with "
    "--discard-data (a plaintext cluster: an empty data directory)"
)


class Running(Protocol):
    started_ns: int
    watches: Watches

    def is_serving(self) -> bool: ...

    @property
    def remedy(self) -> Callable[[], str]: ...


def report(core: NodeCore, running: Running, readings_per_second: float) -> NodeStatus:
    engine, house = core.engine, core.housekeeping
    latencies_us = [latency // 1_000 for latency in core.pipeline.latencies_ns]
    return NodeStatus(
        name=core.me.name,
        leader=core.leader_name(),
        role=core.role,
        term=engine.term,
        commit_index=engine.commit_index,
        applied_index=core.state.position.index,
        durable_index=core.log.durable_index,
        last_index=core.log.last_index,
        peers=tuple(
            _peer(core, member_id) for member_id in sorted(core.members, key=lambda m: core.members[m].name)
        ),
        cluster_id=hex_id(core.me.cluster_id),
        member_id=hex_id(core.me.member_id),
        version=core.me.version,
        checkpoint_index=house.checkpoint.index,
        earliest_index=running.watches.earliest_index(),
        series_count=core.state.series_count,
        reading_count=core.state.reading_count,
        readings_per_second=readings_per_second,
        journal_size_bytes=house.sizes.total_bytes,
        store_size_bytes=house.store_bytes,
        commit_latency_us_median=int(statistics.median(latencies_us)) if latencies_us else 0,
        commit_latency_us_max=max(latencies_us, default=0),
        boot_count=core.boot_count,
        uptime_seconds=(core.clock.monotonic_ns() - running.started_ns) // SECOND_NS,
        alarms=_alarms(core, running),
        has_quorum=running.is_serving(),
        key_count=core.state.key_count,
        written_bytes=house.budget.written_bytes,
        written_bytes_per_day=house.budget.per_day_bytes(),
        write_budget_bytes_per_day=house.budget.budget_bytes,
        card_life_used_percent=house.budget.card_life_used_percent,
        scrubbed_unix_nano=house.scrub.ended_wall_ns,
        scrub_percent=house.scrub.percent(house.space.used_bytes),
        disk_free_bytes=house.space.disk_free_bytes or 0,
    )


def _peer(core: NodeCore, member_id: MemberId) -> PeerStatus:
    member = core.members[member_id]
    is_self = member.member_id == core.me.member_id
    now_ns = core.clock.monotonic_ns()
    heard_ns = now_ns if is_self else core.heard_ns.get(member_id)
    return PeerStatus(
        name=member.name,
        member_id=hex_id(member.member_id),
        number=member.number,
        peer_address=member.peer_address,
        connected=is_self or core.engine.is_connected(member.member_id),
        match_index=_match_index(core, is_self=is_self, member_id=member_id),
        heard_ms_ago=None if heard_ns is None else (now_ns - heard_ns) // MILLISECOND_NS,
        voter=member.is_voter,
        refused=core.acquaintances.refused.get(member.member_id, ""),
    )


def _match_index(core: NodeCore, *, is_self: bool, member_id: MemberId) -> int:
    if not core.engine.is_leader:
        return 0
    return core.log.durable_index if is_self else core.engine.match_index(member_id)


def _alarms(core: NodeCore, running: Running) -> tuple[str, ...]:
    alarms: list[str] = []
    if core.is_removed:
        alarms.append(f"{core.quarantine_reason}; {REUSE}")
    elif core.quarantine_reason:
        alarms.append(f"quarantined: {core.quarantine_reason}; {running.remedy()}")
    elif not running.is_serving():
        alarms.append(
            "no majority has confirmed a leader within two election timeouts: writes wait or are refused"
        )
    if rival := core.superseding.alarm():
        alarms.append(rival)
    if core.verification.alarm:
        alarms.append(core.verification.alarm)
    if len(core.members) == 1:
        alarms.append("cluster of one: no copy elsewhere")
    for member_id, reason in sorted(core.acquaintances.refused.items()):
        alarms.append(f"{core.contacts.name_of(member_id)} is refused: {reason}")
    if core.role is Role.LEADER:
        missing = [m.name for m in core.members.values() if m.member_id != core.me.member_id]
        missing = [name for name in missing if name not in _connected_names(core)]
        alarms.extend(f"{name} is not connected" for name in sorted(missing))
    if obstacle := core.receiver.obstacle:
        alarms.append(obstacle)
    if refusal := core.housekeeping.space.refusal():
        alarms.append(refusal)
    if over := core.housekeeping.budget.alarm():
        alarms.append(over)
    if doubt := core.housekeeping.retention.doubt:
        alarms.append(
            f"retention is held: {doubt}; nothing is dropped by age or rolled up until the clocks agree: set them "
            "(timedatectl)"
        )
    if refused := core.housekeeping.retention.refusals.alarm():
        alarms.append(refused)
    return tuple(alarms)


def _connected_names(core: NodeCore) -> set[str]:
    return {core.members[member].name for member in core.engine.connected if member in core.members}
