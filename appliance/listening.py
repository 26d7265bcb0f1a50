"""Sockets that listen, one for each address of a host.

Here, because uvloop would start four threads to look a name up, and since gRPC takes no connection from anybody else.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

WILDCARDS: Final = ("0.0.0.0", "::")


def listening_sockets(address: str, *, backlog: int, is_any_family: bool = False) -> list[socket.socket]:
    """HOST:PORT or [HOST]:PORT; port 0: any, the same for all of them. OSError, ValueError.

    Of a machine without IPv6, :: and ::1 are left out. Any other address that is not there, or not yet, is an error.
    is_any_family: 0.0.0.0 and :: both mean all addresses of this machine, of IPv4 and IPv6, as gRPC takes them.
    """
    host, _, port = address.rpartition(":")
    hosts = [host.strip("[]")]
    if is_any_family and hosts[0] in WILDCARDS:
        hosts = list(WILDCARDS)
    places = [
        (item[0], item[4])
        for name in hosts
        for item in socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ]
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, where in dict.fromkeys(places):
        number = listeners[0].getsockname()[1] if listeners else where[1]
        try:
            listeners.append(_listening(family, (where[0], number, *where[2:]), backlog))
        except OSError as error:
            failure = error
            if not _is_without_ipv6(error, str(where[0])):
                break
    else:
        if listeners:
            return listeners
    for listener in listeners:
        listener.close()
    raise failure or OSError(f"{host} has no address")


def _listening(family: socket.AddressFamily, where: tuple[Any, ...], backlog: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _is_without_ipv6(error: OSError, host: str) -> bool:
    return error.errno == errno.EAFNOSUPPORT or (error.errno == errno.EADDRNOTAVAIL and host in ("::", "::1"))
