"""What our certificates say: the one place that decides it.

    CA     P-256, CN `raftberry CLUSTER`, path length 0, valid from 1970 to 9999
    node   P-256, CN its name; URI raftberry://CLUSTER/member/MEMBER; DNS MEMBER.member.CLUSTER.raftberry.internal,
           raftberry.internal and its host names; for servers and clients; valid from 1970 to LIFE behind its issue

Invariant: validity begins in 1970, so that a Pi without a clock gets in; what ends is renewed when a third of its life
is left, so that a clock may run a year ahead. Dates revoke nothing here: membership does.
P-256, because gRPC's BoringSSL does not offer Ed25519. Pure functions: serial numbers and times are handed in.
Source: RFC 5280 (4.1.2.5: 99991231235959Z has no end), CA/Browser profiles for what verifiers expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.model import NODE_HOST, ClusterId, MemberId, hex_id, member_host, member_uri

LIFE: Final = timedelta(days=3 * 365)
RENEW_LEFT: Final = LIFE / 3
"""Renewed at two thirds: a peer whose clock is a year ahead still finds it valid."""

BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
NEVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

COMMON_NAME_LENGTH_MAX: Final = 64
"""RFC 5280, appendix A."""


def build_authority(
    key: ec.EllipticCurvePrivateKey, cluster_id: ClusterId, *, serial: int
) -> x509.Certificate:
    """The CA of a cluster, signed by itself."""
    name = _name(f"raftberry {hex_id(cluster_id)}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(BEGIN)
        .not_valid_after(NEVER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def build_node(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    cluster_id: ClusterId,
    member_id: MemberId,
    name: str,
    hosts: Sequence[str],
    end: datetime,
    serial: int,
) -> x509.Certificate:
    """A node's certificate. hosts: names and addresses beside those that every node has."""
    alternatives: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(member_uri(cluster_id, member_id)),
        x509.DNSName(member_host(cluster_id, member_id)),
        x509.DNSName(NODE_HOST),
        *map(_alternative, hosts),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(authority.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(BEGIN)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )


def host_names(certificate: x509.Certificate) -> list[str]:
    """The hosts that build_node was given, in order."""
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in list(alternatives)[3:]]


def member_of(certificate: x509.Certificate) -> str:
    """The member URI; empty if there is none."""
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return next(iter(alternatives.get_values_for_type(x509.UniformResourceIdentifier)), "")


def pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:COMMON_NAME_LENGTH_MAX])])


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
