"""Certificates, keys and proofs: what they say, when they are made anew, what they refuse."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.errors import DataDirectoryRefused, InvalidArgument, PermissionDenied
from appliance.limits import CLOCK_EARLIEST_UNIX_NANO
from appliance.model import ClusterId, MemberId, member_host, member_uri
from appliance.security import profile, proof
from appliance.security.keyring import AUTHORITY_FILE, NODE_FILE, Authority, Keyring
from appliance.security.proof import JoinClaim

CLUSTER, MEMBER = ClusterId(0xAB), MemberId(0xCD)
DAY_NS = 86_400 * 10**9
NOW_NS = 1_790_000_000 * 10**9
KEY = ec.derive_private_key(7, ec.SECP256R1())
SEED = b"\x05" * 32


def ensure(keyring: Keyring, wall_ns: int = NOW_NS, **changes: object) -> bool:
    arguments: dict[str, object] = {
        "cluster_id": CLUSTER, "member_id": MEMBER, "name": "pi-1", "hosts": ["localhost"], "wall_ns": wall_ns,
    }  # fmt: skip
    return keyring.ensure(**(arguments | changes))  # type: ignore[arg-type]


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    ring = Keyring(tmp_path)
    ring.found(CLUSTER)
    assert ensure(ring)
    return ring


def certificate_of(ring: Keyring) -> x509.Certificate:
    assert ring.certificate is not None
    return ring.certificate


def claim(**changes: object) -> JoinClaim:
    fields: dict[str, object] = {
        "fingerprint": b"f" * 16, "member_id": MEMBER, "name": "pi-2", "peer_address": "h:1", "request_der": b"r",
    }  # fmt: skip
    return JoinClaim(**(fields | changes))  # type: ignore[arg-type]


def test_the_profile_of_certificates_is_golden() -> None:
    authority = profile.build_authority(KEY, CLUSTER, serial=1)
    node = profile.build_node(
        authority,
        KEY,
        ec.derive_private_key(9, ec.SECP256R1()).public_key(),
        cluster_id=CLUSTER,
        member_id=MEMBER,
        name="pi-1",
        hosts=["localhost", "10.0.0.1"],
        end=datetime(2030, 1, 1, tzinfo=UTC),
        serial=2,
    )
    assert [hashlib.sha256(one.tbs_certificate_bytes).hexdigest() for one in (authority, node)] == [
        "e96256ea86d50e15a3c66e4dc9f9fe5b0ed4dc9d35b7f924918286bc24e4eac0",
        "092422f75a5300a70b17d9b75f8d8dade419e3050c0da164c32c5ca97520485c",
    ]
    assert profile.member_of(node) == "raftberry://00000000000000ab/member/00000000000000cd"
    assert profile.host_names(node) == ["localhost", "10.0.0.1"]
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "00000000000000cd.member.00000000000000ab.raftberry.internal",
        "raftberry.internal",
        "localhost",
    ]
    node.verify_directly_issued_by(authority)


def test_a_certificate_begins_in_1970_and_its_ca_never_ends(keyring: Keyring) -> None:
    assert keyring.authority is not None
    assert certificate_of(keyring).not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert keyring.authority.certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert keyring.authority.certificate.not_valid_after_utc.year == 9999


def test_a_certificate_is_renewed_at_two_thirds_of_its_life_and_not_before(keyring: Keyring) -> None:
    first, life_ns = certificate_of(keyring), 3 * 365 * DAY_NS
    material = keyring.material
    assert not ensure(keyring, NOW_NS + life_ns * 2 // 3 - DAY_NS)
    assert keyring.material is material
    assert ensure(keyring, NOW_NS + life_ns * 2 // 3 + DAY_NS)
    assert certificate_of(keyring).not_valid_after_utc > first.not_valid_after_utc
    assert keyring.material is not material


def test_a_clock_a_year_ahead_still_finds_every_certificate_in_use_valid(keyring: Keyring) -> None:
    oldest_in_use = certificate_of(keyring).not_valid_after_utc - profile.RENEW_LEFT
    assert oldest_in_use + timedelta(days=364) < certificate_of(keyring).not_valid_after_utc


@pytest.mark.parametrize("wall_ns", [0, CLOCK_EARLIEST_UNIX_NANO - 1])
def test_a_clock_that_was_never_set_makes_certificates_of_use(tmp_path: Path, wall_ns: int) -> None:
    ring = Keyring(tmp_path)
    ring.found(CLUSTER)
    ensure(ring, wall_ns)
    assert certificate_of(ring).not_valid_after_utc.year >= 2027
    assert not ensure(ring, 0)


@pytest.mark.parametrize(
    "change", [{"member_id": MemberId(1)}, {"hosts": ["a", "b"]}, {"cluster_id": ClusterId(9)}]
)
def test_another_member_or_another_name_gets_a_new_certificate(
    keyring: Keyring, change: dict[str, object]
) -> None:
    assert ensure(keyring, **change)


def test_another_cluster_gets_another_ca_and_the_same_keeps_its_own(keyring: Keyring) -> None:
    assert keyring.authority is not None
    before = keyring.authority.fingerprint
    keyring.found(CLUSTER)
    assert keyring.authority.fingerprint == before
    keyring.found(ClusterId(1))
    assert keyring.authority.fingerprint != before
    assert not keyring.has_material


def test_files_are_read_back_and_are_the_owners_alone(keyring: Keyring) -> None:
    again = Keyring(keyring.path.parent)
    assert again.authority is not None
    assert again.authority.key is not None
    assert again.material == keyring.material
    assert {oct(file.stat().st_mode & 0o777) for file in keyring.path.iterdir()} == {"0o600"}
    assert oct(keyring.path.stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize("name", [AUTHORITY_FILE, NODE_FILE])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_damaged_file_is_refused_with_what_to_do_or_counts_as_missing(
    keyring: Keyring, name: str, content: bytes
) -> None:
    (keyring.path / name).write_bytes(content)
    if content:
        with pytest.raises(DataDirectoryRefused, match="move this directory away"):
            Keyring(keyring.path.parent)
    else:
        assert not Keyring(keyring.path.parent).has_material


def test_a_key_that_is_not_that_of_its_certificate_is_refused(keyring: Keyring) -> None:
    pem = (keyring.path / NODE_FILE).read_bytes()
    other = profile.pem_of_key(KEY)
    end = b"-----END PRIVATE KEY-----\n"
    (keyring.path / NODE_FILE).write_bytes(other + pem.partition(end)[2])
    with pytest.raises(DataDirectoryRefused, match="key is not that of the certificate"):
        Keyring(keyring.path.parent)


def test_without_the_cas_key_a_node_keeps_what_it_has_until_it_is_given(
    keyring: Keyring, tmp_path: Path
) -> None:
    assert keyring.authority is not None
    joined = Keyring(tmp_path / "other")
    (tmp_path / "other").mkdir()
    key_pem, request_der = proof.make_request()
    certificate = keyring.sign_request(
        request_der,
        cluster_id=CLUSTER,
        member_id=MemberId(5),
        name="pi-2",
        hosts=["localhost"],
        wall_ns=NOW_NS,
    )
    joined.install(Authority(keyring.authority.certificate, None), key_pem, certificate)
    assert not ensure(joined, NOW_NS + 10_000 * DAY_NS)
    assert b"PRIVATE" not in (joined.path / AUTHORITY_FILE).read_bytes()
    joined.set_authority(keyring.authority)
    assert ensure(joined, member_id=MemberId(6))
    assert member_uri(CLUSTER, MemberId(6)) == profile.member_of(certificate_of(joined))
    assert member_host(CLUSTER, MemberId(6)).startswith("0000000000000006.")


def test_a_proof_holds_for_exactly_what_was_signed() -> None:
    public_key, signature = proof.invite_public_key(SEED), proof.sign_claim(SEED, claim())
    proof.check_claim(public_key, claim(), signature)
    for other in (
        claim(fingerprint=b"g" * 16),
        claim(member_id=MemberId(1)),
        claim(name="pi-3"),
        claim(peer_address="h:2"),
        claim(request_der=b"s"),
        # Lengths are signed too: no letter moves from one field to the next.
        claim(name="pi-2h", peer_address=":1"),
    ):
        with pytest.raises(PermissionDenied):
            proof.check_claim(public_key, other, signature)
    other_key = proof.invite_public_key(b"\x06" * 32)
    for wrong_key, wrong_signature in ((other_key, signature), (public_key, b""), (b"", b"")):
        with pytest.raises(PermissionDenied):
            proof.check_claim(wrong_key, claim(), wrong_signature)


def test_what_is_signed_is_golden() -> None:
    assert claim().signed_bytes() == (
        b"raftberry join 1\0" + b"f" * 16 + b"\0\0\0\0\0\0\0\xcd" + hashlib.sha256(b"r").digest()
        + b"\0\x04pi-2" + b"\0\x03h:1"
    )  # fmt: skip
    assert (
        proof.invite_public_key(SEED).hex()
        == "6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1"
    )


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    _, request = proof.make_request()
    assert proof.key_of_request(request).curve.name == "secp256r1"
    broken = request[:-1] + bytes([request[-1] ^ 1])
    for bad in (broken, b"", b"nonsense"):
        with pytest.raises(InvalidArgument):
            proof.key_of_request(bad)
