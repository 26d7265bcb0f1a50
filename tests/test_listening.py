"""Sockets that listen: every address of a host that this machine has, once, on one port."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from appliance import listening
from appliance.listening import listening_sockets

Place = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


def host_with(patch: pytest.MonkeyPatch, *addresses: str, port: int = 0) -> None:
    found: list[Place] = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
    ]
    patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def ports(listeners: list[socket.socket]) -> list[tuple[str, int]]:
    names = [listener.getsockname()[:2] for listener in listeners]
    for listener in listeners:
        listener.close()
    return names


def test_all_addresses_of_a_host_have_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    host_with(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")
    (first, port), second = ports(listening_sockets("pi:0", backlog=5))
    assert (first, second) == ("127.0.0.1", ("127.0.0.2", port))


def test_an_address_that_is_not_there_yet_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host_with(monkeypatch, "127.0.0.1", "192.0.2.1")
    with pytest.raises(OSError) as failed:
        listening_sockets("pi:0", backlog=5)
    assert failed.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_machine_without_ipv6_listens_where_it_can(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    listen = listening._listening

    def without_ipv6(family: socket.AddressFamily, where: tuple[Any, ...], backlog: int) -> socket.socket:
        if family is socket.AF_INET6:
            raise OSError(code, "no IPv6")
        return listen(family, where, backlog)

    monkeypatch.setattr(listening, "_listening", without_ipv6)
    for address in ("0.0.0.0:0", "[::]:0"):
        assert [name for name, _ in ports(listening_sockets(address, backlog=5, is_any_family=True))] == [
            "0.0.0.0"
        ]
    with pytest.raises(OSError, match="no IPv6"):
        listening_sockets("[::1]:0", backlog=5)


def test_a_port_in_use_is_an_error_on_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        host_with(monkeypatch, "127.0.0.1", "127.0.0.2", port=taken.getsockname()[1])
        with pytest.raises(OSError) as failed:
            listening_sockets("pi:1", backlog=5)
        assert failed.value.errno == errno.EADDRINUSE
