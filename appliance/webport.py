"""The web port of a node, put together: what the dashboard reads of the node, its peers and its machine.

Called by app.py; loop thread.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from appliance.clock import system_clock
from appliance.config import Config
from appliance.consensus import EventLog
from appliance.host.resources import Resources, read_resources
from appliance.model import MemberId
from appliance.node.core import NodeCore
from appliance.node.observing import Observing
from appliance.node.runtime import Node
from appliance.node.standby import StandbyNode
from appliance.peers.links import PeerLinks
from appliance.web.app import make_app
from appliance.web.port import Access, Facts, OpenAccess, describe
from appliance.web.server import WebServer
from raftberry.internal.v1 import peer_pb2


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What others know: the machine, the client port."""

    config: Config
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def resources(self) -> Resources:
        return read_resources(self.config.data)

    def request_counts(self) -> Mapping[tuple[str, str], int]:
        return self.counts

    def certificates(self) -> Mapping[str, float]:
        return {}


class _CoreLinks:
    """Observations go on the lane of the snapshots: no heartbeat queues behind them."""

    def __init__(self, core: NodeCore, links: PeerLinks) -> None:
        self._core, self._links = core, links

    def send(self, member: MemberId, frame: peer_pb2.Frame) -> bool:
        return not self._core.quarantine_reason and self._links.send(member, frame, bulk=True)

    def frame(self) -> peer_pb2.Frame:
        core = self._core
        return peer_pb2.Frame(
            from_member=core.me.member_id,
            boot_count=core.boot_count,
            term=core.log.term,
            high_index=core.log.high_index,
        )

    def peers(self) -> Mapping[MemberId, str]:
        me = self._core.me.member_id
        return {
            member.member_id: member.name for member in self._core.members.values() if member.member_id != me
        }


def make_observing(core: NodeCore, node: Node, links: PeerLinks, facts: Facts) -> Observing:
    """What PeerLinks brings of Observe and Observation goes to its on_frame."""
    return Observing(
        node.name, lambda: describe(node.status(), facts), core.events, system_clock, _CoreLinks(core, links)
    )


@asynccontextmanager
async def open_web(
    config: Config,
    node: Node | StandbyNode,
    facts: Facts,
    observing: Observing | None = None,
    access: Access | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    """Serve the web port while the body runs. ConfigurationError if the port cannot be had.

    observing None: the node stands by and has no peers. access None: there are no tokens.
    """
    observing = observing or Observing(
        node.name, lambda: describe(node.status(), facts), EventLog(system_clock.wall_ns), system_clock
    )
    app = make_app(
        node, observing, facts, access or OpenAccess(), is_any_host_allowed=config.security.insecure
    )
    server = WebServer(app, config.web.address, tls=tls)
    await server.start()
    try:
        yield
    finally:
        observing.close()
        await server.stop()
