"""The founding rule, without a network: every case of what founders can say of themselves."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from google.protobuf.message import DecodeError

from appliance.errors import ConfigurationError, DataDirectoryRefused
from appliance.model import ClusterId, Member, MemberId
from appliance.peers.founding import (
    Founder,
    FounderAnswer,
    Founding,
    FoundingDesk,
    decide_founding,
    decode_answer,
    derive_cluster_id,
)
from raftberry.internal.v1 import command_pb2, peer_pb2

ADDRESSES = {"node-1": "pi-1.local:7441", "node-2": "pi-2.local:7441", "node-3": "pi-3.local:7441"}
IDS = {"node-1": MemberId(0x11), "node-2": MemberId(0x22), "node-3": MemberId(0x33)}
CLUSTER = derive_cluster_id(IDS)
MEMBERS = tuple(
    Member(IDS[name], name, number, ADDRESSES[name]) for number, name in enumerate(sorted(IDS), start=1)
)


def founder(name: str) -> Founder:
    return Founder(name=name, member_id=IDS[name], addresses=ADDRESSES)


def answer(name: str) -> FounderAnswer:
    return FounderAnswer(name=name, member_id=IDS[name], founders=tuple(sorted(ADDRESSES)))


def joined(name: str, knows: int) -> FounderAnswer:
    known = MemberId(knows)
    return dataclasses.replace(answer(name), cluster_id=CLUSTER, known_member_id=known, members=MEMBERS)


def decide(name: str, *answers: FounderAnswer) -> Founding | None:
    return decide_founding(founder(name), {one.name: one for one in answers})


def test_every_founder_decides_the_same_cluster() -> None:
    decisions = {decide(name, *(answer(other) for other in ADDRESSES if other != name)) for name in ADDRESSES}
    assert decisions == {Founding(CLUSTER, MEMBERS)}


def test_nothing_is_decided_while_a_founder_has_not_answered() -> None:
    assert decide("node-1", answer("node-2")) is None
    assert decide("node-1") is None


def test_a_cluster_of_one_founds_itself() -> None:
    own = Founder(name="pi", member_id=MemberId(7), addresses={"pi": "pi.local:7441"})
    founding = decide_founding(own, {})
    assert founding is not None
    assert founding.members == (Member(MemberId(7), "pi", 1, "pi.local:7441"),)


def test_the_cluster_id_has_golden_bytes() -> None:
    assert f"{CLUSTER:016x}" == "7ca3c5c8f2f8fe90"


def test_the_cluster_id_changes_with_a_name_or_an_id() -> None:
    assert derive_cluster_id({**IDS, "node-3": MemberId(0x34)}) != CLUSTER
    assert (
        derive_cluster_id({"node-1": IDS["node-1"], "node-2": IDS["node-2"], "node-4": MemberId(0x33)})
        != CLUSTER
    )


def test_a_node_that_crashed_before_it_was_durable_takes_the_cluster_from_one_peer() -> None:
    assert decide("node-2", joined("node-1", 0x22)) == Founding(CLUSTER, MEMBERS)


def test_a_node_whose_directory_was_wiped_is_refused_and_told_what_to_do() -> None:
    with pytest.raises(DataDirectoryRefused) as caught:
        decide("node-2", joined("node-1", 0x99), answer("node-3"))
    text = str(caught.value)
    assert f"node-1 knows the cluster {CLUSTER:016x} with node-2 as 0000000000000099" in text
    assert "lost its data" in text
    assert "It does not vote" in text
    assert "remove node-2 from the cluster and add it again" in text


def test_one_peer_that_knows_another_id_outweighs_one_that_knows_ours() -> None:
    with pytest.raises(DataDirectoryRefused, match="lost its data"):
        decide("node-2", joined("node-1", 0x22), joined("node-3", 0x99))


def test_a_node_unknown_to_the_cluster_is_refused() -> None:
    with pytest.raises(DataDirectoryRefused, match="has no member node-2: a node is not added by"):
        decide("node-2", joined("node-1", 0))


def test_peers_of_two_clusters_are_refused() -> None:
    other = dataclasses.replace(joined("node-3", 0x22), cluster_id=ClusterId(5))
    with pytest.raises(DataDirectoryRefused, match="different clusters"):
        decide("node-2", joined("node-1", 0x22), other)


def test_other_initial_members_are_named() -> None:
    other = dataclasses.replace(answer("node-2"), founders=("node-1", "node-2", "node-4"))
    with pytest.raises(ConfigurationError, match="only here: node-3; only there: node-4"):
        decide("node-1", other)


def test_an_address_of_another_node_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"at pi-2\.local:7441 answers node-3, not node-2"):
        decide_founding(founder("node-1"), {"node-2": answer("node-3")})


def test_a_copied_data_directory_is_refused() -> None:
    copy = dataclasses.replace(answer("node-3"), member_id=IDS["node-2"])
    with pytest.raises(DataDirectoryRefused, match="node-2 and node-3 have the same member id"):
        decide("node-1", answer("node-2"), copy)


def test_a_name_outside_the_initial_members_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"this node is node-9, but .* node-1, node-2, node-3"):
        Founder(name="node-9", member_id=MemberId(1), addresses=ADDRESSES)


def test_the_desk_names_the_cluster_and_whom_it_knows_once_joined() -> None:
    desk = FoundingDesk("node-1", IDS["node-1"], list(ADDRESSES))
    request = FoundingDesk("node-2", IDS["node-2"], list(ADDRESSES)).request()
    assert decode_answer(desk.answer(request)) == answer("node-1")
    desk.joined(CLUSTER, MEMBERS)
    assert decode_answer(desk.answer(request)) == joined("node-1", 0x22)


def test_the_desk_reports_a_wiped_node_once(caplog: pytest.LogCaptureFixture) -> None:
    desk = FoundingDesk("node-1", IDS["node-1"], list(ADDRESSES))
    desk.joined(CLUSTER, MEMBERS)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            desk.answer(peer_pb2.FoundRequest(name="node-2", member_id=0x99))
    assert [record.getMessage() for record in caplog.records] == [
        "a node asks to found that the cluster knows by another id, it lost its data: "
        "peer=node-2 member=0000000000000099 known=0000000000000022"
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        peer_pb2.FoundResponse(name="b"),
        peer_pb2.FoundResponse(name="b", member_id=2, members=[command_pb2.Member(name="a")]),
        peer_pb2.FoundResponse(name="b", member_id=2, members=[command_pb2.Member(member_id=1)]),
        peer_pb2.FoundResponse(
            name="b", member_id=2, members=[command_pb2.Member(member_id=1, name="a")] * 2
        ),
        peer_pb2.FoundResponse(name="b", member_id=2, cluster_id=5, known_member_id=1),
    ],
    ids=["no id", "a member without id", "a member without name", "a member twice", "the asker is missing"],
)
def test_an_answer_that_no_node_gives_is_none(wrong: peer_pb2.FoundResponse) -> None:
    with pytest.raises(DecodeError):
        decode_answer(wrong)
