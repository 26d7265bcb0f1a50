"""What this machine says of itself, and what it tells systemd."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.host import machine, notify
from appliance.host.machine import board_serial, machine_id, primary_address
from appliance.host.notify import Notifier, from_environment
from appliance.host.sensors import read_sensors


def make_root(root: Path, *, machine: str = "", serial: str = "") -> Path:
    (root / "etc").mkdir(parents=True)
    (root / "proc/device-tree").mkdir(parents=True)
    if machine:
        (root / "etc/machine-id").write_text(f"{machine}\n")
    if serial:
        (root / "proc/device-tree/serial-number").write_bytes(serial.encode() + b"\0")
    return root


def test_the_same_card_in_another_board_is_another_machine(tmp_path: Path) -> None:
    one = make_root(tmp_path / "one", machine="abc", serial="10000000aaaa")
    other = make_root(tmp_path / "other", machine="abc", serial="10000000bbbb")
    assert machine_id(one) == machine_id(one) != machine_id(other)
    assert board_serial(one) == "10000000aaaa"
    assert len(machine_id(one)) == 32


class NoWayOut(socket.socket):
    """A socket of a machine without a gateway."""

    def connect(self, address: object) -> None:
        raise OSError(101, "Network is unreachable")


def test_an_island_without_a_gateway_has_the_address_of_its_first_interface(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [("wlan0", "10.9.8.7"), ("lo", "127.0.0.1"), ("eth0", "192.168.1.9")]
    monkeypatch.setattr(machine.socket, "socket", NoWayOut)
    monkeypatch.setattr(machine, "_interfaces", lambda probe: found)
    assert primary_address() == "192.168.1.9"
    found[:] = [("lo", "127.0.0.1")]
    assert primary_address() == ""


def test_the_kernel_names_its_interfaces() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        assert ("lo", "127.0.0.1") in machine._interfaces(probe)


def test_a_machine_without_identity_has_an_empty_one(tmp_path: Path) -> None:
    assert machine_id(make_root(tmp_path / "a")) == ""
    assert machine_id(make_root(tmp_path / "b", machine="uninitialized")) == ""


def test_the_machine_id_itself_is_not_shown(tmp_path: Path) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    assert secret not in machine_id(make_root(tmp_path / "a", machine=secret))


def test_sensors_are_finite_numbers_under_plain_names() -> None:
    values = read_sensors()
    assert {
        "load_1m",
        "memory_used_percent",
        "disk_used_percent",
        "network_sent_bytes_total",
    } <= values.keys()
    assert all(type(value) is float and math.isfinite(value) for value in values.values())


def test_without_systemd_the_notifier_does_nothing_and_says_why() -> None:
    notifier = from_environment({})
    notifier.ready("serving")
    assert not notifier.is_active
    assert notifier.reason == "NOTIFY_SOCKET is not set: not started by systemd"


def test_notices_reach_a_real_socket(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own,
    ):
        service_manager.bind(address)
        own.connect(address)
        notifier = Notifier(lambda state: own.send(state.encode()))
        notifier.ready("follower of node-1")
        notifier.alive()
        notifier.stopping("handing over")
        received = [service_manager.recv(1_000).decode() for _ in range(3)]
    assert received == ["READY=1\nSTATUS=follower of node-1", "WATCHDOG=1", "STOPPING=1\nSTATUS=handing over"]


def test_a_notice_that_fails_does_not_fail_the_node() -> None:
    def send(state: str) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    notifier = Notifier(send)
    notifier.ready("serving")
    assert "Connection refused" in notifier.reason


def test_the_bindings_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": "30000000"}
    monkeypatch.setattr(notify, "daemon", None)
    assert from_environment(environment).reason == "systemd-python is not installed"
    monkeypatch.setattr(notify, "daemon", SimpleNamespace(notify=print))
    assert from_environment(environment).watchdog_us == 30_000_000
