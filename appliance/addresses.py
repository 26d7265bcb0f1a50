"""Addresses as people write them: HOST:PORT, [IPV6]:PORT, NAME=HOST:PORT. Pure functions."""

from __future__ import annotations

from ipaddress import ip_address

from appliance.errors import ConfigurationError


def split_address(address: str, *, what: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT` or `[IPV6]:PORT`."""
    host, separator, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not separator or not bare or (":" in bare and not is_bracketed):
        raise ConfigurationError(f"{what}: {address!r} is not HOST:PORT, as in 127.0.0.1:7440 or [::1]:7440")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigurationError(f"{what}: port {port!r} of {address!r} is not a number from 1 to 65535")
    return bare, int(port)


def join_address(host: str, port: int) -> str:
    """HOST:PORT, or [IPV6]:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine can reach what listens there. Names other than localhost: no."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_members(text: str) -> dict[str, str]:
    """`NAME=HOST:PORT,NAME=HOST:PORT` as it stands in flags and environment."""
    members: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, separator, address = part.partition("=")
        if not separator or not name or not address:
            raise ValueError(f"{part!r} is not NAME=HOST:PORT")
        if name in members:
            raise ValueError(f"{name} is named twice")
        members[name] = address
    return members
