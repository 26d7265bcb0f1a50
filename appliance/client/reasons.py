"""Why no node answers at an endpoint, in words that say what to do: out of what gRPC tells of a failed connection.

Invariant: what is not known here is passed on as gRPC said it. Pure functions.
"""

from __future__ import annotations

from typing import Final

_UNRESOLVED: Final = "the name does not resolve; check its spelling, or give an address"
_OTHER_CLUSTER: Final = (
    "its certificate is not of the CA that --ca or the token names: it is of another cluster"
)
_NO_TLS: Final = (
    "what listens there does not speak TLS: a node's web port, a node without encryption (then leave out --ca and the "
    "token), or another program"
)
_WEB_PORT: Final = "what listens there speaks no gRPC: a node's web port, or another program"
_NO_PLAINTEXT: Final = (
    "what listens there does not speak to us in plaintext: a secured node (give --ca or a token), or another "
    "program"
)
_ENDED: Final = (
    "what listens there ended the encrypted connection: a node's peer port (clients have another, 7440), or another "
    "program"
)

_REASONS: Final = (
    ("Permission denied", "permission denied; be root or in the group raftberry"),
    ("No such file or directory", "there is no such socket; see that the node runs"),
    ("Connection refused", "refused: nothing listens there; see that the node runs"),
    ("No route to host", "no route to this host; check its power, its cable and the network"),
    ("Network is unreachable", "this machine has no network that leads there"),
    ("timed out", "the host does not answer; check its power, its cable and firewalls between"),
    ("errors resolving", _UNRESOLVED),
    ("DNS resolution failed", _UNRESOLVED),
    ("Name or service not known", _UNRESOLVED),
    ("CERTIFICATE_VERIFY_FAILED", _OTHER_CLUSTER),
    ("Hostname Verification", _OTHER_CLUSTER),
    ("WRONG_VERSION_NUMBER", _NO_TLS),
    ("missing selected ALPN", _WEB_PORT),
    ("Failed parsing HTTP/2", _WEB_PORT),
)
"""(what the details hold, what is said); the first that fits."""

_BROKEN: Final = (
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "recvmsg",
    "Endpoint closing",
    "SSL_ERROR",
)


def reason_of(details: str, *, is_encrypted: bool) -> str:
    """details: of a call that ended UNAVAILABLE before it was sent."""
    for part, reason in _REASONS:
        if part in details:
            return reason
    if any(part in details for part in _BROKEN):
        return _ENDED if is_encrypted else _NO_PLAINTEXT
    return details.rpartition("last error: ")[2] or "no connection"
