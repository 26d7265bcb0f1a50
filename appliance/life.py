"""A process's life: one serving part after another, and what the machine's owner asks of it on the local socket.

Invariant: what is asked for is on disk before the answer; the serving part is then ended and begun anew, so that what
it does after a request and after a power cut is the same.
Made by app.py; loop thread.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Callable
from typing import Final

from appliance.addresses import is_loopback, split_address
from appliance.api.local import JoinProgress
from appliance.assembly import Parts, Serving
from appliance.config import DEFAULT_PORTS, Config
from appliance.errors import ConditionFailed
from appliance.host.machine import advertised_host, primary_address
from appliance.host.notify import Notifier
from appliance.joining import Intent, Joiner, endpoint_of, read_intent, write_intent
from appliance.node.tokens import parse_invite
from appliance.rebuilding import Rebuilder, rebuild_intent
from appliance.security.proof import make_request

log = logging.getLogger(__name__)

HOST_TIMEOUT_S: Final = 3.0
"""Looking its own name up must not hold the loop's caller for a resolver's minutes."""


class Life:
    """config: as it was read. serving, parts: while there are any."""

    def __init__(
        self, config: Config, rng: random.Random, notifier: Notifier, read_again: Callable[[], Config]
    ) -> None:
        self.config, self.rng, self.notifier, self.read_again = config, rng, notifier, read_again
        self.stopped = asyncio.Event()
        self.is_ending = False
        self.serving: Serving | None = None
        self.parts: Parts | None = None
        self._joiner: Joiner | None = None
        self._join_failure = ""
        self.rebuild_refusal = ""
        """Why the peers will never rebuild this node."""

    def begin(self) -> None:
        """Another serving part."""
        if not self.is_ending:
            self.stopped.clear()

    def end(self) -> None:
        """The process is told to stop."""
        self.is_ending = True
        self.stopped.set()

    def restart(self) -> None:
        """End the serving part; another one begins."""
        self.stopped.set()

    def start_joiner(self, intent: Intent) -> Joiner:
        self._joiner = Joiner(self.config, intent, self.rng)
        return self._joiner

    def end_joiner(self, failure: str) -> None:
        self._joiner, self._join_failure = None, failure

    def rebuild_later(self, reason: str) -> None:
        """This node is in doubt: unless a person comes first, its peers rebuild it."""
        delay_ns = self.config.cluster.rebuild_after_ns
        if self.serving is None or not delay_ns or self.rebuild_refusal:
            return
        if len(self.serving.directory.identity.members) > 1:
            log.warning("in doubt, to be rebuilt from its peers in %g s: %s", delay_ns / 1e9, reason)
            asyncio.get_running_loop().call_later(delay_ns / 1e9, self._begin_rebuild, self.serving)

    def remedy(self) -> str:
        """What happens to a node in doubt now, and whether a person is needed: the end of its alarm."""
        delay_ns, serving = self.config.cluster.rebuild_after_ns, self.serving
        if serving is None or len(serving.directory.identity.members) < 2:
            return "nobody else has this data: restore a backup (`raftberry restore FILE --replace`)"
        by_hand = (
            f"on another member `sudo raftberry members remove {self.config.node.name}` and `sudo raftberry invite`, "
            "and here the line that it prints with --discard-data"
        )
        if self.rebuild_refusal:
            return f"its peers do not rebuild it ({self.rebuild_refusal}): {by_hand}"
        if not delay_ns:
            return f"it waits for you (cluster.rebuild_after is 0): {by_hand}"
        return (
            f"its peers rebuild it by themselves, from {delay_ns / 1e9:g} s on and once they have a majority"
        )

    def _begin_rebuild(self, serving: Serving) -> None:
        """The serving part that was in doubt still runs: give it up."""
        if self.serving is not serving or read_intent(self.config.data) is not None:
            return
        identity = serving.directory.identity
        write_intent(self.config.data, rebuild_intent(identity, serving.trust.keyring.advertised_host))
        self.restart()

    def start_rebuilder(self, intent: Intent) -> Rebuilder:
        return Rebuilder(self.config.listening(intent.advertised_host), intent, self.rng)

    # what the owner asks -------------------------------------------------------------------------------------

    async def open_door(self, host: str) -> tuple[str, bool]:
        if self.serving is None or self.parts is None:
            raise ConditionFailed(
                "this node takes no part in a cluster now: nothing was changed; see `raftberry status`"
            )
        keyring = self.serving.trust.keyring
        self._check_reachable(host)
        if keyring.authority is None:
            raise ConditionFailed(
                "this cluster was founded by --initial-members and has no CA: nothing was changed; found it anew: "
                "start one node alone, and let the others join"
            )
        if keyring.advertised_host and host in ("", keyring.advertised_host):
            return keyring.advertised_host, True
        found = host or await self._find_host()
        keyring.open_door(found)
        log.info("listening for other machines from now on host=%s", found)
        self.restart()
        return found, False

    async def start_join(self, host: str, invite: str, advertised_host: str, *, is_discarding: bool) -> None:
        parse_invite(invite)
        name, port = endpoint_of(host, DEFAULT_PORTS["client"])
        self._check_reachable(advertised_host)
        present = read_intent(self.config.data)
        if present is not None:
            wanted = present.corrected(host=name, port=port, invite=invite, advertised_host=advertised_host)
            self._correct_join(present, wanted)
            return
        self._check_expendable(is_discarding=is_discarding)
        own_host = advertised_host or await self._find_host()
        key_pem, request_der = make_request()
        intent = Intent(
            host=name,
            port=port,
            invite=invite,
            member_id=self.rng.getrandbits(64) or 1,
            advertised_host=own_host,
            key_pem=key_pem.decode(),
            request_der=base64.b64encode(request_der).decode(),
        )
        write_intent(self.config.data, intent)
        self._join_failure = ""
        log.info("joining host=%s port=%d", name, port)
        self.restart()

    def _correct_join(self, present: Intent, wanted: Intent) -> None:
        """Until somebody has taken the node in, the line that was typed last counts."""
        if present.is_rebuild:
            raise ConditionFailed(
                "this node asks its peers to rebuild it: nothing was changed; wait for it, see `raftberry status`"
            )
        if wanted == present:
            return
        if present.answer:
            raise ConditionFailed(
                f"this node has been taken in by the cluster of {present.endpoint}: nothing was changed; "
                "`raftberry join` shows how far it is"
            )
        if self._joiner is not None:
            self._joiner.give_way()
        write_intent(self.config.data, wanted)
        log.info("joining host=%s port=%d instead of %s", wanted.host, wanted.port, present.endpoint)
        self.restart()

    def join_progress(self) -> JoinProgress:
        if self._joiner is not None:
            return self._joiner.progress
        present = read_intent(self.config.data)
        if present is not None and not present.is_rebuild:
            return JoinProgress(is_active=True, state="ending what this node was")
        return JoinProgress(failure=self._join_failure)

    def _check_reachable(self, named_host: str) -> None:
        """named_host: whoever names it knows what the addresses mean, as in a cluster on one machine."""
        if self.config.security.insecure:
            raise ConditionFailed(
                "this node is told to be plaintext (--insecure, security.insecure): nothing was changed; remove that, "
                "restart it, and try again"
            )
        if named_host:
            return
        listening = self.config.listening("anywhere")
        for what, address in (("client", listening.client.address), ("peer", listening.peer.address)):
            if is_loopback(split_address(address, what=what)[0]):
                raise ConditionFailed(
                    f"{what}.address is {address} in the configuration, where no other machine can reach it: "
                    f"nothing was changed; remove {what}.address, or name another, and restart the node"
                )

    def _check_expendable(self, *, is_discarding: bool) -> None:
        """What this node holds may go, or there is nothing."""
        if is_discarding:
            return
        if self.parts is None:
            raise ConditionFailed(
                "this node serves no data now and may hold some: nothing was changed; see `raftberry status`, and "
                "give it up with --discard-data"
            )
        others = len(self.parts.node.configuration.members) - 1
        if others > 0:
            raise ConditionFailed(
                f"this node is one of a cluster of {others + 1}: nothing was changed; remove it there first, or "
                "give its data up with --discard-data"
            )
        state = self.parts.core.state
        if state.series_count or state.key_count or state.access.tokens:
            raise ConditionFailed(
                f"this node has data of its own ({state.series_count} series, {state.key_count} keys, "
                f"{len(state.access.tokens)} tokens), which a join gives up: nothing was changed; keep it with "
                "`raftberry backup FILE`, then join with --discard-data"
            )

    async def _find_host(self) -> str:
        try:
            async with asyncio.timeout(HOST_TIMEOUT_S):
                host = await asyncio.to_thread(advertised_host)
        except TimeoutError:
            # No resolver answers: a network without one has addresses all the same.
            host = primary_address()
        if not host:
            raise ConditionFailed(
                "this machine has no address in a network: nothing was changed; name one with --host"
            )
        return host
