"""TLS of the client port: the node's certificate, renewed without a restart. Clients prove themselves by tokens.

`_Rotation` is called by gRPC's threads at each handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import grpc

from appliance.model import TlsMaterial

Credentials: TypeAlias = "grpc.ServerCredentials"
"""For whoever hands them from here to the server."""


class _Rotation:
    """The material of now; None while it is what it was."""

    def __init__(self, material: Callable[[], TlsMaterial]) -> None:
        self._material = material
        self.served = material()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        material = self._material()
        if material is self.served:
            return None
        self.served = material
        return configuration(material)


def server_credentials(material: Callable[[], TlsMaterial]) -> grpc.ServerCredentials:
    """Of a port that asks for no certificate."""
    rotation = _Rotation(material)
    # None is allowed of a fetcher: nothing has changed.
    return grpc.dynamic_ssl_server_credentials(configuration(rotation.served), rotation)  # type: ignore[arg-type]


def configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key_pem, material.chain_pem)])
