"""What a checker is told, and when."""

from __future__ import annotations

from appliance.model import MemberId
from appliance.state import Applied
from raftberry.internal.v1 import peer_pb2
from tests.simulation.node import Process


class Checker:
    """Overridden where there is something to look at."""

    def started(self, process: Process) -> None:
        """The process has recovered what its disk held."""

    def stepped(self, process: Process) -> None:
        """Something was done on the process's loop."""

    def sending(self, process: Process, member: MemberId, frame: peer_pb2.Frame) -> None:
        """The frame is about to leave."""

    def applied(self, process: Process, applied: Applied) -> None:
        """An entry was applied."""
