"""Between the peer links of floor 5 and the core: nothing but names, a log line and the guard against bugs."""

from __future__ import annotations

import logging
from collections.abc import Callable

from appliance.model import MemberId
from appliance.node.core import NodeCore
from appliance.node.runtime import Node
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)

OBSERVING = frozenset({"observe", "observation"})

OnObserving = Callable[[MemberId, peer_pb2.Frame], None]


class CoreLinks:
    """What PeerLinks calls. Loop thread."""

    def __init__(self, core: NodeCore, node: Node) -> None:
        self._core, self._node = core, node
        self.on_observing: OnObserving = lambda *_: None
        """Takes the frames that are for a dashboard and no business of the core."""

    def hello(self, to_member: MemberId) -> peer_pb2.Frame:
        return self._core.hello(to_member)

    def check_hello(self, frame: peer_pb2.Frame) -> peer_pb2.Refusal | None:
        refusal = self._core.check_hello(frame)
        if refusal is not None:
            log.warning("refused peer=%s reason=%s", frame.hello.name, refusal.message)
        return refusal

    def on_frame(self, member_id: MemberId, frame: peer_pb2.Frame) -> None:
        if frame.WhichOneof("kind") in OBSERVING:
            self.on_observing(member_id, frame)
        else:
            self._node.guarded(lambda: self._core.on_frame(member_id, frame))

    def on_up(self, member_id: MemberId) -> None:
        self._node.guarded(lambda: self._core.on_up(member_id))

    def on_down(self, member_id: MemberId, reason: str) -> None:
        self._node.guarded(lambda: self._core.on_down(member_id))

    def on_refused(self, member_id: MemberId, refusal: peer_pb2.Refusal) -> None:
        if not self._core.quarantine_reason:
            log.error(
                "peer=%s refused this node: %s", self._core.contacts.name_of(member_id), refusal.message
            )
        self._core.on_refused(refusal)
