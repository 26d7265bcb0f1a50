"""The relay between the nodes of a drill, on real sockets: what a cut holds, what a mended link gives back."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from appliance.addresses import split_address
from appliance.host.relay import Relay, holds_port

PATIENCE_S = 60.0
SILENCE_S = 0.3
"""How long nothing must come through a cut link; a slow machine can only make that easier to pass."""


@pytest.fixture
def echo() -> Iterator[int]:
    """A port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()
            except OSError:
                return

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(4096):
                        connection.sendall(data)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Whoever dials is `one`."""
    made = Relay(lambda port: "one" if holds_port(os.getpid(), port) else "")
    yield made
    made.close()


def dial(relay: Relay, port: int) -> socket.socket:
    host, at = split_address(relay.listen("other", port), what="relay")
    return socket.create_connection((host, at), timeout=PATIENCE_S)


def test_a_cut_link_holds_the_bytes_and_a_mended_one_delivers_them(relay: Relay, echo: int) -> None:
    with dial(relay, echo) as client:
        client.sendall(b"before")
        assert client.recv(6) == b"before"
        relay.link("other", "one").is_cut = True
        client.sendall(b"during")
        client.settimeout(SILENCE_S)
        with pytest.raises(TimeoutError):
            client.recv(6)
        relay.mend()
        client.settimeout(PATIENCE_S)
        assert client.recv(6) == b"during"


def test_a_cut_between_others_leaves_a_link_alone(relay: Relay, echo: int) -> None:
    relay.link("other", "third").is_cut = True
    with dial(relay, echo) as client:
        client.sendall(b"through")
        assert client.recv(7) == b"through"


def test_a_target_that_is_not_there_ends_the_connection(relay: Relay) -> None:
    with socket.socket() as taken:
        # Bound, so that nobody else gets the port, and not listening, so that it refuses.
        taken.bind(("127.0.0.1", 0))
        client = dial(relay, taken.getsockname()[1])
        with client:
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                # An abort is an end as well.
                pass
