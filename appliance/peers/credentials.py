"""Mutual TLS between members: what each side shows, and the check that a certificate is its sender's.

Invariant: with credentials, no stream is served and no frame sent unless both ends have a certificate of the cluster's
CA, over TLS 1.3, that names the member that each claims to be. A certificate that changes counts from the next
connection on, without a restart.
gRPC's Python has no setting for the version: TLS 1.2 is shut out by a list of its ciphers that no P-256 certificate
can be used with (RESTRICTED_CIPHERS), and what was negotiated is looked at again here.
Our own connections get the same certificate and the same CA through Python's ssl.
`_fetch` is called by gRPC's threads at each handshake; everything else on the loop.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import grpc

from appliance.model import NODE_HOST, ClusterId, MemberId, TlsMaterial, member_host, member_uri

TLS_VERSION: Final = b"TLSv1.3"

_URI: Final = "peer_uri"
_VERSION: Final = "ssl_tls_version"


class NotWhoItClaims(Exception):
    """The certificate is not that of the member the sender claims to be."""


class PeerCredentials:
    """Both sides of mutual TLS of one node."""

    def __init__(
        self,
        material: Callable[[], TlsMaterial],
        cluster_id: ClusterId,
        *,
        superseded: Sequence[ClusterId] = (),
    ) -> None:
        """superseded: clusters that this node was of; their members are heard, to be told so."""
        self._material, self._cluster_id, self._superseded = material, cluster_id, superseded
        self._served = material()
        self._contexts: tuple[TlsMaterial, ssl.SSLContext, ssl.SSLContext] | None = None
        self.server: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self._served),
            self._fetch,  # type: ignore[arg-type] # None is allowed: nothing has changed
            require_client_authentication=True,
        )

    def channel(self) -> grpc.ChannelCredentials:
        """For one dial, with the certificate of now."""
        material = self._material()
        return grpc.ssl_channel_credentials(material.authority_pem, material.key_pem, material.chain_pem)

    def server_context(self) -> ssl.SSLContext:
        """For a connection of our own that was dialled, with the certificate of now."""
        return self._contexts_of(self._material())[1]

    def client_context(self) -> ssl.SSLContext:
        """For a connection of our own that we dial; the caller says whose name to expect (host_of)."""
        return self._contexts_of(self._material())[2]

    def _contexts_of(self, material: TlsMaterial) -> tuple[TlsMaterial, ssl.SSLContext, ssl.SSLContext]:
        if self._contexts is None or self._contexts[0] is not material:
            contexts = (
                _context(material, ssl.PROTOCOL_TLS_SERVER),
                _context(material, ssl.PROTOCOL_TLS_CLIENT),
            )
            self._contexts = (material, *contexts)
        return self._contexts

    def host_of(self, member_id: MemberId | None) -> str:
        """The name that the certificate of whom we dial must have; None: of any member."""
        return NODE_HOST if member_id is None else member_host(self._cluster_id, member_id)

    def check(
        self, context: Mapping[str, Iterable[bytes]], member_id: MemberId, claimed: ClusterId | None = None
    ) -> None:
        """The auth context of a call from that member; NotWhoItClaims. claimed: of what cluster it says it is."""
        cluster_id = claimed if claimed and claimed in self._superseded else self._cluster_id
        wanted = member_uri(cluster_id, member_id)
        uris = [uri.decode("utf-8", "replace") for uri in context.get(_URI, ())]
        if uris != [wanted]:
            raise NotWhoItClaims(
                f"its certificate is of {', '.join(uris) or 'no member'}, it says it is {wanted}"
            )
        if list(context.get(_VERSION, ())) != [TLS_VERSION]:
            raise NotWhoItClaims("it speaks an older TLS than 1.3")

    def member_of(self, context: Mapping[str, Iterable[bytes]]) -> MemberId:
        """Whose certificate the other end has; NotWhoItClaims if it is no member's of this cluster."""
        uri = next((uri.decode("utf-8", "replace") for uri in context.get(_URI, ())), "")
        try:
            member_id = MemberId(int(uri.rpartition("/")[2], 16))
        except ValueError as error:
            raise NotWhoItClaims(f"its certificate is of {uri or 'no member'}") from error
        self.check(context, member_id)
        return member_id

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        material = self._material()
        if material is self._served:
            return None
        self._served = material
        return _configuration(material)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    pair = (material.key_pem, material.chain_pem)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=material.authority_pem)


def _context(material: TlsMaterial, protocol: int) -> ssl.SSLContext:
    """Nobody without a certificate of this CA, whichever side dialled."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # A session that is taken up again is not verified again: each connection shows its certificate.
        context.num_tickets = 0
    context.load_verify_locations(cadata=material.authority_pem.decode())
    # Python's ssl takes a certificate and its key from a file only; this one is in memory and has no name.
    descriptor = os.memfd_create("raftberry-certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(material.key_pem + material.chain_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
