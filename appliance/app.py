"""A node from its parts: what `raftberry serve` runs, told from start to stop.

0. A join that was begun is finished first, also after a power cut (joining.py).
1. The data directory is opened and locked, or refused.
2. The peer port opens; founders find each other, once in the life of a cluster.
3. Journal and store are recovered; a node that finds damage serves nothing but its status.
4. The web and the client port open, systemd hears READY=1, and peers are dialled.
5. On SIGTERM leadership is handed over, a checkpoint is written, the ports are closed.
When the ports are to be others (invite, join) all of it is done again, in the same process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from appliance import __version__
from appliance.admission import Admission
from appliance.api import join, local
from appliance.api.credentials import Credentials, server_credentials
from appliance.api.server import UNIX_PREFIX, ClientServer
from appliance.assembly import Parts, Serving, addresses_of, assemble, node_options
from appliance.clock import system_clock, system_random
from appliance.config import Config
from appliance.errors import CorruptData, DataDirectoryRefused, InDoubt, RaftberryError, WrittenByNewer
from appliance.host.journal import configure_logging
from appliance.host.machine import machine_id
from appliance.host.memory import bound_memory
from appliance.host.notify import from_environment as notifier_from_environment
from appliance.host.patience import more_time
from appliance.joining import complete, read_intent
from appliance.life import Life
from appliance.model import Role, hex_id
from appliance.node.access import Access
from appliance.node.failpoints import Failpoints
from appliance.node.options import NodeOptions
from appliance.node.report import REUSE
from appliance.node.runtime import Node
from appliance.node.standby import StandbyNode
from appliance.node.status import NodeStatus
from appliance.node.tokens import NO_FINGERPRINT
from appliance.peers.founding import Founder, Founding, FoundingDesk, decide_founding
from appliance.peers.founding_exchange import found_cluster
from appliance.peers.server import PeerServer
from appliance.security.keyring import Keyring
from appliance.service import Reload, ailment_of, beating, describe
from appliance.storage.directory import DataDirectory
from appliance.trust import Trust, socket_path
from appliance.vitals import watching_disk
from appliance.webport import NodeFacts, make_observing, open_web

log = logging.getLogger(__name__)

GIL_SWITCH_INTERVAL_S = 0.000_5
"""The committer must not wait 5 ms, Python's default, for a busy loop: every acknowledgement waits with it."""

LOCAL_GRACE_S = 1.0
"""The answer to who asked for other ports goes out before they change."""

STOP_BOUND_NS = 5_000_000_000
"""Handing leadership over takes two round trips; a cluster without a majority must not hold the stop longer."""


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
    bound_memory()
    life = Life(config, system_random(), notifier_from_environment(), read_again or (lambda: config))
    failpoints = Failpoints(failpoint, life.rng) if failpoint else None
    _prepare_loop(life.end)
    while not life.is_ending:
        life.begin()
        if await _is_settled(life):
            try:
                await _one_life(life, failpoints)
            except InDoubt as error:
                # Not rebuilt by its peers: a cloned card would take the place of the node that it was cloned from.
                reason = f"quarantined: {error}; {REUSE}"
                log.critical("%s", reason)
                await _stand_by(life, life.config, _standby_status(life, Role.QUARANTINED, reason))
    return 0


async def _is_settled(life: Life) -> bool:
    """Finish a join that was begun, in this life or before a power cut. False: look again, or stop."""
    intent = read_intent(life.config.data)
    if intent is None:
        return True
    if intent.answer:
        complete(life.config, intent, machine_id())
        return True
    if intent.is_rebuild:
        reason = (
            "quarantined: this node is in doubt about its data, and asks its peers to rebuild it until they have a "
            "majority and do; nothing is given up before"
        )
        life.rebuild_refusal = await _waited(
            life, life.start_rebuilder(intent).run(), Role.QUARANTINED, reason
        )
    else:
        reason = f"joining the cluster of {intent.endpoint}; `raftberry join` shows how far it is"
        life.end_joiner(await _waited(life, life.start_joiner(intent).run(), Role.JOINING, reason))
    return False


async def _waited(life: Life, work: Coroutine[None, None, str], role: Role, reason: str) -> str:
    """What work ended with, answering for the status meanwhile; empty if the process was told to stop."""
    asking = asyncio.create_task(work)
    waiting = asyncio.create_task(_stand_by(life, life.config, _standby_status(life, role, reason)))
    await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in (asking, waiting):
        task.cancel()
    await asyncio.wait({asking, waiting})
    return "" if asking.cancelled() else asking.result()


