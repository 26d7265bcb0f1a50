"""`python -m tests.process.weakened DEFENCE ARGS`: this tree without one of its defences against an attacker.

For test_attacks_ablation.py alone: nothing in the product can switch a defence off. Where gRPC's core defends, its
limit is set to none; where a message is read by a decoder that can do no harm, one that can stands in for it.
"""

from __future__ import annotations

import os
import pickle
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from appliance.cli import main

TLS_1_2_CIPHERS: Final = "ECDHE-ECDSA-AES128-GCM-SHA256"

if "speak_tls_1_2" in sys.argv[1:2]:
    main.RESTRICTED_CIPHERS = TLS_1_2_CIPHERS  # type: ignore[misc]
# gRPC reads it when it is imported, which is below: as in `raftberry` itself, from the command on.
os.environ[main.CIPHERS_VARIABLE] = main.RESTRICTED_CIPHERS

# ruff: noqa: E402
import grpc
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance import admission
from appliance.api import access as gate
from appliance.api import server as client_port
from appliance.api.calls import Context, Handler, abort
from appliance.errors import RaftberryError
from appliance.model import MemberId, TlsMaterial
from appliance.node.access import Access, Caller, TokenCaller
from appliance.node.acquaintance import Acquaintances
from appliance.peers import credentials, inbound, lanes, links, wire
from appliance.peers import server as peer_port
from appliance.peers.credentials import PeerCredentials
from appliance.state.access import AccessTable
from appliance.trust import Trust
from tests.simulation.mutation import Patch

HOUR_MS: Final = 3_600_000
UNLIMITED: Final = -1


def _nothing(*_: object, **__: object) -> None:
    """Instead of a check."""


# The peer port --------------------------------------------------------------------------------------------


def ask_peers_for_no_certificate(patch: Patch) -> None:
    create = grpc.dynamic_ssl_server_credentials
    patch.setattr(grpc, "dynamic_ssl_server_credentials", lambda first, fetch, **_: create(first, fetch))
    _change_contexts(patch, verify_mode=ssl.CERT_NONE)
    # Otherwise this node is alone: without certificates its peers are nobody as well.
    believe_who_a_peer_says_it_is(patch)


def believe_who_a_peer_says_it_is(patch: Patch) -> None:
    patch.setattr(PeerCredentials, "check", _nothing)


def welcome_who_was_removed(patch: Patch) -> None:
    patch.setattr(Acquaintances, "check_hello", _nothing)
    patch.setattr(links, "_not_a_member", _nothing)


def give_the_key_to_who_was_removed(patch: Patch) -> None:
    authority_for = Trust.authority_for

    def for_all(trust: Trust, _is_member: object) -> Callable[[MemberId], bytes]:
        return authority_for(trust, lambda _: True)

    patch.setattr(Trust, "authority_for", for_all)


def speak_tls_1_2(_patch: Patch) -> None:
    """At the top: before gRPC is imported."""
    assert os.environ[main.CIPHERS_VARIABLE] == TLS_1_2_CIPHERS


def take_lanes_over_tls_1_2(patch: Patch) -> None:
    _change_contexts(patch, minimum_version=ssl.TLSVersion.TLSv1_2)


def _change_contexts(patch: Patch, **changes: Any) -> None:
    """Of who is dialled without gRPC."""
    make = credentials._context

    def make_weaker(material: TlsMaterial, protocol: int) -> ssl.SSLContext:
        context = make(material, protocol)
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            for name, value in changes.items():
                setattr(context, name, value)
        return context

    patch.setattr(credentials, "_context", make_weaker)


def unpickle_messages(patch: Patch) -> None:
    patch.setattr(lanes, "split_batch", _or_unpickle(wire.split_batch))


def unpickle_frames(patch: Patch) -> None:
    patch.setattr(inbound, "decode_frame", _or_unpickle(wire.decode_frame))


def _or_unpickle(decode: Callable[..., Any]) -> Callable[..., Any]:
    def decode_or_unpickle(data: bytes, **named: Any) -> Any:
        try:
            return decode(data, **named)
        except wire.BadFrame:
            pickle.loads(data)  # noqa: S301 - that is the attack
            raise

    return decode_or_unpickle


# Tokens and joins -----------------------------------------------------------------------------------------


def remember_tokens_for_ever(patch: Patch) -> None:
    authorize = Access.authorize
    known: dict[str | None, Caller] = {}

    def remember(access: Access, authorization: str | None) -> Caller:
        if authorization not in known:
            known[authorization] = authorize(access, authorization)
        return known[authorization]

    patch.setattr(Access, "authorize", remember)


def let_any_token_write_all(patch: Patch) -> None:
    patch.setattr(TokenCaller, "check_write", _nothing)


def let_any_token_operate(patch: Patch) -> None:
    patch.setattr(TokenCaller, "check_operator", _nothing)


def believe_every_claim(patch: Patch) -> None:
    patch.setattr(admission, "check_claim", _nothing)


def use_invites_for_ever(patch: Patch) -> None:
    """Applied on every node: all have to be without it."""
    patch.setattr(AccessTable, "_consume_invite", _nothing)


# Load -----------------------------------------------------------------------------------------------------


def wait_for_handshakes(patch: Patch) -> None:
    _change_options(patch, {"grpc.server_handshake_timeout_ms": HOUR_MS})
    # Of the peer port: as long to say what a connection is.
    patch.setattr(peer_port, "PeerOptions", lambda: wire.PeerOptions(hello_timeout_s=HOUR_MS / 1_000))


def take_messages_of_any_size(patch: Patch) -> None:
    _change_options(patch, {"grpc.max_receive_message_length": UNLIMITED})


def _change_options(patch: Patch, changes: dict[str, int]) -> None:
    """Of both ports."""
    options_of = wire.server_options
    changed = tuple((dict(client_port._OPTIONS) | changes).items())
    patch.setattr(client_port, "_OPTIONS", changed)
    patch.setattr(
        peer_port, "server_options", lambda options: list((dict(options_of(options)) | changes).items())
    )


def read_before_refusing(patch: Patch) -> None:
    def refusal(error: RaftberryError) -> Handler:
        async def refuse(_request: bytes, context: Context) -> None:
            await abort(context, error)

        return grpc.unary_unary_rpc_method_handler(refuse)

    patch.setattr(gate, "_refusal", refusal)


def fail_on_garbage(patch: Patch) -> None:
    """The web port: the one whose parser is not in gRPC's core."""

    def fail(_protocol: H11Protocol, message: str) -> NoReturn:
        raise RuntimeError(message)

    patch.setattr(H11Protocol, "send_400_response", fail)


# Files ----------------------------------------------------------------------------------------------------


def show_files_to_all(patch: Patch) -> None:
    create = os.open

    def create_for_all(path: Any, flags: int, mode: int = 0o777, **named: Any) -> int:
        return create(path, flags, mode | 0o044, **named)

    patch.setattr(os, "open", create_for_all)


def open_the_socket_to_all(patch: Patch) -> None:
    patch.setattr(client_port, "SOCKET_MODE", 0o666)


def run(defence: str, arguments: Sequence[str]) -> int:
    globals()[defence](pytest.MonkeyPatch())
    return main.run(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
