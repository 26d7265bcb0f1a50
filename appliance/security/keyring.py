"""The files of a node's identity: the cluster's CA, this node's key and certificate; renewal and rotation.

    DATA/security/authority.pem   the CA's certificate, and its key where this node holds it
    DATA/security/node.pem        this node's key, its certificate, the CA's certificate
    DATA/security/OPEN            there once the node listens for other machines; the host they know it by

Invariant: each file is written whole or not at all, and key and certificate are in one file, so no crash parts them.
`material` is what new connections use, from the moment it changes; connections that exist go on.
The CA's key is on every member: it survives the loss of any of them, each renews its own certificate without asking,
and it is in no log, snapshot or backup. The price is in docs/security.md.
Loop thread, but `material`, which gRPC's threads read.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.errors import DataDirectoryRefused
from appliance.limits import CLOCK_EARLIEST_UNIX_NANO
from appliance.model import ClusterId, MemberId, TlsMaterial, hex_id, member_uri
from appliance.node.tokens import fingerprint_of
from appliance.security.profile import (
    BEGIN,
    LIFE,
    NEVER,
    RENEW_LEFT,
    build_authority,
    build_node,
    host_names,
    member_of,
    pem_of,
    pem_of_key,
)
from appliance.security.proof import key_of_request
from appliance.storage.files import remove, sync_directory, write_file

log = logging.getLogger(__name__)

SECURITY_DIRECTORY: Final = "security"
AUTHORITY_FILE: Final = "authority.pem"
NODE_FILE: Final = "node.pem"
OPEN_FILE: Final = "OPEN"

SECOND_NS: Final = 1_000_000_000
_SERIAL_BITS: Final = 120


class Authority:
    """The cluster's CA. key None: this node only knows its certificate."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None) -> None:
        self.certificate, self.key = certificate, key
        self.pem = pem_of(certificate)
        self.fingerprint = fingerprint_of(certificate.public_bytes(serialization.Encoding.DER))

    @classmethod
    def create(cls, cluster_id: ClusterId) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(build_authority(key, cluster_id, serial=secrets.randbits(_SERIAL_BITS)), key)

    @classmethod
    def parse(cls, pem: bytes) -> Authority:
        """ValueError when it is no CA of ours."""
        certificate = x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_private_key(pem, None) if b"PRIVATE KEY" in pem else None
        if key is not None and not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the CA's key is not of a curve")
        if key is not None and key.public_key() != certificate.public_key():
            raise ValueError("the CA's key is not that of its certificate")
        return cls(certificate, key)

    @property
    def full_pem(self) -> bytes:
        """With the key, if this node holds it."""
        return self.pem + (pem_of_key(self.key) if self.key else b"")

    def is_of(self, cluster_id: ClusterId) -> bool:
        return hex_id(cluster_id) in self.certificate.subject.rfc4514_string()

    def issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        *,
        cluster_id: ClusterId,
        member_id: MemberId,
        name: str,
        hosts: Sequence[str],
        now: datetime,
    ) -> x509.Certificate:
        """A node's certificate, valid for LIFE from now on."""
        assert self.key is not None, "this node does not hold the CA's key"
        return build_node(
            self.certificate,
            self.key,
            public_key,
            cluster_id=cluster_id,
            member_id=member_id,
            name=name,
            hosts=hosts,
            end=min(now + LIFE, NEVER),
            serial=secrets.randbits(_SERIAL_BITS),
        )


