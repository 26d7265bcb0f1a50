"""Sockets that listen, one for each address of a host.

Here, because uvloop would start four threads to look a name up, and since gRPC takes no connection from anybody else.
"""

from __future__ import annotations

import socket
from typing import Final

WILDCARDS: Final = ("0.0.0.0", "::")


def listening_sockets(address: str, *, backlog: int, is_any_family: bool = False) -> list[socket.socket]:
    """HOST:PORT or [HOST]:PORT; port 0: any, the same for all of them. OSError, ValueError.

    is_any_family: 0.0.0.0 and :: both mean all addresses of this machine, of IPv4 and IPv6, as gRPC takes them.
    """
    host, _, port = address.rpartition(":")
    hosts = [host.strip("[]")]
    if is_any_family and hosts[0] in WILDCARDS:
        hosts = list(WILDCARDS)
    listeners: list[socket.socket] = []
    try:
        for name in hosts:
            number = listeners[0].getsockname()[1] if listeners else int(port)
            found = socket.getaddrinfo(name, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, where in found:
                if family == socket.AF_INET6 and listeners and not has_ipv6():
                    continue
                listener = socket.socket(family, kind, protocol)
                listeners.append(listener)
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(where)
                listener.listen(backlog)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def has_ipv6() -> bool:
    """Whether this system speaks it: some kernels are started without."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
