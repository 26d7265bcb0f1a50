"""Sockets that listen: every address of a host that this machine has, once, on one port."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from appliance.listening import listening_sockets

Place = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


def host_with(patch: pytest.MonkeyPatch, *addresses: str) -> None:
    found: list[Place] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
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


def test_an_address_that_is_not_of_this_machine_is_left_out_if_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host_with(monkeypatch, "192.0.2.1", "127.0.0.1")
    assert [name for name, _ in ports(listening_sockets("pi:0", backlog=5))] == ["127.0.0.1"]
    host_with(monkeypatch, "192.0.2.1")
    with pytest.raises(OSError) as failed:
        listening_sockets("pi:0", backlog=5)
    assert failed.value.errno == errno.EADDRNOTAVAIL


def test_a_port_in_use_is_an_error_on_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        host_with(monkeypatch, "127.0.0.1", "127.0.0.2")
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda *_, **__: [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, taken.getsockname()[1]))
                for address in ("127.0.0.1", "127.0.0.2")
            ],
        )
        with pytest.raises(OSError) as failed:
            listening_sockets("pi:1", backlog=5)
        assert failed.value.errno == errno.EADDRINUSE
