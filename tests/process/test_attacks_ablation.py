"""One defence out, and the attack that it stops succeeds: the attack's own test fails, at the check that is named here.

Most run against three nodes of which the first, which is attacked, was restarted as weakened.py; a test that fails at
another line proves nothing. `script/test-attacks` runs all of them; `script/test` those that are cheap.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest

from appliance.client import authority, joining
from raftberry.internal.v1 import peer_pb2
from raftberry.v1 import join_pb2
from tests.process import test_attacks as attacks
from tests.process import test_attacks_lanes as lanes
from tests.process import weakened
from tests.process.nodes import READY_TIMEOUT_S, Program, wait_for
from tests.process.secured import SecuredCluster, SecuredNode, token_of
from tests.simulation.mutation import Patch

WAIT_S = 7.0
"""For what never comes without the defence; with it, it comes within 5 s."""

IS_COMPLETE = "RAFTBERRY_ATTACKS_COMPLETE" in os.environ

_numbers = count()

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Case:
    """seen: stands in the statement of the attack that fails. own_nodes: weak ones, in a cluster of their own."""

    attack: Callable[..., None]
    ablate: Callable[[Patch], None]
    seen: str
    own_nodes: int = 0
    is_in_sample: bool = False

    @property
    def name(self) -> str:
        return f"{self.attack.__name__.removeprefix('test_')}-{self.ablate.__name__}"


def trust_every_fingerprint(patch: Patch) -> None:
    """Of the client: whatever CA is shown is the one that was meant."""

    fetch = authority.fetch_authority
    patch.setattr(attacks, "fetch_authority", lambda address, _fingerprint: fetch(address, mock.ANY))


def trust_every_certificate(patch: Patch) -> None:
    """Of the client: whatever certificate is shown is of the CA."""
    join = joining.join

    def join_anybody(address: str, _pem: bytes, request: join_pb2.JoinRequest) -> join_pb2.JoinResponse:
        return join(address, authority._shown_certificate(address).encode(), request)

    patch.setattr(joining, "join", join_anybody)


PORT_CASES = (
    Case(
        attacks.test_without_a_certificate_the_peer_port_says_nothing,
        weakened.ask_peers_for_no_certificate,
        "assert (code, response) ==",
    ),
    Case(
        attacks.test_a_certificate_of_another_ca_is_refused,
        weakened.ask_peers_for_no_certificate,
        "assert exchange_code(",
    ),
    Case(
        attacks.test_an_expired_certificate_is_refused,
        weakened.ask_peers_for_no_certificate,
        "assert exchange_code(",
    ),
    Case(
        attacks.test_a_certificate_that_is_no_members_is_refused_on_the_peer_port,
        weakened.believe_who_a_peer_says_it_is,
        "assert exchange_code(",
    ),
    Case(
        attacks.test_a_member_cannot_speak_in_the_name_of_another,
        weakened.believe_who_a_peer_says_it_is,
        "assert code ==",
    ),
    Case(
        attacks.test_a_removed_member_that_comes_back_is_refused_and_given_no_key,
        weakened.welcome_who_was_removed,
        "assert refusal.reason in",
    ),
    Case(
        attacks.test_a_removed_member_that_comes_back_is_refused_and_given_no_key,
        weakened.give_the_key_to_who_was_removed,
        "assert denied is",
    ),
    Case(
        attacks.test_tls_below_1_3_is_refused_on_both_ports, weakened.speak_tls_1_2, "assert not is_refused"
    ),
    Case(
        attacks.test_a_pickle_on_the_peer_port_is_never_loaded,
        weakened.unpickle_messages,
        "assert not marker.exists()",
        is_in_sample=True,
    ),
    Case(
        attacks.test_a_pickle_on_the_peer_port_is_never_loaded,
        weakened.unpickle_frames,
        "assert not marker.exists()",
    ),
    Case(
        attacks.test_a_stolen_token_is_worth_nothing_once_it_is_revoked,
        weakened.remember_tokens_for_ever,
        "the revocation on",
    ),
    Case(
        attacks.test_a_token_does_nothing_outside_its_scope,
        weakened.let_any_token_write_all,
        "assert write_with(",
    ),
    Case(
        attacks.test_a_token_does_nothing_outside_its_scope,
        weakened.let_any_token_operate,
        "assert {code_of(call)",
        own_nodes=1,
    ),
    Case(
        attacks.test_a_replayed_or_changed_join_is_refused_by_every_node,
        weakened.believe_every_claim,
        'match="proof"',
    ),
    Case(
        attacks.test_a_replayed_or_changed_join_is_refused_by_every_node,
        weakened.use_invites_for_ever,
        'match="used up"',
        own_nodes=2,
    ),
    Case(
        attacks.test_thousands_of_idle_connections_are_closed_and_hold_up_no_write,
        weakened.wait_for_handshakes,
        "idle connections to be closed",
    ),
    Case(
        attacks.test_a_byte_a_second_is_no_way_to_hold_a_connection,
        weakened.wait_for_handshakes,
        "slow connections to be closed",
        is_in_sample=True,
    ),
    Case(
        attacks.test_a_message_of_100_mb_is_refused_and_one_without_a_token_is_not_even_read,
        weakened.take_messages_of_any_size,
        "assert with_token is",
        is_in_sample=True,
    ),
    Case(
        attacks.test_a_message_of_100_mb_is_refused_and_one_without_a_token_is_not_even_read,
        weakened.read_before_refusing,
        "assert (without, small) ==",
    ),
    Case(
        attacks.test_garbage_on_each_port_ends_the_connection_and_nothing_else,
        weakened.fail_on_garbage,
        'assert " ERROR " not in said',
        is_in_sample=True,
    ),
    Case(
        attacks.test_keys_of_a_node_are_readable_for_its_owner_alone,
        weakened.show_files_to_all,
        "assert {file.stat()",
        own_nodes=1,
    ),
    Case(
        attacks.test_keys_of_a_node_are_readable_for_its_owner_alone,
        weakened.open_the_socket_to_all,
        "assert Path(node.socket",
    ),
)
LANE_CASES = (
    Case(
        lanes.test_without_a_certificate_a_lane_says_nothing,
        weakened.ask_peers_for_no_certificate,
        "assert not said",
    ),
    Case(
        lanes.test_a_certificate_of_another_ca_opens_no_lane,
        weakened.ask_peers_for_no_certificate,
        "assert not answers(",
    ),
    Case(
        lanes.test_an_expired_certificate_opens_no_lane,
        weakened.ask_peers_for_no_certificate,
        "assert not answers(",
    ),
    Case(
        lanes.test_a_certificate_that_is_no_members_opens_no_lane,
        weakened.believe_who_a_peer_says_it_is,
        "assert is_refused(",
    ),
    Case(
        lanes.test_a_member_opens_no_lane_in_the_name_of_another,
        weakened.believe_who_a_peer_says_it_is,
        "assert is_refused(",
        is_in_sample=True,
    ),
    Case(lanes.test_tls_below_1_3_opens_no_lane, weakened.take_lanes_over_tls_1_2, "assert not answers("),
    Case(
        lanes.test_a_pickle_in_a_lane_is_never_loaded,
        weakened.unpickle_frames,
        "assert not marker.exists()",
    ),
    Case(
        lanes.test_a_byte_a_second_is_no_way_to_hold_a_lane,
        weakened.wait_for_handshakes,
        "slow lanes to be closed",
    ),
)
CASES = (*PORT_CASES, *LANE_CASES)
SAMPLE = [case for case in CASES if case.is_in_sample]
"""Half a minute: what stops bytes that nobody should read."""

CLIENT_CASES = (
    Case(
        attacks.test_somebody_in_the_middle_is_noticed_by_the_fingerprint,
        trust_every_fingerprint,
        "assert authority_pem == real_pem",
    ),
    Case(
        attacks.test_somebody_in_the_middle_is_noticed_by_the_fingerprint,
        trust_every_certificate,
        "with pytest.raises(RaftberryError)",
    ),
)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    with SecuredCluster(tmp_path_factory.mktemp("weakened")) as cluster:
        cluster.form()
        yield cluster


@pytest.mark.parametrize("case", CASES if IS_COMPLETE else SAMPLE, ids=lambda case: case.name)
def test_an_attack_succeeds_where_its_defence_is_out(
    case: Case, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if case.own_nodes:
        with SecuredCluster(tmp_path / "own", size=case.own_nodes) as cluster:
            for node in cluster.nodes:
                node.program = without(case.ablate)
            cluster.form()
            expect_success(case, cluster, monkeypatch, tmp_path)
        return
    cluster = request.getfixturevalue("three")
    restart(cluster.nodes[0], without(case.ablate))
    expect_success(case, cluster, monkeypatch, tmp_path)


@pytest.mark.parametrize("case", CLIENT_CASES, ids=lambda case: case.name)
def test_somebody_in_the_middle_succeeds_where_the_client_checks_nothing(
    case: Case, three: SecuredCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case.ablate(monkeypatch)
    expect_success(case, three, monkeypatch, tmp_path)


def without(ablate: Callable[[Patch], None]) -> Program:
    name = ablate.__name__
    return Program(name=name, command=(sys.executable, "-m", "tests.process.weakened", name))


def restart(node: SecuredNode, program: Program) -> None:
    # It may have been brought down.
    node.kill()
    node.program = program
    node.start()
    node.wait_serving()


def expect_success(case: Case, cluster: SecuredCluster, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the attack: its test fails where the case says."""
    patch.setattr(attacks, "wait_for", patience_for(case))
    patch.setattr(attacks, "hello_of", harmless(attacks.hello_of))
    patch.setattr(attacks, "CONNECTIONS", 100)
    given = {
        "cluster": cluster,
        "meanwhile": Nobody(),
        "tmp_path": tmp_path,
        "writer_token": token_of(cluster.nodes[0], f"writer-{next(_numbers)}", "--write", "meanwhile/*"),
    }
    wanted = inspect.signature(case.attack).parameters
    with pytest.raises((AssertionError, pytest.fail.Exception)) as failed:
        case.attack(**{name: given[name] for name in wanted})
    frame = next(one for one in failed.traceback if one.name == case.attack.__name__)
    assert case.seen in str(frame.statement), failed.getrepr()


class Nobody:
    """In the place of the writers: whether others are served is no matter here."""

    def await_more(self, what: str) -> None: ...


def patience_for(case: Case) -> Callable[..., Any]:
    def wait(what: str, probe: Callable[[], Value | None], *, timeout_s: float = READY_TIMEOUT_S) -> Value:
        return wait_for(what, probe, timeout_s=WAIT_S if case.seen in what else timeout_s)

    return wait


def harmless(hello_of: Callable[..., bytes]) -> Callable[..., bytes]:
    """The same with a boot count that is no news: a node that believes the other shuts the real member out."""

    def make(*arguments: object) -> bytes:
        batch = peer_pb2.FrameBatch.FromString(hello_of(*arguments))
        frame = peer_pb2.Frame.FromString(batch.frames[0])
        frame.boot_count = frame.high_index = 0
        return peer_pb2.FrameBatch(frames=[frame.SerializeToString()]).SerializeToString()

    return make
