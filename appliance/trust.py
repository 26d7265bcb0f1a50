"""What a node's ports are: plaintext on loopback, or encrypted with tokens and certificates; and how that changes.

Invariant: what listens beyond this machine is encrypted, unless the configuration says `insecure`. A node that is
secured has a certificate before its first port opens.
Called by app.py; loop thread.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from appliance.addresses import is_loopback, split_address
from appliance.clock import system_clock
from appliance.config import Config
from appliance.errors import ConfigurationError
from appliance.host.machine import primary_address
from appliance.model import Member, MemberId, member_host
from appliance.node.status import SecurityStatus
from appliance.node.tokens import NO_FINGERPRINT
from appliance.peers.authority import fetch_authority
from appliance.peers.credentials import NotWhoItClaims, PeerCredentials
from appliance.peers.wire import PeerAddress
from appliance.security.keyring import Authority, Keyring
from appliance.storage.identity import Identity

log = logging.getLogger(__name__)

RENEWAL_PERIOD_S: Final = 3_600.0
"""Between two looks at the certificate's age: it has a year left when it is renewed."""

AUTHORITY_PAUSE_S: Final = 1.0
AUTHORITY_PAUSE_S_MAX: Final = 60.0


class Trust:
    """Of one node, from start to stop."""

    def __init__(self, config: Config, keyring: Keyring, identity: Identity) -> None:
        """config: with its addresses settled."""
        self._config, self.keyring = config, keyring
        self._cluster_id, self._member_id = identity.cluster_id, identity.member_id
        self._superseded = identity.superseded
        is_meant_for_others = config.is_reachable or bool(keyring.advertised_host)
        self.is_secured = is_meant_for_others and not config.security.insecure
        self.peer_credentials: PeerCredentials | None = None
        self._web: ssl.SSLContext | None = None

    @property
    def is_token_required(self) -> bool:
        return self.is_secured or self._config.security.require_tokens

    @property
    def fingerprint(self) -> bytes:
        """Of the cluster's CA, for tokens; zeros where clients don't need it."""
        return (
            self.keyring.authority.fingerprint
            if self.is_secured and self.keyring.authority
            else NO_FINGERPRINT
        )

    def prepare(self, members: Sequence[Member]) -> None:
        """Make what is missing: the CA where this node is its cluster, its certificate. ConfigurationError."""
        if len(members) == 1 and not self._config.security.insecure and self.keyring.authority is None:
            self.keyring.found(self._cluster_id)
        self.renew()
        if not self.is_secured:
            return
        if not self.keyring.has_material:
            raise ConfigurationError(
                f"client.address {self._config.client.address} or peer.address {self._config.peer.address} can be "
                "reached from other machines, and this cluster has no certificates, because it was founded by "
                "--initial-members; allow it with --insecure (security.insecure = true), or found it anew: start one "
                "node alone and let the others join (`raftberry invite`)"
            )
        self.peer_credentials = PeerCredentials(
            lambda: self.keyring.material, self._cluster_id, superseded=self._superseded
        )

    def renew(self) -> None:
        """A new certificate if it is due, or the machine has another name or address."""
        is_new = self.keyring.ensure(
            cluster_id=self._cluster_id,
            member_id=self._member_id,
            name=self._config.node.name,
            hosts=[
                *host_names(self._config),
                # Old members dial the node by these, and are told that their cluster was superseded.
                *(member_host(old, self._member_id) for old in self._superseded),
            ],
            wall_ns=system_clock.wall_ns(),
        )
        if is_new and self._web is not None:
            # Counts for connections that begin from now on, like the certificate of the other ports.
            self._web.load_cert_chain(self.keyring.node_file)

    def reload(self) -> None:
        """Read the files again, for `systemctl reload`."""
        self.keyring.load()
        self.renew()

    def web_context(self) -> ssl.SSLContext | None:
        """TLS of the web port; None: plaintext."""
        if not self.is_secured or is_loopback(split_address(self._config.web.address, what="web.address")[0]):
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.keyring.node_file)
        self._web = context
        return context

    def status(self) -> SecurityStatus:
        authority, end = self.keyring.authority, self.keyring.not_after
        if not self.is_secured or authority is None or end is None:
            return SecurityStatus(alarms=self._alarms())
        return SecurityStatus(
            secured=True,
            certificate_expires_unix_nano=_unix_nano(end),
            authority_fingerprint=authority.fingerprint.hex(),
            alarms=self._alarms(),
        )

    def authority_for(self, is_member: Callable[[MemberId], bool]) -> Callable[[MemberId], bytes]:
        """Answers members that ask for the CA's key."""

        def answer(member_id: MemberId) -> bytes:
            if not is_member(member_id):
                raise NotWhoItClaims("it is no member of this cluster (any more)")
            authority = self.keyring.authority
            return authority.full_pem if authority is not None and authority.key is not None else b""

        return answer

    async def keep(self, peers: Callable[[], Sequence[PeerAddress]]) -> None:
        """Get the CA's key from a member, if this node has none; then renew in time. Until cancelled."""
        pause_s = AUTHORITY_PAUSE_S
        while self.is_secured and self.keyring.authority and self.keyring.authority.key is None:
            for peer in peers():
                await self._try_fetch(peer)
                if self.keyring.authority.key is not None:
                    break
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, AUTHORITY_PAUSE_S_MAX)
        while True:
            self.renew()
            await asyncio.sleep(RENEWAL_PERIOD_S)

    async def _try_fetch(self, peer: PeerAddress) -> None:
        assert self.peer_credentials is not None
        assert self.keyring.authority is not None
        pem = await fetch_authority(peer, self.peer_credentials)
        if not pem:
            return
        try:
            authority = Authority.parse(pem)
        except ValueError as error:
            log.warning("a member gave a CA that makes no sense: peer=%s reason=%s", peer.name, error)
            return
        if authority.pem == self.keyring.authority.pem and authority.key is not None:
            self.keyring.set_authority(authority)
            log.info("took over the CA's key peer=%s", peer.name)

    def _alarms(self) -> tuple[str, ...]:
        if self._config.is_reachable and not self.is_secured:
            return ("insecure: this node listens beyond this machine without encryption (security.insecure)",)
        return ()


def host_names(config: Config) -> list[str]:
    """By what clients may call this node, beside the name that all nodes share; sorted, each once."""
    own = config.node.name
    peer_host, _ = split_address(config.advertised_peer_address, what="peer.advertise")
    client_host, _ = split_address(config.client.address, what="client.address")
    wanted = {"localhost", "127.0.0.1", own, f"{own}.local", peer_host, client_host, primary_address()}
    return sorted(name for name in wanted - {"", "0.0.0.0", "::"} if _is_host(name))


def _is_host(name: str) -> bool:
    """Names of nodes may hold what a DNS name may not."""
    return name.isascii() and not set(name) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:"
    )


def socket_path(config: Config) -> Path | None:
    """Of the local socket; None where the path is too long for one."""
    path = Path(config.client.socket)
    if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
        log.warning("no local socket: its path is too long path=%s limit=%d", path, SOCKET_PATH_BYTES_MAX)
        return None
    return path


SOCKET_PATH_BYTES_MAX: Final = 107
"""sun_path of unix(7), with its zero byte."""


def _unix_nano(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000
