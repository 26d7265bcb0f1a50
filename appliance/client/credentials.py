"""How a client proves itself, and knows the cluster: a token, and the cluster's CA.

Invariant: a token that names a CA travels to nodes of that CA only, never in plain text; the CA itself is fetched from
the node by that name, where no file was given. A certificate is checked
against the CA and one name that all nodes of a cluster share, because addresses change and the CA does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from appliance.client.authority import fetch_authority
from appliance.model import NODE_HOST
from appliance.node.tokens import NO_FINGERPRINT, parse_token

UNIX_PREFIX: Final = "unix:"

Options = list[tuple[str, int]] | list[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """token: its text; authority_pem: certificate of the cluster's CA. Empty: none."""

    token: str = ""
    authority_pem: bytes = b""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel(self, endpoint: str, options: Options) -> grpc.Channel:
        """A channel to HOST:PORT or unix:PATH."""
        secured, named = self._dress(endpoint, options)
        if secured is None:
            return grpc.insecure_channel(endpoint, options=named)
        return grpc.secure_channel(endpoint, secured, options=named)

    def aio_channel(self, endpoint: str, options: Options) -> grpc.aio.Channel:
        """The same for an asyncio loop. May block for the CA: once, before there is load."""
        secured, named = self._dress(endpoint, options)
        if secured is None:
            return grpc.aio.insecure_channel(endpoint, options=named)
        return grpc.aio.secure_channel(endpoint, secured, options=named)

    def is_encrypted(self, endpoint: str) -> bool:
        """Whether a channel there speaks TLS."""
        return not endpoint.startswith(UNIX_PREFIX) and (
            bool(self.authority_pem) or self._fingerprint() != NO_FINGERPRINT
        )

    def _dress(self, endpoint: str, options: Options) -> tuple[grpc.ChannelCredentials | None, Options]:
        """TLS (None: plain text) and the options that go with it."""
        if endpoint.startswith(UNIX_PREFIX):
            return None, [*options, ("grpc.default_authority", "localhost")]
        if not self.is_encrypted(endpoint):
            return None, options
        authority_pem = self.authority_pem or fetch_authority(endpoint, self._fingerprint())
        secured = grpc.ssl_channel_credentials(authority_pem)
        return secured, [*options, ("grpc.ssl_target_name_override", NODE_HOST)]

    def _fingerprint(self) -> bytes:
        return parse_token(self.token).fingerprint if self.token else NO_FINGERPRINT


NO_CREDENTIALS: Final = ClientCredentials()