async def _one_life(life: Life, failpoints: Failpoints | None) -> None:
    """From the data directory to the ports and back; until the process ends, or its ports are to be others."""
    keyring = Keyring(life.config.data)
    config = life.config.listening(keyring.advertised_host)
    founders = sorted(config.founders)
    directory = DataDirectory.open(
        config.data,
        name=config.node.name,
        machine_id=machine_id(),
        founders=founders,
        draw_member_id=lambda: life.rng.getrandbits(64) or 1,
    )
    with directory:
        _found_alone(config, directory, keyring)
        identity = directory.identity
        trust = Trust(config, keyring, identity)
        trust.prepare(identity.members)
        desk = FoundingDesk(config.node.name, identity.member_id, founders)
        serving = Serving(
            config,
            life.config,
            trust,
            directory,
            desk,
            PeerServer(config.peer.address, desk.answer, credentials=trust.peer_credentials),
            life.rng,
            life.notifier,
            life.stopped,
            life.read_again,
        )
        life.serving = serving
        await serving.peer_server.start()
        try:
            await _run(life, serving, failpoints)
        finally:
            life.serving = life.parts = None
            await serving.peer_server.stop()


def _found_alone(config: Config, directory: DataDirectory, keyring: Keyring) -> None:
    """A cluster of one asks nobody: it exists, and has its CA, before a port opens."""
    identity = directory.identity
    if identity.cluster_id == 0 and len(config.founders) == 1:
        founding = decide_founding(Founder(config.node.name, identity.member_id, config.founders), {})
        assert founding is not None
        if not config.security.insecure:
            keyring.found(founding.cluster_id)
        directory.set_cluster(founding.cluster_id, founding.members, founding.version)
        log.info("founded cluster=%s members=1", hex_id(founding.cluster_id))


async def _run(life: Life, serving: Serving, failpoints: Failpoints | None) -> None:
    if serving.directory.removed_reason:
        reason = _removed(serving, serving.directory.removed_reason)
        await _stand_by(life, serving.config, _standby_status(life, Role.REMOVED, reason))
        return
    try:
        if serving.directory.quarantine_reason:
            raise DataDirectoryRefused(serving.directory.quarantine_reason)
        if not await _join_cluster(life, serving):
            return
        with more_time(serving.notifier, "recovering journal and store"):
            parts = assemble(serving, failpoints)
    except (CorruptData, DataDirectoryRefused) as error:
        log.critical("quarantined: %s", error)
        reason = f"quarantined: {error}"
        if not isinstance(error, WrittenByNewer):
            life.rebuild_later(str(error))
            reason = f"{reason}; {life.remedy()}"
        status = _standby_status(life, Role.QUARANTINED, reason)
        await _stand_by(life, serving.config, status)
        return
    await _serve_node(life, serving, parts)


def _removed(serving: Serving, reason: str) -> str:
    text = f"{reason} in {serving.directory.path}; {REUSE}"
    log.critical("%s", text)
    return text


async def _join_cluster(life: Life, serving: Serving) -> bool:
    """The founding exchange, unless this directory already belongs to a cluster. False: stopped meanwhile."""
    directory, config = serving.directory, serving.config
    identity = directory.identity
    if identity.cluster_id == 0:
        founding = await _found(life, serving, Founder(config.node.name, identity.member_id, config.founders))
        if founding is None:
            return False
        directory.set_cluster(founding.cluster_id, founding.members, founding.version)
        log.info("founded cluster=%s members=%d", hex_id(founding.cluster_id), len(founding.members))
    identity = directory.identity
    serving.desk.joined(identity.cluster_id, identity.members, identity.members_version)
    return True


async def _found(life: Life, serving: Serving, own: Founder) -> Founding | None:
    """Wait for the other founders, answering for the status meanwhile. None: stopped."""
    exchange = asyncio.create_task(found_cluster(own, serving.desk, rng=serving.rng))
    status = _standby_status(life, Role.FOUNDING, "waiting for the other founders: no cluster exists yet")
    standby = asyncio.create_task(_stand_by(life, serving.config, status))
    await asyncio.wait({exchange, standby}, return_when=asyncio.FIRST_COMPLETED)
    is_stopped = standby.done() and not exchange.done()
    for task in (exchange, standby):
        task.cancel()
    await asyncio.wait({exchange, standby})
    if is_stopped:
        standby.result()
        return None
    return exchange.result()


def _standby_status(life: Life, role: Role, reason: str) -> NodeStatus:
    identity = life.serving.directory.identity if life.serving else None
    return NodeStatus(
        name=life.config.node.name,
        role=role,
        alarms=(reason,),
        member_id=hex_id(identity.member_id) if identity else "",
        cluster_id=hex_id(identity.cluster_id) if identity and identity.cluster_id else "",
        version=__version__,
    )


async def _stand_by(life: Life, config: Config, status: NodeStatus) -> None:
    """Answer for the status, refuse all else, until stopped."""
    node, reason = StandbyNode(status), "; ".join(status.alarms)
    trust = life.serving.trust if life.serving else None
    access = Access(
        lambda: node.state.access, system_clock, is_token_required=bool(trust and trust.is_token_required)
    )
    # A node that joins has given its ports up, and its next ones are not known yet: it answers on loopback.
    settled = config.listening("")
    client = ClientServer(node, settled.client.address, credentials=_client_credentials(trust), access=access)
    async with _local_socket(life, config, node):
        try:
            web = open_web(settled, node, NodeFacts(settled, client.tally), access=access)
            async with web:
                await client.start()
                life.notifier.ready(reason)
                with beating(life.notifier, lambda: reason):
                    await life.stopped.wait()
        finally:
            await client.stop(grace=0)


