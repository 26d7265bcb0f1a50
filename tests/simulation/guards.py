"""How often each rule of the guard changed something: a rule that never does is not tested by a swarm that passes.

Invariant: the rules run as they are; what they were given, and what they made of it, is looked at from outside.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

from appliance.consensus import guard
from appliance.consensus.core import Core, node_of
from appliance.consensus.engine import Engine
from appliance.consensus.flow import Flow
from appliance.consensus.guard import Guard
from appliance.consensus.promises import Promises
from appliance.consensus.reads import Reads
from appliance.consensus.reconcile import Accepted
from appliance.node.core import NodeCore
from appliance.node.proposals import Proposals
from appliance.node.writing import WritePath
from raftberry.internal.v1 import peer_pb2

Owner = type | ModuleType


def watched(counts: Counter[str]) -> list[tuple[Owner, str, object]]:
    """(owner, name, function in its place), which counts `guard_*` and does what the function did."""

    def before(owner: Owner, name: str, rule: str, strikes: Callable[..., bool]) -> tuple[Owner, str, object]:
        function = getattr(owner, name)

        @functools.wraps(function)
        def counting(*arguments: Any, **named: Any) -> Any:
            counts[f"guard_{rule}"] += strikes(*arguments, **named)
            return function(*arguments, **named)

        return owner, name, counting

    def after(owner: Owner, name: str, rule: str, strikes: Callable[..., bool]) -> tuple[Owner, str, object]:
        """strikes: asked with the result first."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def counting(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            counts[f"guard_{rule}"] += strikes(result, *arguments)
            return result

        return owner, name, counting

    hearing = _Hearing()
    return [
        after(Promises, "make", "h1_promise_waits", lambda was_sent, *_: not was_sent),
        before(Guard, "_count_ack", "h1_ack_beyond_own_disk", _is_ack_capped),
        after(guard, "reconcile", "h2_entries_held", _are_entries_held),
        before(Core, "keep_next_index", "h3_next_index_kept", _is_next_index_kept),
        before(Guard, "_step_back", "h4_rejection_bounded", _is_rejection_bounded),
        before(Guard, "_on_append_entries", "h6_commits_heard", hearing.begins),
        before(Core, "receive", "h6_commit_clamped", hearing.is_clamped),
        before(Engine, "install", "h7_log_kept", lambda engine, at, _: engine._replica.log.holds(at)),
        after(NodeCore, "_is_snapshot_needed", "h7_snapshot_ignored", lambda is_needed, *_: not is_needed),
        before(Proposals, "_requeue", "h9_sent_again", lambda _, requests: bool(requests)),
        before(Flow, "_pause", "h15_peer_paused", lambda flow, member: not flow._windows[member].is_paused),
        before(Guard, "_answer_older_term", "h16_older_term_answered", _is_older_term_answered),
        before(Reads, "ask", "h18_read_before_the_first_commit", _is_read_early),
        before(WritePath, "hold", "h22_writes_held", lambda _, duration_ns: bool(duration_ns)),
    ]


RULES = tuple(
    f"guard_{rule}"
    for rule in (
        "h1_promise_waits",
        "h1_ack_beyond_own_disk",
        "h2_entries_held",
        "h3_next_index_kept",
        "h4_rejection_bounded",
        "h6_commits_heard",
        "h6_commit_clamped",
        "h9_sent_again",
        "h15_peer_paused",
        "h16_older_term_answered",
        "h18_read_before_the_first_commit",
        "h22_writes_held",
    )
)
"""Those that a swarm must reach. The ones of H7 take an order of events that scripts make (ablation_snapshots.py)."""


def _is_ack_capped(rule: Guard, member: Any) -> bool:
    return rule._acknowledged[member] > rule._replica.log.durable_index


def _are_entries_held(verdict: object, _log: object, _previous: object, entries: Any, *_: object) -> bool:
    return isinstance(verdict, Accepted) and len(verdict.entries) < len(entries)


def _is_next_index_kept(core: Any, member: Any, at_least: int) -> bool:
    return bool(core._SyncObj__raftNextIndex.get(node_of(member), at_least) < at_least)


def _is_rejection_bounded(rule: Guard, member: Any, next_index: int) -> bool:
    matched = max(rule.core.match_index(member), rule._acknowledged_by(member))
    return not matched < next_index <= rule.core.next_index(member)


class _Hearing:
    """AppendEntries on their way through the guard: what the leader says is committed, and what is passed on."""

    def __init__(self) -> None:
        self._rule: Guard | None = None
        self._told_index = 0

    def begins(self, rule: Guard, _member: object, frame: peer_pb2.Frame) -> bool:
        self._rule, self._told_index = rule, frame.append_entries.commit_index
        return True

    def is_clamped(self, _core: object, _member: object, message: dict[str, Any]) -> bool:
        if message["type"] != "append_entries" or self._rule is None:
            return False
        return isinstance(self._rule._verdict, Accepted) and message["commit_index"] < self._told_index


def _is_older_term_answered(_rule: Guard, _member: Any, kind: str | None) -> bool:
    return kind in guard._FROM_BEHIND


def _is_read_early(reads: Reads, _done: object) -> bool:
    core = reads._core
    return core.is_leader and core.raftCommitIndex < core.noop_index
