"""A node from its parts: what `raftberry serve` runs, told from start to stop.

1. The data directory is opened and locked, or refused.
2. The peer port opens; founders find each other, once in the life of a cluster.
3. Journal and store are recovered; a node that finds damage serves nothing but its status.
4. The web and the client port open, systemd hears READY=1, and peers are dialled.
5. On SIGTERM leadership is handed over, a checkpoint is written, the ports are closed.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from appliance import __version__
from appliance.api.server import ClientServer
from appliance.clock import system_clock, system_random
from appliance.config import Config
from appliance.consensus import ConsensusEvent, ConsensusOptions
from appliance.errors import CorruptData, DataDirectoryRefused, RaftberryError
from appliance.host.journal import configure_logging
from appliance.host.machine import machine_id
from appliance.host.notify import Notifier
from appliance.host.notify import from_environment as notifier_from_environment
from appliance.host.patience import more_time
from appliance.model import Member, Role, hex_id
from appliance.node.access import Access
from appliance.node.core import NodeCore
from appliance.node.failpoints import Failpoints
from appliance.node.identity import Self
from appliance.node.links import CoreLinks
from appliance.node.options import NodeOptions
from appliance.node.runtime import Node
from appliance.node.standby import StandbyNode
from appliance.node.status import NodeStatus
from appliance.node.workers import ThreadWorkers
from appliance.peers.founding import Founder, Founding, FoundingDesk
from appliance.peers.founding_exchange import found_cluster
from appliance.peers.links import PeerLinks
from appliance.peers.server import PeerServer
from appliance.peers.wire import PeerAddress
from appliance.service import Reload, ailment_of, beating, describe
from appliance.state import StateOptions
from appliance.storage.directory import DataDirectory
from appliance.storage.lmdb_store import LmdbStore
from appliance.storage.store import Store
from appliance.webport import NodeFacts, make_observing, open_web

log = logging.getLogger(__name__)

GIL_SWITCH_INTERVAL_S = 0.000_5
"""The committer must not wait 5 ms, Python's default, for a busy loop: every acknowledgement waits with it."""

STOP_BOUND_NS = 5_000_000_000
"""Handing leadership over takes two round trips; a cluster without a majority must not hold the stop longer."""

_LOGGED_KINDS = frozenset(
    {
        "became_leader", "became_follower", "became_candidate", "started_pre_vote", "won_pre_vote", "granted_vote",
        "requested_vote", "adopted_term", "truncated", "installed", "stepped_down", "asked_to_take_over",
        "quarantined", "connected", "disconnected", "checkpointed", "trimmed",
    }
)  # fmt: skip


@dataclass(slots=True)
class Serving:
    """What runs between start and stop."""

    config: Config
    directory: DataDirectory
    desk: FoundingDesk
    peer_server: PeerServer
    rng: random.Random
    notifier: Notifier
    stopped: asyncio.Event
    read_again: Callable[[], Config]