def _client_credentials(trust: Trust | None) -> Credentials | None:
    return server_credentials(lambda: trust.keyring.material) if trust and trust.is_secured else None


@asynccontextmanager
async def _local_socket(
    life: Life, config: Config, node: Node | StandbyNode, admission: Admission | None = None
) -> AsyncIterator[None]:
    """For root and the service's group, while the body runs."""
    path = socket_path(config)
    if path is None:
        yield
        return
    services = {local.SERVICE: local.LocalService(life).handlers()}
    if admission is not None:
        services[join.SERVICE] = join.JoinService(admission).handlers()
    fingerprint = life.serving.trust.fingerprint if life.serving else NO_FINGERPRINT
    server = ClientServer(
        node, f"{UNIX_PREFIX}{path}", fingerprint=fingerprint, inviter=admission, extras=services
    )
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace=LOCAL_GRACE_S)


async def _serve_node(life: Life, serving: Serving, parts: Parts) -> None:
    config, trust, core = serving.config, serving.trust, parts.core
    access = Access(lambda: core.state.access, system_clock, is_token_required=trust.is_token_required)
    admission = Admission(config, core, parts.node, trust)
    client = ClientServer(
        parts.node,
        config.client.address,
        credentials=_client_credentials(trust),
        access=access,
        fingerprint=trust.fingerprint,
        inviter=admission,
        extras={join.SERVICE: join.JoinService(admission).handlers()},
    )
    facts = NodeFacts(config, client.tally)
    observing = make_observing(core, parts.node, parts.links, facts)
    parts.upcalls.on_observing = observing.on_frame
    parts.node.security, parts.node.remedy = trust.status, life.remedy
    serving.peer_server.answer_authority = trust.authority_for(lambda member: member in core.members)
    serving.peer_server.answer_replace = admission.replace
    core.on_quarantined = _in_turn(core.on_quarantined, life.rebuild_later)
    # Standing by it has no links: it disturbs nobody.
    core.on_removed = _in_turn(core.on_removed, lambda _: life.restart())
    life.parts = parts
    keeping = asyncio.create_task(trust.keep(lambda: addresses_of(core.contacts.peers.values())))
    async with (
        _local_socket(life, config, parts.node, admission),
        open_web(config, parts.node, facts, observing, access, trust.web_context()),
    ):
        await client.start()
        await _run_until_stopped(life, serving, parts)
    keeping.cancel()
    await client.stop(grace=1.0)
    await parts.links.stop()
    await parts.node.close()


def _in_turn(*calls: Callable[[str], None]) -> Callable[[str], None]:
    def call_all(text: str) -> None:
        for call in calls:
            call(text)

    return call_all


async def _run_until_stopped(life: Life, serving: Serving, parts: Parts) -> None:
    parts.node.start()
    await parts.links.start()
    log.info(
        "serving name=%s client=%s peer=%s web=%s member=%s boot=%d secured=%s",
        serving.config.node.name,
        serving.config.client.address,
        serving.config.peer.address,
        serving.config.web.address,
        hex_id(parts.core.me.member_id),
        parts.core.boot_count,
        "yes" if serving.trust.is_secured else "no",
    )
    serving.notifier.ready("serving")
    _reload_on_hangup(serving, parts)
    ailment = lambda: ailment_of(parts.node, system_clock)  # noqa: E731
    with (
        watching_disk(parts.core, serving.config.data),
        beating(serving.notifier, lambda: describe(parts.node.status()), ailment),
    ):
        await life.stopped.wait()
    if life.is_ending:
        serving.notifier.stopping("handing over")
    log.info("%s name=%s", "stopping" if life.is_ending else "listening anew", serving.config.node.name)
    with more_time(serving.notifier, "writing a checkpoint"):
        await parts.node.stop(deadline_ns=system_clock.monotonic_ns() + STOP_BOUND_NS)


def _reload_on_hangup(serving: Serving, parts: Parts) -> None:
    """Under systemd SIGHUP is `systemctl reload`; elsewhere it is a terminal that closes, and ends the node."""
    if not serving.notifier.is_active:
        return
    reload = Reload(serving.told, serving.read_again, serving.notifier, system_clock)

    def apply(options: NodeOptions) -> None:
        parts.core.options = options
        parts.node.wake()
        serving.trust.reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: reload.run(apply, node_options))


def _prepare_loop(end: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_loop_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def _on_loop_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What nobody waited for: the refusal of a write whose caller has gone is nothing; the rest is logged."""
    error = context.get("exception")
    if not isinstance(error, RaftberryError):
        log.error("event loop: %s: %r", context.get("message"), error)
