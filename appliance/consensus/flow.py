"""How much of the log is on its way to each follower (H15): bounded, so that no queue grows without one.

Invariant: bytes sent and not yet acknowledged stay below the bound plus one slice of the log. A follower at the
bound is hidden from PySyncObj (which skips peers that are not connected) until it has acknowledged enough; nobody
stays hidden for ever: what the lane did not take, or nobody answered for PATIENCE_NS, is sent again, and not what
follows it: a follower whose card stands still holds no more than the bound in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

from appliance.consensus.core import Core
from appliance.limits import PEER_IN_FLIGHT_BYTES_MAX
from appliance.model import MemberId

PATIENCE_NS = 2_000_000_000
"""An answer may be lost without the connection (a full lane), and a snapshot's target answers with rejections only."""


@dataclass(slots=True)
class _Window:
    sent: deque[tuple[int, int]] = field(default_factory=deque)
    bytes: int = 0
    is_paused: bool = False
    is_refused: bool = False
    moved_ns: int = 0


class Flow:
    def __init__(self, core: Core, now_ns: Callable[[], int]) -> None:
        self._core, self._now_ns = core, now_ns
        self._windows: dict[MemberId, _Window] = {}

    def set_members(self, members: Iterable[MemberId]) -> None:
        """Those who may be sent the log. Whoever leaves is not left hidden: it may come back over the same link."""
        members = tuple(members)
        for member in self.paused():
            if member not in members:
                self._core.connect(member)
        self._windows = {member: self._windows.get(member, _Window()) for member in members}

    def sent(self, member: MemberId, last_index: int, size: int) -> None:
        window = self._windows[member]
        if not window.sent:
            window.moved_ns = self._now_ns()
        window.sent.append((last_index, size))
        window.bytes += size
        if window.bytes >= PEER_IN_FLIGHT_BYTES_MAX:
            self._pause(member)

    def refused(self, member: MemberId, next_index: int) -> None:
        """The lane is full: entries from next_index on were not sent. Hidden, PySyncObj does not try in a loop."""
        self._core.set_next_index(member, next_index)
        self._windows[member].is_refused = True
        self._pause(member)

    def retry(self, connected: Set[MemberId]) -> None:
        """Once in a heartbeat: show PySyncObj those for whom nothing else will."""
        for member in sorted(connected & self._windows.keys()):
            window = self._windows[member]
            if window.is_refused and window.bytes < PEER_IN_FLIGHT_BYTES_MAX:
                self._resume(member, window)
            elif window.is_paused and self._now_ns() - window.moved_ns >= PATIENCE_NS:
                self._core.set_next_index(member, self._core.match_index(member) + 1)
                self.forget(member, is_connected=True)

    def _pause(self, member: MemberId) -> None:
        window = self._windows[member]
        if not window.is_paused:
            window.is_paused = True
            self._core.disconnect(member)

    def _resume(self, member: MemberId, window: _Window) -> None:
        window.is_paused = window.is_refused = False
        self._core.connect(member)

    def acknowledged(self, member: MemberId, index: int) -> bool:
        """True if the follower may be sent more again."""
        window = self._windows[member]
        while window.sent and window.sent[0][0] <= index:
            window.bytes -= window.sent.popleft()[1]
            window.moved_ns = self._now_ns()
        if window.is_paused and window.bytes < PEER_IN_FLIGHT_BYTES_MAX // 2:
            self._resume(member, window)
            return True
        return False

    def forget(self, member: MemberId, *, is_connected: bool) -> None:
        """What was on its way is lost or refused."""
        window = self._windows.get(member)
        if window is None:
            return
        if window.is_paused and is_connected:
            self._core.connect(member)
        self._windows[member] = _Window()

    def reset(self, connected: Set[MemberId]) -> None:
        """Another role: nothing is on its way for it, and a peer left hidden could never be asked for its vote."""
        for member in self._windows:
            self.forget(member, is_connected=member in connected)

    def paused(self) -> list[MemberId]:
        return [member for member, window in self._windows.items() if window.is_paused]