async def serve(
    config: Config, *, failpoint: str = "", read_again: Callable[[], Config] | None = None
) -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit status. read_again: for SIGHUP.

    Raises DataDirectoryRefused, ConfigurationError before anything is served.
    """
    configure_logging(config.log.level)
    # What the watchdog's SIGABRT interrupted shows in the journal, for every thread.
    faulthandler.enable()
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    rng = system_random()
    failpoints = Failpoints(failpoint, rng) if failpoint else None
    founders = sorted(config.founders)
    directory = DataDirectory.open(
        config.data,
        name=config.node.name,
        machine_id=machine_id(),
        founders=founders,
        draw_member_id=lambda: rng.getrandbits(64) or 1,
    )
    with directory:
        desk = FoundingDesk(config.node.name, directory.identity.member_id, founders)
        serving = Serving(
            config,
            directory,
            desk,
            PeerServer(config.peer.address, desk.answer),
            rng,
            notifier_from_environment(),
            asyncio.Event(),
            read_again or (lambda: config),
        )
        _prepare_loop(serving.stopped)
        await serving.peer_server.start()
        try:
            await _run(serving, failpoints)
        finally:
            await serving.peer_server.stop()
    return 0


async def _run(serving: Serving, failpoints: Failpoints | None) -> None:
    if serving.directory.removed_reason:
        await _stand_by(serving, Role.REMOVED, _removed(serving, serving.directory.removed_reason))
        return
    try:
        if not await _join_cluster(serving):
            return
        with more_time(serving.notifier, "recovering journal and store"):
            parts = _assemble(serving, failpoints)
    except (CorruptData, DataDirectoryRefused) as error:
        log.critical("quarantined: %s", error)
        await _stand_by(serving, Role.QUARANTINED, f"quarantined: {error}")
        return
    await _serve_node(serving, parts)


def _removed(serving: Serving, reason: str) -> str:
    text = f"{reason} in {serving.directory.path}; to use this machine again, give it a new data directory and join"
    log.critical("%s", text)
    return text


async def _join_cluster(serving: Serving) -> bool:
    """The founding exchange, unless this directory already belongs to a cluster. False: stopped meanwhile."""
    directory, config = serving.directory, serving.config
    identity = directory.identity
    if identity.cluster_id == 0:
        founding = await _found(serving, Founder(config.node.name, identity.member_id, config.founders))
        if founding is None:
            return False
        directory.set_cluster(founding.cluster_id, founding.members, founding.version)
        log.info("founded cluster=%s members=%d", hex_id(founding.cluster_id), len(founding.members))
    identity = directory.identity
    serving.desk.joined(identity.cluster_id, identity.members, identity.members_version)
    return True


async def _found(serving: Serving, own: Founder) -> Founding | None:
    """Wait for the other founders, answering for the status meanwhile. None: stopped."""
    exchange = asyncio.create_task(found_cluster(own, serving.desk, rng=serving.rng))
    if len(own.addresses) == 1:
        return await exchange
    waiting = "waiting for the other founders: no cluster exists yet"
    standby = asyncio.create_task(_stand_by(serving, Role.FOUNDING, waiting))
    await asyncio.wait({exchange, standby}, return_when=asyncio.FIRST_COMPLETED)
    is_stopped = standby.done() and not exchange.done()
    for task in (exchange, standby):
        task.cancel()
    await asyncio.wait({exchange, standby})
    if is_stopped:
        standby.result()
        return None
    return exchange.result()


async def _stand_by(serving: Serving, role: Role, reason: str) -> None:
    """Answer for the status, refuse all else, until stopped."""
    identity = serving.directory.identity
    node = StandbyNode(
        NodeStatus(
            name=serving.config.node.name,
            role=role,
            alarms=(reason,),
            member_id=hex_id(identity.member_id),
            cluster_id=hex_id(identity.cluster_id) if identity.cluster_id else "",
            version=__version__,
        )
    )
    client = ClientServer(node, serving.config.client.address)
    try:
        async with open_web(serving.config, node, NodeFacts(serving.config, client.tally)):
            await client.start()
            serving.notifier.ready(reason)
            with beating(serving.notifier, lambda: reason):
                await serving.stopped.wait()
    finally:
        await client.stop(grace=0)


@dataclass(slots=True)
class _Parts:
    """A node and its links, which know each other."""

    core: NodeCore
    node: Node
    links: PeerLinks
    upcalls: CoreLinks


def _assemble(serving: Serving, failpoints: Failpoints | None) -> _Parts:
    """Recover the data directory and put the node together. Raises CorruptData."""
    config, directory = serving.config, serving.directory
    identity = directory.identity
    parts: _Parts
    workers = ThreadWorkers(asyncio.get_running_loop(), _end_process, failpoints)
    addresses = config.founders
    core = NodeCore(
        Self(
            member_id=identity.member_id,
            name=identity.name,
            cluster_id=identity.cluster_id,
            members=_with_addresses(identity.members, addresses),
            boot_nonce=serving.rng.getrandbits(63) + 1,
            version=__version__,
            members_version=identity.members_version,
            peer_address=config.advertised_peer_address,
        ),
        directory.journal,
        directory.store,
        workers=workers,
        send=lambda member, frame, is_bulk: parts.links.send(member, frame, bulk=is_bulk),
        wake=lambda: parts.node.wake(),  # noqa: PLW0108 - there is no node yet
        clock=system_clock,
        rng=serving.rng,
        options=_node_options(config),
        consensus_options=_consensus_options(config),
        state_options=StateOptions(),
    )
    node = Node(core, workers, _end_process)
    peers = _addresses_of(core.contacts.peers.values())
    upcalls = CoreLinks(core, node)
    parts = _Parts(core, node, PeerLinks(serving.peer_server, peers, upcalls, rng=serving.rng), upcalls)
    core.events.listeners.append(_event_logger(core))

    def replaced(store: Store) -> None:
        assert isinstance(store, LmdbStore)
        directory.replace_store(store)

    core.on_store_replaced, core.on_quarantined = replaced, directory.quarantine
    core.on_removed = directory.mark_removed
    core.contacts.on_peers_changed = lambda members: parts.links.set_peers(_addresses_of(members))
    core.contacts.on_members_heard = partial(_remember_members, serving, workers)
    return parts


def _addresses_of(members: Iterable[Member]) -> list[PeerAddress]:
    return [PeerAddress(member.member_id, member.name, member.peer_address) for member in members]


def _remember_members(
    serving: Serving, workers: ThreadWorkers, members: Sequence[Member], version: int
) -> None:
    """For those who ask whether there is a cluster, and for the next start: whom to dial."""
    directory = serving.directory
    serving.desk.joined(directory.identity.cluster_id, members, version)
    workers.write("identity", lambda: directory.remember_members(members, version), lambda _: None)


async def _serve_node(serving: Serving, parts: _Parts) -> None:
    access = Access(
        lambda: parts.core.state.access,
        system_clock,
        is_token_required=serving.config.security.require_tokens,
    )
    client = ClientServer(parts.node, serving.config.client.address, access=access)
    facts = NodeFacts(serving.config, client.tally)
    observing = make_observing(parts.core, parts.node, parts.links, facts)
    parts.upcalls.on_observing = observing.on_frame
    async with open_web(serving.config, parts.node, facts, observing, access):
        await client.start()
        await _run_until_stopped(serving, parts)
    await client.stop(grace=1.0)
    await parts.links.stop()
    await parts.node.close()


async def _run_until_stopped(serving: Serving, parts: _Parts) -> None:
    parts.node.start()
    await parts.links.start()
    log.info(
        "serving name=%s client=%s peer=%s web=%s member=%s boot=%d",
        serving.config.node.name,
        serving.config.client.address,
        serving.config.peer.address,
        serving.config.web.address,
        hex_id(parts.core.me.member_id),
        parts.core.boot_count,
    )
    serving.notifier.ready("serving")
    _reload_on_hangup(serving, parts.core)
    with beating(
        serving.notifier, lambda: describe(parts.node.status()), lambda: ailment_of(parts.node, system_clock)
    ):
        await serving.stopped.wait()
    serving.notifier.stopping("handing over")
    log.info("stopping name=%s", serving.config.node.name)
    with more_time(serving.notifier, "writing a checkpoint"):
        await parts.node.stop(deadline_ns=system_clock.monotonic_ns() + STOP_BOUND_NS)


def _reload_on_hangup(serving: Serving, core: NodeCore) -> None:
    """Under systemd SIGHUP is `systemctl reload`; elsewhere it is a terminal that closes, and ends the node."""
    if not serving.notifier.is_active:
        return
    reload = Reload(serving.config, serving.read_again, serving.notifier, system_clock)

    def apply(options: NodeOptions) -> None:
        core.options = options

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: reload.run(apply, _node_options))


def _node_options(config: Config) -> NodeOptions:
    return NodeOptions(
        journal_bytes_max=config.journal.size_max_bytes,
        watch_keep_bytes=config.watch.keep_bytes,
        checkpoint_bytes_min=config.storage.checkpoint_bytes,
        store_bytes_max=config.storage.size_max_bytes,
    )


def _consensus_options(config: Config) -> ConsensusOptions:
    return ConsensusOptions(
        heartbeat_ns=config.cluster.heartbeat_ns,
        election_timeout_min_ns=config.cluster.election_timeout_min_ns,
        election_timeout_max_ns=config.cluster.election_timeout_max_ns,
    )


def _with_addresses(members: tuple[Member, ...], addresses: dict[str, str]) -> tuple[Member, ...]:
    """The configuration of this start says where the founders are now."""
    return tuple(
        replace(member, peer_address=addresses.get(member.name, member.peer_address)) for member in members
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


def _prepare_loop(stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_loop_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)


def _on_loop_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What nobody waited for: the refusal of a write whose caller has gone is nothing; the rest is logged."""
    error = context.get("exception")
    if not isinstance(error, RaftberryError):
        log.error("event loop: %s: %r", context.get("message"), error)


def _end_process(error: BaseException) -> None:
    """A failed commit or a bug: nothing more may be said or acknowledged (section 3 of the design)."""
    log.critical("this node ends now: %s", error, exc_info=not isinstance(error, RaftberryError))
    logging.shutdown()
    os._exit(1)
