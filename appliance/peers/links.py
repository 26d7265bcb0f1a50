"""The links to all peers: one live and one bulk stream each way, and when a link counts as up.

Invariant: a link is up exactly while our live stream to the peer and its live stream to us are both
accepted; frames leave and are delivered only then. A newer stream of the same member and lane replaces
the older, whose remaining frames are dropped. It knows nothing of Raft.
Everything runs on the loop. After `stop` has begun, no event is delivered.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from functools import partial

import grpc

from appliance.model import ClusterId, MemberId, hex_id
from appliance.peers.credentials import NotWhoItClaims
from appliance.peers.events import LinkEvents
from appliance.peers.inbound import InboundLane, read_hello
from appliance.peers.lanes import Incoming
from appliance.peers.outbound import LaneEvents, OutboundLane
from appliance.peers.server import PeerServer
from appliance.peers.strangers import Remarks
from appliance.peers.wire import BadFrame, Lane, PeerAddress, tell_node
from appliance.rpc import CallOver
from raftberry.internal.v1 import peer_pb2

log = logging.getLogger(__name__)


class PeerLinks:
    """All links of this node."""

    def __init__(
        self,
        server: PeerServer,
        peers: Sequence[PeerAddress],
        events: LinkEvents,
        *,
        rng: random.Random,
    ) -> None:
        self._server = server
        self._events = events
        self._rng = rng
        self._links: dict[MemberId, _Link] = {}
        self._initial_peers = tuple(peers)
        self._ending: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._remarks = Remarks(time.monotonic)

    async def start(self) -> None:
        """Dial every peer and serve the streams they dial; the server is started by its owner."""
        self._server.route_exchange(self._exchange)
        self.set_peers(self._initial_peers)

    async def stop(self) -> None:
        """End every stream; the server stays, for its owner to stop."""
        self._is_stopped = True
        self._server.route_exchange(None)
        tasks = set(self._ending)
        for link in self._links.values():
            tasks |= link.close("this node stops", announce=False)
        self._links.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def set_peers(self, peers: Sequence[PeerAddress]) -> None:
        """Links to exactly these peers; one whose address changed is dialled anew."""
        wanted = {peer.member_id: peer for peer in peers}
        for member_id, link in list(self._links.items()):
            if wanted.get(member_id) != link.peer:
                del self._links[member_id]
                for task in link.close("the peer's address changed or it left", announce=True):
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
        for peer in peers:
            if peer.member_id not in self._links:
                self._links[peer.member_id] = _Link(peer, self._server, self._events, self._rng)

    def send(self, member_id: MemberId, frame: peer_pb2.Frame, *, bulk: bool = False) -> bool:
        """Queue a frame. False: the link is not up, or the lane is full. Never blocks, never raises."""
        link = self._links.get(member_id)
        if link is None or not link.up.is_set():
            return False
        return link.outbound[Lane.BULK if bulk else Lane.LIVE].send(frame.SerializeToString())

    def pending_bytes(self, member_id: MemberId, *, bulk: bool = False) -> int:
        """Bytes of frames sent that the peer has not reported as taken, exact to 64 KiB; 0 when not up."""
        link = self._links.get(member_id)
        return link.outbound[Lane.BULK if bulk else Lane.LIVE].pending_bytes if link else 0

    def is_up(self, member_id: MemberId) -> bool:
        """Whether on_up was the last word about this peer."""
        link = self._links.get(member_id)
        return link is not None and link.up.is_set()

    async def _exchange(self, stream: Incoming) -> None:
        """Serve one stream a peer dialled, to its end."""
        status, reason = grpc.StatusCode.ABORTED, "the peer closed the connection"
        inbound: InboundLane | None = None
        try:
            hello = await read_hello(stream, timeout_s=self._server.options.hello_timeout_s)
            if self._server.credentials is not None:
                cluster_id = ClusterId(hello.hello.cluster_id)
                self._server.credentials.check(stream.auth_context(), MemberId(hello.from_member), cluster_id)
            credit_bytes = self._server.options.credit_bytes
            inbound = InboundLane(stream, hello, credit_bytes=credit_bytes)
            reason = await self._serve(inbound, hello)
        except BadFrame as error:
            status, reason = grpc.StatusCode.INVALID_ARGUMENT, f"bad frame: {error}"
            name, host = inbound.name if inbound else stream.peer(), stream.peer().rpartition(":")[0]
            if self._remarks.is_new(host, str(error)):
                log.warning("ended a stream that carried no frame of ours: peer=%s reason=%s", name, error)
        except NotWhoItClaims as error:
            status, reason = grpc.StatusCode.UNAUTHENTICATED, f"refused: {error}"
            log.warning("refused a stranger: peer=%s reason=%s", stream.peer(), error)
        except CallOver:
            reason = "the peer left before it was answered"
        except Exception as error:
            status, reason = grpc.StatusCode.INTERNAL, f"{type(error).__name__} while serving the stream"
            log.exception("ended a stream: peer=%s", inbound.name if inbound else stream.peer())
        finally:
            link = self._links.get(inbound.member_id) if inbound else None
            if inbound is not None and link is not None:
                link.detach(inbound, reason)
        await stream.end(status, reason)

    async def _serve(self, inbound: InboundLane, hello: peer_pb2.Frame) -> str:
        """From the verdict to the end of the stream; the reason if it is us who end it."""
        member_id = inbound.member_id
        if self._is_stopped:
            return "this node stops"
        # The node may learn of a new member from its hello, or of another address, and set the peers anew.
        refusal = tell_node(self._events.check_hello, hello)
        link = self._links.get(member_id)
        if link is None and refusal is None:
            refusal = _not_a_member(inbound)
        if link is None or refusal is not None:
            log.warning(
                "refused a peer: peer=%s member=%s lane=%s reason=%s",
                inbound.name,
                hex_id(member_id),
                inbound.lane.value,
                refusal.message if refusal else "",
            )
            await inbound.answer(refusal)
            return ""
        link.claim(inbound)
        await inbound.answer(None)
        link.attach(inbound)
        return await inbound.receive(link.up, partial(tell_node, self._events.on_frame, member_id))


class _Link:
    """Both directions of the two lanes with one peer."""

    def __init__(self, peer: PeerAddress, server: PeerServer, events: LinkEvents, rng: random.Random) -> None:
        self.peer = peer
        self.up = asyncio.Event()
        self._events = events
        self._is_closed = False
        self._claimed: dict[Lane, InboundLane] = {}
        self._is_attached = False
        self.outbound: dict[Lane, OutboundLane] = {}
        gate: asyncio.Event | None = None
        for lane in (Lane.LIVE, Lane.BULK):
            lane_events = LaneEvents(
                hello=partial(tell_node, events.hello, peer.member_id),
                on_connected=self._update if lane is Lane.LIVE else _ignore,
                on_down=self._lost if lane is Lane.LIVE else _ignore,
                on_refused=self._refused if lane is Lane.LIVE else _ignore,
            )
            self.outbound[lane] = OutboundLane(
                peer,
                lane,
                lane_events,
                options=server.options,
                credentials=server.credentials,
                rng=rng,
                gate=gate,
            )
            # A peer that does not answer is dialled for its live lane only.
            gate = self.outbound[lane].connected
        self._tasks = {asyncio.create_task(lane.run()) for lane in self.outbound.values()}

    def claim(self, inbound: InboundLane) -> None:
        """From now on this is the newest stream of its lane: an older one ends here.

        A peer dials for its bulk lane when its live lane is there: an older one of those is of its life before.
        """
        for lane in (inbound.lane, *((Lane.BULK,) if inbound.lane is Lane.LIVE else ())):
            older = self._claimed.get(lane)
            if older is not None:
                self.detach(older, "replaced by a newer stream of the peer")
        self._claimed[inbound.lane] = inbound

    def attach(self, inbound: InboundLane) -> None:
        """The peer was told that it is welcome."""
        if self._claimed.get(inbound.lane) is inbound and inbound.lane is Lane.LIVE:
            self._is_attached = True
            self.outbound[Lane.LIVE].dial_now()
            self._update()

    def detach(self, inbound: InboundLane, reason: str) -> None:
        """The stream is at its end, or a newer one took its place; idempotent."""
        if self._claimed.get(inbound.lane) is not inbound:
            return
        del self._claimed[inbound.lane]
        inbound.end(reason)
        if inbound.lane is Lane.LIVE:
            self._is_attached = False
            self._lost(reason)

    def close(self, reason: str, *, announce: bool) -> set[asyncio.Task[None]]:
        """End everything; the tasks that are on their way to their end."""
        if announce:
            self._lost(reason)
        self._is_closed = True
        self.up.clear()
        for inbound in list(self._claimed.values()):
            self.detach(inbound, reason)
        for lane in self.outbound.values():
            lane.stop()
        for task in self._tasks:
            task.cancel()
        return self._tasks

    def _update(self) -> None:
        is_dialled = self.outbound[Lane.LIVE].connected.is_set()
        if is_dialled and self._is_attached and not self.up.is_set() and not self._is_closed:
            self.up.set()
            log.info("link up: peer=%s", self.peer.name)
            tell_node(self._events.on_up, self.peer.member_id)

    def _lost(self, reason: str) -> None:
        if self.up.is_set() and not self._is_closed:
            self.up.clear()
            log.warning("link down: peer=%s reason=%s", self.peer.name, reason)
            tell_node(self._events.on_down, self.peer.member_id, reason)

    def _refused(self, refusal: peer_pb2.Refusal) -> None:
        if not self._is_closed:
            tell_node(self._events.on_refused, self.peer.member_id, refusal)


def _ignore(*_arguments: object) -> None:
    """The bulk lane's events: the link is what the live lane says."""


def _not_a_member(inbound: InboundLane) -> peer_pb2.Refusal:
    return peer_pb2.Refusal(
        reason=peer_pb2.Refusal.REASON_NOT_A_MEMBER,
        message=f"{inbound.name} with member id {hex_id(inbound.member_id)} is not a member of this cluster",
    )
