"""Proofs: a certificate request (the joining node holds its key), and the signature of an invite's key over it.

Invariant: what an invite's holder signs binds the cluster's CA, the member id, the name, the address and the request:
it is worth nothing for another cluster, another member or another key. The invite's secret itself never travels,
and the cluster keeps its public half only: who reads the state can't join with it.

    signed: b"raftberry join 1\\0", 16 bytes fingerprint of the CA, >Q member id, 32 bytes SHA-256 of the request,
            >H length and UTF-8 of the name, >H length and UTF-8 of the peer address
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.errors import InvalidArgument, PermissionDenied
from appliance.model import MemberId
from appliance.security.profile import pem_of_key

_CONTEXT: Final = b"raftberry join 1\0"


@dataclass(frozen=True, slots=True)
class JoinClaim:
    """What a joining node says of itself. request_der: its certificate request."""

    fingerprint: bytes
    member_id: MemberId
    name: str
    peer_address: str
    request_der: bytes

    @property
    def request_hash(self) -> bytes:
        return hashlib.sha256(self.request_der).digest()

    def signed_bytes(self) -> bytes:
        return b"".join(
            (
                _CONTEXT,
                self.fingerprint,
                struct.pack(">Q", self.member_id),
                self.request_hash,
                _framed(self.name),
                _framed(self.peer_address),
            )
        )


def invite_public_key(seed: bytes) -> bytes:
    """What the cluster keeps of an invite."""
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def sign_claim(seed: bytes, claim: JoinClaim) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(claim.signed_bytes())


def check_claim(public_key: bytes, claim: JoinClaim, signature: bytes) -> None:
    """Raises PermissionDenied."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, claim.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise PermissionDenied(
            "the proof of the invite does not hold: nothing was changed; copy the whole line of "
            "`sudo raftberry invite` again"
        ) from error


def make_request() -> tuple[bytes, bytes]:
    """(key as PEM, certificate request as DER) of a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return pem_of_key(key), request.public_bytes(serialization.Encoding.DER)


def key_of_request(request_der: bytes) -> ec.EllipticCurvePublicKey:
    """The key whose holder made the request; InvalidArgument. Nothing else in it counts."""
    try:
        request = x509.load_der_x509_csr(request_der)
        key = request.public_key()
        is_sound = request.is_signature_valid
    except (ValueError, TypeError) as error:
        raise InvalidArgument(
            "request", f"{len(request_der)} bytes that are no certificate request"
        ) from error
    if (
        not is_sound
        or not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP256R1)
    ):
        raise InvalidArgument("request", "a certificate request is of a P-256 key, signed with it")
    return key


def _framed(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded
