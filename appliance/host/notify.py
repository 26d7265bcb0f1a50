"""Tells systemd how the service is (sd_notify(3)).

Invariant: never fails the caller. Without NOTIFY_SOCKET, or without the systemd bindings, `send` does nothing and
`reason` says why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

try:
    from systemd import daemon
except ImportError:
    # A development machine may lack libsystemd; the package for the Pi brings it.
    daemon = None

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"

Send = Callable[[str], object]


class Notifier:
    """One per process. A datagram to a local socket does not block; one call is one datagram, from any thread."""

    def __init__(self, send: Send | None, *, reason: str = "", watchdog_us: int = 0) -> None:
        self._send = send
        self.reason = reason
        self.watchdog_us = watchdog_us
        """Microseconds within which systemd wants to hear `alive`; 0: it does not watch."""

    @property
    def is_active(self) -> bool:
        return self._send is not None

    def ready(self, status: str) -> None:
        """The node serves; also ends `reloading`."""
        self._notify(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._notify(f"STATUS={text}")

    def alive(self) -> None:
        """For the watchdog; call it at least every watchdog_us / 2."""
        self._notify("WATCHDOG=1")

    def reloading(self, *, monotonic_us: int) -> None:
        """Configuration is being read again; `ready` ends it. The time is what Type=notify-reload asks for."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us}")

    def stopping(self, status: str) -> None:
        """The node has begun to stop."""
        self._notify(f"STOPPING=1\nSTATUS={status}")

    def extend(self, timeout_us: int, status: str) -> None:
        """Start or stop goes on and takes longer: systemd counts timeout_us from now."""
        self._notify(f"EXTEND_TIMEOUT_USEC={timeout_us}\nSTATUS={status}")

    def _notify(self, state: str) -> None:
        if self._send is None:
            return
        try:
            self._send(state)
        except OSError as error:
            # systemd restarting is no reason for a node to stop; the next notice may get through.
            self.reason = f"the last notice was not delivered: {error}"


def from_environment(environment: Mapping[str, str] = os.environ) -> Notifier:
    """The notifier for this process.

    WATCHDOG_PID is not looked at: it names the process that systemd started, which for the one-file executable is
    the unpacker above this one.
    """
    if not environment.get(SOCKET_VARIABLE):
        return Notifier(None, reason=f"{SOCKET_VARIABLE} is not set: not started by systemd")
    if daemon is None:
        return Notifier(None, reason="systemd-python is not installed")
    watchdog = environment.get(WATCHDOG_VARIABLE, "")
    return Notifier(daemon.notify, watchdog_us=int(watchdog) if watchdog.isdecimal() else 0)
