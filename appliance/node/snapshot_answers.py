"""A follower's answers to the chunks of a snapshot, on their way out.

Invariant: `installed` is a promise: it waits until the log's reset, or the entries that made the snapshot needless, are
durable. All else leaves at once. Loop thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from appliance.consensus import LogImage
from appliance.model import MemberId
from raftberry.internal.v1 import peer_pb2

SendFrame = Callable[[MemberId, Callable[[peer_pb2.Frame], None]], bool]


class SnapshotAnswers:
    def __init__(self, log: LogImage, send_frame: SendFrame) -> None:
        self._log, self._send_frame = log, send_frame
        self._waiting: deque[tuple[int, MemberId, peer_pb2.SnapshotReply]] = deque()

    def send(self, member: MemberId, reply: peer_pb2.SnapshotReply) -> None:
        if reply.installed:
            self._waiting.append((self._log.promise_sequence, member, reply))
        else:
            self._send(member, reply)

    def release(self) -> None:
        """What the log said when they were given is durable."""
        while self._waiting and self._waiting[0][0] <= self._log.durable_sequence:
            _, member, reply = self._waiting.popleft()
            self._send(member, reply)

    def _send(self, member: MemberId, reply: peer_pb2.SnapshotReply) -> None:
        self._send_frame(member, lambda frame: frame.snapshot_reply.CopyFrom(reply))