class Keyring:
    """Of one node, in its data directory."""

    def __init__(self, data: Path) -> None:
        self.path = data / SECURITY_DIRECTORY
        self.authority: Authority | None = None
        self.certificate: x509.Certificate | None = None
        self._material: TlsMaterial | None = None
        self.load()

    def load(self) -> None:
        """Read the files again; DataDirectoryRefused. What is not there stays None."""
        self.authority = self.certificate = self._material = None
        try:
            authority_pem = _read(self.path / AUTHORITY_FILE)
            if authority_pem:
                self.authority = Authority.parse(authority_pem)
            node_pem = _read(self.path / NODE_FILE)
            if node_pem and self.authority:
                self._use(node_pem)
        except (ValueError, OSError) as error:
            raise DataDirectoryRefused(
                f"{self.path}: {error}; move this directory away: a node that is alone makes a new CA, another joins "
                "its cluster again"
            ) from error

    @property
    def material(self) -> TlsMaterial:
        """What connections that begin now use."""
        assert self._material is not None, "this node has no certificate"
        return self._material

    @property
    def has_material(self) -> bool:
        return self._material is not None

    @property
    def not_after(self) -> datetime | None:
        return self.certificate.not_valid_after_utc if self.certificate else None

    @property
    def node_file(self) -> Path:
        """Key and chain as PEM, for those who take a file."""
        return self.path / NODE_FILE

    # the open door ------------------------------------------------------------------------------------------

    @property
    def advertised_host(self) -> str:
        """The host by which other machines know this node; empty: it was never opened to them."""
        return _read(self.path / OPEN_FILE).decode(errors="replace").strip()

    def open_door(self, host: str) -> None:
        """From the next start on the node listens for other machines. Durable."""
        self._ensure_directory()
        write_file(self.path / OPEN_FILE, f"{host}\n".encode())

    # making and renewing ------------------------------------------------------------------------------------

    def found(self, cluster_id: ClusterId) -> None:
        """This node alone begins the cluster: make its CA, unless it has. One of an earlier cluster is replaced.

        A cluster that is recovered keeps its CA, though it gets another id: what clients know of it stays true.
        """
        if self.authority is None or not self.authority.is_of(cluster_id):
            self.set_authority(Authority.create(cluster_id))
            remove(self.path / NODE_FILE)
            self.certificate = self._material = None
            log.info(
                "made the cluster's CA fingerprint=%s",
                self.authority.fingerprint.hex() if self.authority else "",
            )

    def set_authority(self, authority: Authority) -> None:
        """Durable. The same CA with its key replaces it without."""
        self._ensure_directory()
        write_file(self.path / AUTHORITY_FILE, authority.full_pem)
        self.authority = authority

    def install(self, authority: Authority, key_pem: bytes, certificate_pem: bytes) -> None:
        """What a join has brought. Durable."""
        self.set_authority(authority)
        node_pem = key_pem + certificate_pem + authority.pem
        write_file(self.path / NODE_FILE, node_pem)
        self._use(node_pem)

    def ensure(
        self, *, cluster_id: ClusterId, member_id: MemberId, name: str, hosts: Sequence[str], wall_ns: int
    ) -> bool:
        """A certificate of this node that is not due for renewal; True if a new one was made.

        Without the CA's key nothing can be done: what there is stays.
        """
        if self.authority is None or self.authority.key is None:
            return False
        now = self._now(wall_ns)
        is_sound = (
            self.certificate is not None
            and member_of(self.certificate) == member_uri(cluster_id, member_id)
            and self.certificate.issuer == self.authority.certificate.subject
            and host_names(self.certificate) == list(hosts)
            and now < self.certificate.not_valid_after_utc - RENEW_LEFT
        )
        if is_sound:
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.authority.issue(
            key.public_key(), cluster_id=cluster_id, member_id=member_id, name=name, hosts=hosts, now=now
        )
        self.install(self.authority, pem_of_key(key), pem_of(certificate))
        log.info(
            "made a certificate member=%s ends=%s", hex_id(member_id), certificate.not_valid_after_utc.date()
        )
        return True

    def sign_request(
        self,
        request_der: bytes,
        *,
        cluster_id: ClusterId,
        member_id: MemberId,
        name: str,
        hosts: Sequence[str],
        wall_ns: int,
    ) -> bytes:
        """The certificate, as PEM, of a node that joins. InvalidArgument."""
        assert self.authority is not None, "a plaintext cluster has no CA"
        certificate = self.authority.issue(
            key_of_request(request_der),
            cluster_id=cluster_id,
            member_id=member_id,
            name=name,
            hosts=hosts,
            now=self._now(wall_ns),
        )
        return pem_of(certificate)

    def _now(self, wall_ns: int) -> datetime:
        """A clock that was never set would make certificates that end before they begin to be of use."""
        now = BEGIN + timedelta(seconds=max(wall_ns, CLOCK_EARLIEST_UNIX_NANO) // SECOND_NS)
        issued = self.certificate.not_valid_after_utc - LIFE if self.certificate else now
        return max(now, issued)

    def _use(self, node_pem: bytes) -> None:
        assert self.authority is not None
        certificate = x509.load_pem_x509_certificate(node_pem)
        key = serialization.load_pem_private_key(node_pem, None)
        if key.public_key() != certificate.public_key() or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{NODE_FILE}: the key is not that of the certificate")
        self.certificate = certificate
        self._material = TlsMaterial(
            authority_pem=self.authority.pem,
            chain_pem=pem_of(certificate) + self.authority.pem,
            key_pem=pem_of_key(key),
        )

    def _ensure_directory(self) -> None:
        if not self.path.exists():
            self.path.mkdir(mode=0o700)
            sync_directory(self.path.parent)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
