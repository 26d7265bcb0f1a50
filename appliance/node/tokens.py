"""The text of tokens and invites: what a person copies, what a client sends.

    token   rbt1_ and base64url of 16 bytes of the CA's fingerprint (0: plaintext cluster), 32 random bytes
    invite  rbj1_ and base64url of 16 bytes of the CA's fingerprint, the 32-byte seed of an Ed25519 key

Invariant: both are 69 characters of one shell word, so what was cut short is noticed before it is used. The
fingerprint is the front of a SHA-256: who has the text knows the cluster when it meets it.
Pure functions. Wire format: golden texts are in the tests.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from appliance.errors import InvalidArgument

TOKEN_PREFIX: Final = "rbt1_"
INVITE_PREFIX: Final = "rbj1_"
FINGERPRINT_BYTES: Final = 16
SECRET_BYTES: Final = 32
NO_FINGERPRINT: Final = bytes(FINGERPRINT_BYTES)

_TEXT_LENGTH: Final = len(TOKEN_PREFIX) + (FINGERPRINT_BYTES + SECRET_BYTES) * 4 // 3


@dataclass(frozen=True, slots=True)
class Secret:
    """What a token or an invite holds. Its repr does not show the secret."""

    fingerprint: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Secret({self.fingerprint.hex()})"


def fingerprint_of(authority_der: bytes) -> bytes:
    """How tokens and invites name the cluster's CA."""
    return hashlib.sha256(authority_der).digest()[:FINGERPRINT_BYTES]


def format_token(secret: Secret) -> str:
    return _format(TOKEN_PREFIX, secret)


def format_invite(secret: Secret) -> str:
    return _format(INVITE_PREFIX, secret)


def parse_token(text: str) -> Secret:
    """InvalidArgument says what is wrong, without the text."""
    return _parse("token", TOKEN_PREFIX, text)


def parse_invite(text: str) -> Secret:
    """InvalidArgument says what is wrong, without the text."""
    return _parse("invite", INVITE_PREFIX, text)


def hash_token(text: str) -> bytes:
    """What the cluster stores. The text holds 32 random bytes: there is nothing to guess, so no slow hash."""
    return hashlib.sha256(text.encode()).digest()


def _format(prefix: str, secret: Secret) -> str:
    assert len(secret.fingerprint) == FINGERPRINT_BYTES
    assert len(secret.secret) == SECRET_BYTES
    return prefix + base64.urlsafe_b64encode(secret.fingerprint + secret.secret).decode()


def _parse(what: str, prefix: str, text: str) -> Secret:
    if not text.startswith(prefix) or len(text) != _TEXT_LENGTH:
        raise InvalidArgument(
            what,
            f"{len(text)} characters; it begins with {prefix} and has {_TEXT_LENGTH}: copy the whole line again",
        )
    try:
        content = base64.b64decode(text.removeprefix(prefix), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(what, "a character in it is none of ours: copy the whole line again") from error
    return Secret(content[:FINGERPRINT_BYTES], content[FINGERPRINT_BYTES:])
