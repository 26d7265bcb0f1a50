"""Machines of one network finding each other by mDNS, while somebody invites and somebody joins.

Invariant: what is heard is a hint where to knock, and nothing more: the fingerprint in the invite decides who is spoken
to. Runs in the command, not in the node: a service without netlink can't list its interfaces, and nobody listens for
longer than somebody sits there. Blocks.
Source: RFC 6762, RFC 6763.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

SERVICE: Final = "_raftberry._tcp.local."
FINGERPRINT_KEY: Final = "ca"

QUERY_TIMEOUT_MS: Final = 3_000
_PAUSE_S: Final = 0.1


@contextmanager
def advertised(
    name: str, addresses: Sequence[str], port: int, fingerprint: bytes, *, interfaces: Sequence[str] = ()
) -> Iterator[None]:
    """This node's client port, under the cluster's fingerprint, while the body runs."""
    info = ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=port,
        addresses=[socket.inet_aton(address) for address in addresses],
        properties={FINGERPRINT_KEY: fingerprint.hex()},
    )
    zeroconf = _open(interfaces)
    try:
        zeroconf.register_service(info, allow_name_change=True)
        yield
    finally:
        zeroconf.close()


def discover(fingerprint: bytes, *, timeout_s: float, interfaces: Sequence[str] = ()) -> str:
    """HOST:PORT of a node that says it is of that cluster; empty: none within timeout_s."""
    zeroconf = _open(interfaces)
    heard = _Heard()
    try:
        browser = ServiceBrowser(zeroconf, SERVICE, heard)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for name in list(heard.names):
                found = endpoint_of(zeroconf.get_service_info(SERVICE, name, QUERY_TIMEOUT_MS), fingerprint)
                if found:
                    return found
                heard.names.discard(name)
            time.sleep(_PAUSE_S)
        browser.cancel()
        return ""
    finally:
        zeroconf.close()


class _Heard(ServiceListener):
    """Names of services, from zeroconf's own thread."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.add(name)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.add(name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.names.discard(name)


def endpoint_of(info: ServiceInfo | None, fingerprint: bytes) -> str:
    """Of a service of that cluster; empty: it is another's, or says nothing that makes sense."""
    if info is None or info.port is None:
        return ""
    said = info.properties.get(FINGERPRINT_KEY.encode()) or b""
    addresses = info.addresses
    if said.decode("ascii", "replace") != fingerprint.hex() or not addresses:
        return ""
    return f"{socket.inet_ntoa(addresses[0])}:{info.port}"


def _open(interfaces: Sequence[str]) -> Zeroconf:
    return Zeroconf(interfaces=list(interfaces) or InterfaceChoice.All)
