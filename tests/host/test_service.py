"""What systemd hears of a running node: status line, watchdog, reload, more time."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace

import msgspec
import pytest

from appliance.config import Config
from appliance.errors import ConfigurationError
from appliance.host.notify import Notifier
from appliance.host.patience import EXTENSION_US, more_time
from appliance.model import Role
from appliance.node.options import NodeOptions as RunningOptions
from appliance.node.status import NodeStatus, PeerStatus
from appliance.sections import LogOptions, NodeOptions, StorageOptions
from appliance.service import (
    COMMIT_BOUND_NS,
    SECOND_NS,
    TICK_BOUND_NS,
    Reload,
    ailment_of,
    beating,
    describe,
    needing_restart,
)
from appliance.units import Size

NOW_NS = 1_000 * SECOND_NS


class StoppedClock:
    def monotonic_ns(self) -> int:
        return NOW_NS

    def wall_ns(self) -> int:
        return 0


CLOCK = StoppedClock()


@dataclass(slots=True)
class FakePulse:
    cycled_ns: int = NOW_NS
    busy_ns: int = 0

    def commit_busy_ns(self) -> int:
        return self.busy_ns


def peer(name: str) -> PeerStatus:
    return PeerStatus(name, "", 1, "", connected=True, match_index=0, heard_ms_ago=0, voter=True, refused="")


STATUS = NodeStatus(
    name="pi-1", leader="pi-1", role=Role.LEADER, term=4, applied_index=17, readings_per_second=1_203.4
)


def test_the_status_line_has_role_term_leader_and_rate() -> None:
    three = replace(STATUS, peers=(peer("pi-1"), peer("pi-2"), peer("pi-3")))
    assert describe(three) == "leader of 3, term 4, leader pi-1; 1,203 readings/s; index 17"
    follower = replace(three, role=Role.FOLLOWER, leader="pi-2")
    assert describe(follower) == "follower of pi-2, term 4, leader pi-2; 1,203 readings/s; index 17"
    assert "leader none" in describe(replace(follower, leader=""))


def test_the_status_line_is_one_line_with_the_alarms() -> None:
    alarmed = replace(STATUS, peers=(peer("pi-1"),), alarms=("cluster of one: no copy elsewhere", "a\nb"))
    assert describe(alarmed).endswith("index 17; cluster of one: no copy elsewhere; a b")


def test_an_idle_node_is_healthy() -> None:
    assert ailment_of(FakePulse(), CLOCK) == ""


@pytest.mark.parametrize(("waited_ns", "is_ill"), [(TICK_BOUND_NS, False), (TICK_BOUND_NS + 1, True)])
def test_consensus_without_a_turn_is_an_ailment(waited_ns: int, is_ill: bool) -> None:
    assert (
        "consensus has had no turn" in ailment_of(FakePulse(cycled_ns=NOW_NS - waited_ns), CLOCK)
    ) == is_ill


@pytest.mark.parametrize(("busy_ns", "is_ill"), [(COMMIT_BOUND_NS, False), (COMMIT_BOUND_NS + 1, True)])
def test_a_commit_that_hangs_is_an_ailment(busy_ns: int, is_ill: bool) -> None:
    assert ("a commit has been under way" in ailment_of(FakePulse(busy_ns=busy_ns), CLOCK)) == is_ill


async def beat_once(ailment: str) -> list[str]:
    sent: list[str] = []
    with beating(Notifier(sent.append), lambda: "leader", lambda: ailment):
        await asyncio.sleep(0)
    return sent


async def test_the_watchdog_is_fed_while_nothing_ails() -> None:
    assert await beat_once("") == ["WATCHDOG=1", "STATUS=leader"]


async def test_the_watchdog_is_not_fed_when_something_ails() -> None:
    assert await beat_once("the disk does not answer") == ["STATUS=the disk does not answer"]


def reload_with(fresh: Config | ConfigurationError) -> tuple[list[str], list[RunningOptions]]:
    sent: list[str] = []
    applied: list[RunningOptions] = []

    def read() -> Config:
        if isinstance(fresh, ConfigurationError):
            raise fresh
        return fresh

    reload = Reload(Config(), read, Notifier(sent.append), CLOCK)
    reload.run(applied.append, lambda config: RunningOptions(store_bytes_max=config.storage.size_max_bytes))
    return sent, applied


def test_a_reload_brings_the_new_quota_to_the_node() -> None:
    sent, applied = reload_with(Config(storage=StorageOptions(size_max_bytes=Size(1 << 30))))
    assert applied == [RunningOptions(store_bytes_max=1 << 30)]
    assert sent == [f"RELOADING=1\nMONOTONIC_USEC={NOW_NS // 1_000}", "READY=1\nSTATUS=reloaded"]


def test_a_wrong_configuration_changes_nothing_and_is_said() -> None:
    sent, applied = reload_with(ConfigurationError("raftberry.toml: unknown key"))
    assert applied == []
    assert sent[-1].startswith("READY=1\nSTATUS=reload refused, the old configuration stays: raftberry.toml")


def test_what_a_reload_cannot_change_is_named() -> None:
    fresh = msgspec.structs.replace(
        Config(),
        node=NodeOptions(name="other"),
        storage=StorageOptions(data="/srv"),
        log=LogOptions(level="debug"),
    )
    assert needing_restart(Config(), fresh) == ["[node]", "storage.data"]
    assert needing_restart(Config(), Config(log=LogOptions(level="debug"))) == []


def asked_for(worked: list[int]) -> list[str]:
    """What systemd hears while the body works as the list says, one figure a period."""
    sent: list[str] = []
    is_done = threading.Event()
    figures = iter(worked)

    def worked_ns() -> int:
        figure = next(figures, None)
        if figure is None:
            is_done.set()
            return worked[-1]
        return figure

    with more_time(Notifier(sent.append), "recovering", period_s=0.001, worked_ns=worked_ns):
        is_done.wait(10)
    return sent


def test_more_time_is_asked_for_while_the_process_works() -> None:
    notice = f"EXTEND_TIMEOUT_USEC={EXTENSION_US}\nSTATUS=recovering"
    assert asked_for([0, SECOND_NS, 2 * SECOND_NS]) == [notice, notice]


def test_a_process_that_hangs_gets_no_more_time() -> None:
    assert asked_for([0, 1, 2, 3]) == []
