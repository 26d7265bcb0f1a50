"""Links between the nodes of a cluster that can be cut: each node is reached by the others through a relay.

Invariant: clients are not concerned; a cut link holds what it was given, like a cable that is out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.host.relay import Relay, holds_port


class Links:
    """Nodes are known by their position."""

    def __init__(self, peers: Sequence[str], pid_of: Callable[[int], int | None]) -> None:
        """peers: where nodes listen for each other. pid_of: the process of a position, None while there is none."""
        self._count = len(peers)
        self._pid_of = pid_of
        self._relay = Relay(self._find_dialler)
        self.addresses = [
            self._relay.listen(str(position), int(peer.rpartition(":")[2]))
            for position, peer in enumerate(peers)
        ]
        """Where the others look for each."""

    def cut(self, position: int) -> None:
        """From every other node."""
        self._relay.cut_off(str(position))

    def mend(self) -> None:
        self._relay.mend()

    def close(self) -> None:
        self._relay.close()

    def _find_dialler(self, port: int) -> str:
        pids = [(position, self._pid_of(position)) for position in range(self._count)]
        return next(
            (str(position) for position, pid in pids if pid is not None and holds_port(pid, port)), ""
        )
