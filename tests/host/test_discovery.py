"""What is made of what mDNS says; no network: the answers are built here."""

from __future__ import annotations

import socket

import pytest
from zeroconf import ServiceInfo

from appliance.host.discovery import SERVICE, endpoint_of

FINGERPRINT = b"\x01" * 16


def said(
    properties: dict[str, str], addresses: tuple[str, ...] = ("10.0.0.7",), port: int = 7440
) -> ServiceInfo:
    packed = [socket.inet_aton(address) for address in addresses]
    return ServiceInfo(SERVICE, f"pi-1.{SERVICE}", port=port, addresses=packed, properties=properties)


def test_a_node_of_the_cluster_that_was_meant_is_found() -> None:
    assert endpoint_of(said({"ca": FINGERPRINT.hex()}), FINGERPRINT) == "10.0.0.7:7440"


@pytest.mark.parametrize(
    "info",
    [
        None,
        said({"ca": "02" * 16}),
        said({}),
        said({"ca": ""}),
        said({"ca": "\u00e9"}),
        said({"ca": FINGERPRINT.hex()}, addresses=()),
    ],
)
def test_another_cluster_or_nonsense_is_passed_over(info: ServiceInfo | None) -> None:
    assert endpoint_of(info, FINGERPRINT) == ""
