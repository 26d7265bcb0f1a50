"""The certificate of a cluster's CA, from any of its nodes, by the fingerprint that a token or an invite names.

Invariant: what is returned has that fingerprint; until then nothing is sent but the question. Blocks.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Final

import grpc

from appliance.addresses import split_address
from appliance.client import failures
from appliance.errors import ConfigurationError
from appliance.model import NODE_HOST
from appliance.node.tokens import FINGERPRINT_BYTES
from raftberry.v1 import join_pb2

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 20.0

_GET_AUTHORITY: Final = "/raftberry.v1.JoinService/GetAuthority"
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.ssl_target_name_override", NODE_HOST),
)


class WrongAuthority(ConfigurationError):
    """Whoever answers is no node of the cluster that was meant."""


def fetch_authority(endpoint: str, fingerprint: bytes) -> bytes:
    """The CA's certificate as PEM; WrongAuthority, Unreachable. endpoint: HOST:PORT of a client port.

    The first connection trusts whatever certificate is shown, to be given a CA; only its fingerprint counts.
    """
    try:
        shown = _shown_certificate(endpoint)
    except OSError as error:
        raise failures.Unreachable(f"{endpoint}: no TLS connection: {error}") from error
    # gRPC takes a leaf as a root (X509_V_FLAG_PARTIAL_CHAIN): this channel is to the holder of that certificate.
    with grpc.secure_channel(
        endpoint, grpc.ssl_channel_credentials(shown.encode()), options=list(_OPTIONS)
    ) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_GET_AUTHORITY)
        try:
            answer = call(b"", timeout=ANSWER_TIMEOUT_S)
        except grpc.RpcError as error:
            raise failures.from_call(error, endpoint, is_read=True) from error
    pem = join_pb2.GetAuthorityResponse.FromString(answer).authority_pem
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    except ValueError as error:
        raise WrongAuthority(f"{endpoint}: what it gave is no certificate of a CA") from error
    found = hashlib.sha256(der).digest()[:FINGERPRINT_BYTES]
    if found != fingerprint:
        raise WrongAuthority(
            f"{endpoint}: its CA has the fingerprint {found.hex()}, the one that was meant {fingerprint.hex()}: it is "
            "another cluster, or somebody between here and there; nothing was sent. Check the host, and that the line "
            "is of this cluster"
        )
    return pem


def _shown_certificate(endpoint: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    address = split_address(endpoint, what="endpoint")
    with (
        socket.create_connection(address, timeout=CONNECT_TIMEOUT_S) as plain,
        context.wrap_socket(plain) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    if der is None:
        raise OSError("it shows no certificate")
    return ssl.DER_cert_to_PEM_cert(der)
