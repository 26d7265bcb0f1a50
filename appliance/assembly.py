"""The parts of a node put together: data directory, core, node, links. Loop thread; called by app.py."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from appliance import __version__
from appliance.clock import system_clock
from appliance.config import Config
from appliance.consensus import ConsensusEvent, ConsensusOptions
from appliance.errors import RaftberryError
from appliance.host.memory import settle
from appliance.host.notify import Notifier
from appliance.model import Member
from appliance.node.core import NodeCore
from appliance.node.failpoints import Failpoints
from appliance.node.identity import Self
from appliance.node.links import CoreLinks
from appliance.node.options import NodeOptions
from appliance.node.runtime import Node
from appliance.node.workers import ThreadWorkers
from appliance.peers.founding import FoundingDesk
from appliance.peers.links import PeerLinks
from appliance.peers.server import PeerServer
from appliance.peers.wire import PeerAddress
from appliance.state import StateOptions
from appliance.storage.directory import DataDirectory
from appliance.storage.lmdb_store import LmdbStore
from appliance.storage.store import Store
from appliance.trust import Trust

log = logging.getLogger(__name__)

_LOGGED_KINDS = frozenset(
    {
        "became_leader", "became_follower", "became_candidate", "started_pre_vote", "won_pre_vote", "granted_vote",
        "requested_vote", "adopted_term", "truncated", "installed", "stepped_down", "asked_to_take_over",
        "quarantined", "connected", "disconnected", "checkpointed", "trimmed",
    }
)  # fmt: skip


@dataclass(slots=True)
class Serving:
    """What runs between start and stop. config: with its addresses settled; told: as it was read."""

    config: Config
    told: Config
    trust: Trust
    directory: DataDirectory
    desk: FoundingDesk
    peer_server: PeerServer
    rng: random.Random
    notifier: Notifier
    stopped: asyncio.Event
    read_again: Callable[[], Config]


@dataclass(slots=True)
class Parts:
    """A node and its links, which know each other."""

    core: NodeCore
    node: Node
    links: PeerLinks
    upcalls: CoreLinks


def assemble(serving: Serving, failpoints: Failpoints | None) -> Parts:
    """Recover the data directory and put the node together. Raises CorruptData."""
    config, directory = serving.config, serving.directory
    identity = directory.identity
    parts: Parts
    workers = ThreadWorkers(asyncio.get_running_loop(), _end_process, failpoints)
    core = NodeCore(
        Self(
            member_id=identity.member_id,
            name=identity.name,
            cluster_id=identity.cluster_id,
            members=identity.members,
            boot_nonce=serving.rng.getrandbits(63) + 1,
            version=__version__,
            members_version=identity.members_version,
            peer_address=config.advertised_peer_address,
            told=config.founders,
            superseded=identity.superseded,
            outlived=identity.outlived,
        ),
        directory.journal,
        directory.store,
        workers=workers,
        send=lambda member, frame, is_bulk: parts.links.send(member, frame, bulk=is_bulk),
        wake=lambda: parts.node.wake(),  # noqa: PLW0108 - there is no node yet
        clock=system_clock,
        rng=serving.rng,
        options=node_options(config),
        consensus_options=_consensus_options(config),
        state_options=StateOptions(),
    )
    node = Node(core, workers, _end_process)
    peers = addresses_of(core.contacts.peers.values())
    upcalls = CoreLinks(core, node)
    parts = Parts(core, node, PeerLinks(serving.peer_server, peers, upcalls, rng=serving.rng), upcalls)
    core.events.listeners.append(_event_logger(core))

    def replaced(store: Store) -> None:
        assert isinstance(store, LmdbStore)
        directory.replace_store(store)

    core.on_store_replaced, core.on_quarantined = replaced, directory.quarantine
    core.on_removed, core.superseding.on_outlived = directory.mark_removed, directory.outlive
    core.contacts.on_peers_changed = lambda members: parts.links.set_peers(addresses_of(members))
    core.contacts.on_members_heard = partial(_remember_members, serving, workers)
    settle()
    return parts


def addresses_of(members: Iterable[Member]) -> list[PeerAddress]:
    return [PeerAddress(member.member_id, member.name, member.peer_address) for member in members]


def _remember_members(
    serving: Serving, workers: ThreadWorkers, members: Sequence[Member], version: int
) -> None:
    """For those who ask whether there is a cluster, and for the next start: whom to dial."""
    directory = serving.directory
    serving.desk.joined(directory.identity.cluster_id, members, version)
    workers.write("identity", lambda: directory.remember_members(members, version), lambda _: None)


def node_options(config: Config) -> NodeOptions:
    return NodeOptions(
        journal_bytes_max=config.journal.size_max_bytes,
        watch_keep_bytes=config.watch.keep_bytes,
        checkpoint_bytes_min=config.storage.checkpoint_bytes,
        store_bytes_max=config.storage.size_max_bytes,
        when_full=config.storage.when_full,
        disk_free_bytes_min=config.storage.disk_free_min_bytes,
        write_budget_bytes=config.storage.write_budget_per_day_bytes,
        scrub_interval_ns=config.storage.scrub_interval_ns,
        scrub_bytes_per_second=config.storage.scrub_bytes_per_second,
    )


def _consensus_options(config: Config) -> ConsensusOptions:
    return ConsensusOptions(
        heartbeat_ns=config.cluster.heartbeat_ns,
        election_timeout_min_ns=config.cluster.election_timeout_min_ns,
        election_timeout_max_ns=config.cluster.election_timeout_max_ns,
    )


def _event_logger(core: NodeCore) -> Callable[[ConsensusEvent], None]:
    def log_event(event: ConsensusEvent) -> None:
        level = logging.INFO if event.kind in _LOGGED_KINDS else logging.DEBUG
        if log.isEnabledFor(level):
            peer = (
                "" if event.peer is None or event.peer not in core.members else core.members[event.peer].name
            )
            log.log(level, "%s%s", event, f" peer_name={peer}" if peer else "")

    return log_event


def _end_process(error: BaseException) -> None:
    """A failed commit or a bug: nothing more may be said or acknowledged (section 3 of the design)."""
    log.critical("this node ends now: %s", error, exc_info=not isinstance(error, RaftberryError))
    logging.shutdown()
    os._exit(1)
