"""A running node as systemd sees it: its status line, its watchdog, its reload.

Invariant: the watchdog is fed only by a loop that turns, while consensus ticks and no commit hangs. A node without
work, without a majority or in quarantine is healthy: a restart would help none of them.
Called by app.py; loop thread only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from appliance.clock import Clock
from appliance.config import Config
from appliance.errors import ConfigurationError
from appliance.host.journal import set_log_level
from appliance.host.notify import Notifier
from appliance.model import Role
from appliance.node.options import NodeOptions
from appliance.node.status import NodeStatus

log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
STATUS_PERIOD_S: Final = 2.0
US_PER_S: Final = 1_000_000

TICK_BOUND_NS: Final = 10 * SECOND_NS
"""Consensus asks for a turn at least once in an election timeout, a second by default."""

COMMIT_BOUND_NS: Final = 60 * SECOND_NS
"""A worn card stalls for seconds, and a commit may wait behind a checkpoint; after a minute nothing comes."""


class Pulse(Protocol):
    """What the watchdog looks at."""

    cycled_ns: int
    """When consensus was last given a turn."""

    def commit_busy_ns(self) -> int:
        """How long the commit under way has taken; 0: none is."""


def describe(status: NodeStatus) -> str:
    """The line of `systemctl status`: role, term, leader, rate, then what is wrong."""
    role = status.role.value
    if status.role is Role.FOLLOWER:
        role = f"follower of {status.leader}" if status.leader else "follower of nobody"
    elif status.role is Role.LEADER and len(status.peers) > 1:
        role = f"leader of {len(status.peers)}"
    parts = [
        f"{role}, term {status.term}, leader {status.leader or 'none'}",
        f"{status.readings_per_second:,.0f} readings/s",
        f"index {status.applied_index}",
        *status.alarms,
    ]
    return "; ".join(parts).replace("\n", " ")


def ailment_of(pulse: Pulse, clock: Clock) -> str:
    """Why the watchdog is not fed; empty: all is well."""
    waited_ns = clock.monotonic_ns() - pulse.cycled_ns
    if waited_ns > TICK_BOUND_NS:
        return (
            f"consensus has had no turn for {waited_ns // SECOND_NS} s (bound {TICK_BOUND_NS // SECOND_NS} s)"
        )
    busy_ns = pulse.commit_busy_ns()
    if busy_ns > COMMIT_BOUND_NS:
        bound = COMMIT_BOUND_NS // SECOND_NS
        return f"a commit has been under way for {busy_ns // SECOND_NS} s (bound {bound} s): the disk does not answer"
    return ""


@contextmanager
def beating(
    notifier: Notifier, describe_now: Callable[[], str], ailment_now: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Tell systemd how it goes while the body runs."""
    task = asyncio.create_task(_beat(notifier, describe_now, ailment_now))
    try:
        yield
    finally:
        task.cancel()


async def _beat(notifier: Notifier, describe_now: Callable[[], str], ailment_now: Callable[[], str]) -> None:
    period_s = STATUS_PERIOD_S
    if notifier.watchdog_us:
        # A third: one notice may be late or lost.
        period_s = min(period_s, notifier.watchdog_us / US_PER_S / 3)
    told = ""
    while notifier.is_active:
        ailment = ailment_now()
        if ailment and ailment != told:
            log.critical("the watchdog is not fed any more: %s", ailment)
        elif not ailment:
            notifier.alive()
        told = ailment
        notifier.status(ailment or describe_now())
        await asyncio.sleep(period_s)


class Reload:
    """SIGHUP: what may change while the node runs is read again; the rest is named."""

    def __init__(self, config: Config, read: Callable[[], Config], notifier: Notifier, clock: Clock) -> None:
        self._config, self._read = config, read
        self._notifier, self._clock = notifier, clock

    def run(self, apply: Callable[[NodeOptions], None], options_of: Callable[[Config], NodeOptions]) -> None:
        """Idempotent. A configuration that is refused leaves everything as it is."""
        self._notifier.reloading(monotonic_us=self._clock.monotonic_ns() // 1_000)
        try:
            fresh = self._read()
        except ConfigurationError as error:
            log.error("the configuration was not reloaded, the old one stays: %s", error)
            self._notifier.ready(f"reload refused, the old configuration stays: {error}")
            return
        set_log_level(fresh.log.level)
        apply(options_of(fresh))
        if ignored := needing_restart(self._config, fresh):
            log.warning("a restart is needed for what changed in: %s", ", ".join(ignored))
        log.info("reloaded level=%s size_max=%d", fresh.log.level, fresh.storage.size_max_bytes)
        self._notifier.ready("reloaded")


def needing_restart(running: Config, fresh: Config) -> list[str]:
    """What differs beyond log level and quotas, by name."""
    sections = ("node", "cluster", "client", "peer", "web", "security")
    changed = [f"[{name}]" for name in sections if getattr(running, name) != getattr(fresh, name)]
    return [*changed, "storage.data"] if running.data != fresh.data else changed
