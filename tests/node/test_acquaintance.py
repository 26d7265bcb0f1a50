"""A peer that comes back with less than it promised, or twice, is told so and refused."""

from __future__ import annotations

from appliance.model import ClusterId, Member, MemberId, PeerMemory
from appliance.node.acquaintance import PROTOCOL, Acquaintances
from appliance.node.contacts import Contacts
from appliance.node.identity import Self
from appliance.state.configuration import founding_configuration
from raftberry.internal.v1 import peer_pb2

ME, PEER, CLUSTER = MemberId(1), MemberId(2), ClusterId(5)
MEMBERS = tuple(Member(member_id, f"node-{member_id}", member_id, "127.0.0.1:1") for member_id in (ME, PEER))
Reason = peer_pb2.Refusal.Reason


def make(memory: PeerMemory | None = None) -> Acquaintances:
    founders = founding_configuration(MEMBERS)
    contacts = Contacts(Self(ME, "node-1", CLUSTER, MEMBERS, 1, "test"), founders, founders)
    return Acquaintances(CLUSTER, ME, contacts.introduce, {PEER: memory} if memory else {})


def hello(
    *,
    boot: int = 1,
    high: int = 10,
    nonce: int = 77,
    cluster: int = CLUSTER,
    member: int = PEER,
    protocol: int = PROTOCOL,
) -> peer_pb2.Frame:
    body = peer_pb2.Hello(
        protocol=protocol, cluster_id=cluster, name="node-2", to_member=ME, boot_nonce=nonce
    )
    return peer_pb2.Frame(from_member=member, boot_count=boot, high_index=high, hello=body)


def reason(people: Acquaintances, frame: peer_pb2.Frame) -> int | None:
    refusal = people.check_hello(frame)
    return None if refusal is None else refusal.reason


def test_a_member_that_has_all_it_promised_is_welcome() -> None:
    people = make(PeerMemory(boot_count=3, high_index=100))
    assert reason(people, hello(boot=4, high=100)) is None
    assert people.memory()[PEER] == PeerMemory(4, 100)


def test_fewer_entries_than_acknowledged_are_amnesia() -> None:
    people = make(PeerMemory(boot_count=3, high_index=100))
    refusal = people.check_hello(hello(boot=4, high=99))
    assert refusal is not None
    assert refusal.reason == Reason.REASON_AMNESIA
    assert "acknowledged up to index 100" in refusal.message
    assert "rebuild it from its peers" in refusal.message
    assert PEER in people.refused


def test_an_earlier_boot_is_amnesia() -> None:
    assert (
        reason(make(PeerMemory(boot_count=3, high_index=100)), hello(boot=2, high=200))
        == Reason.REASON_AMNESIA
    )


def test_what_a_peer_showed_in_frames_is_remembered() -> None:
    people = make()
    assert reason(people, hello(high=10)) is None
    people.saw(peer_pb2.Frame(from_member=PEER, boot_count=1, high_index=500))
    assert people.has_news
    assert reason(people, hello(boot=2, high=400)) == Reason.REASON_AMNESIA


def test_a_hello_that_a_frame_on_another_stream_overtook_is_welcome() -> None:
    people = make()
    assert reason(people, hello(high=10, nonce=1)) is None
    people.saw(peer_pb2.Frame(from_member=PEER, boot_count=1, high_index=500))
    assert reason(people, hello(high=11, nonce=1)) is None


def test_two_processes_with_one_identity_are_found_out() -> None:
    people = make()
    assert reason(people, hello(boot=4, nonce=1)) is None
    assert reason(people, hello(boot=4, nonce=1)) is None
    refusal = people.check_hello(hello(boot=4, nonce=2))
    assert refusal is not None
    assert refusal.reason == Reason.REASON_TWO_HOLDERS
    assert "a copy of the data directory runs as well, or the card lost a boot" in refusal.message


def test_strangers_are_told_why() -> None:
    assert reason(make(), hello(cluster=6)) == Reason.REASON_OTHER_CLUSTER
    assert reason(make(), hello(member=9)) == Reason.REASON_NOT_A_MEMBER
    assert reason(make(), hello(protocol=PROTOCOL + 1)) == Reason.REASON_VERSION
