"""Key-values, cluster, maintenance, api.v1, health and reflection as a client sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from api.v1 import key_value_pb2 as sample_pb2
from api.v1 import raft_pb2
from appliance.api.calls import ANSWER_NS, UNARY_DEADLINE_DEFAULT_NS
from appliance.api.key_value import key_messages
from appliance.api.port import AppliedEffects
from appliance.api.server import ClientServer
from appliance.api.watching import KeyFilter
from appliance.errors import ConfigurationError, NoLeader, OutcomeUnknown
from appliance.model import MemberId
from appliance.state import EntryEffects, KeyEvent, KeyEventKind, KeyRecord
from appliance.state.membership import AddLearner, PromoteMember, RemoveMember, UpdateMember
from raftberry.v1 import cluster_pb2, key_value_pb2, maintenance_pb2, reading_pb2
from tests.api.fake_node import Backup, Effects, Event, Events, FakeNode, Outcome
from tests.api.harness import Api, reason_of

KEYS = "raftberry.v1.KeyValueService"
CLUSTER = "raftberry.v1.ClusterService"


async def test_put_and_delete_carry_condition_producer_and_outcome(api: Api) -> None:
    api.node.outcomes = [Outcome(mod_revision=9), Outcome(deleted=True)]
    request = key_value_pb2.PutRequest(
        key="k", value=b"v", if_mod_revision=0, ttl_seconds=5, producer_id="p", sequence=2
    )
    put = await api.call(f"{KEYS}/Put", request, key_value_pb2.PutResponse)
    assert (put.index, put.mod_revision) == (7, 9)
    deleted = await api.call(
        f"{KEYS}/Delete", key_value_pb2.DeleteRequest(key="k"), key_value_pb2.DeleteResponse
    )
    assert deleted.deleted
    first, second = api.node.operations
    assert first.put.HasField("if_mod_revision")
    assert (first.put.ttl_seconds, first.producer_id, first.sequence) == (5, "p", 2)
    assert not second.delete.HasField("if_mod_revision")


async def test_get_finds_or_says_not_found(api: Api) -> None:
    api.node.state.records["k"] = KeyRecord("k", b"v", 1, 2, 3, 60)
    got = await api.call(f"{KEYS}/Get", key_value_pb2.GetRequest(key="k"), key_value_pb2.GetResponse)
    record = got.key_value
    assert (record.value, record.create_revision, record.mod_revision, record.version) == (b"v", 1, 2, 3)
    assert record.ttl_seconds == 60
    with pytest.raises(aio.AioRpcError) as caught:
        await api.call(f"{KEYS}/Get", key_value_pb2.GetRequest(key="x"), key_value_pb2.GetResponse)
    assert caught.value.code() is StatusCode.NOT_FOUND
    assert reason_of(caught.value)[0] == "NOT_FOUND"


async def test_list_comes_in_messages_of_bounded_size(api: Api) -> None:
    for n in range(10):
        api.node.state.records[f"k{n}"] = KeyRecord(f"k{n}", bytes(200_000), 1, 1, 1)
    responses = await api.collect(
        f"{KEYS}/List", key_value_pb2.ListRequest(prefix="k"), key_value_pb2.ListResponse
    )
    assert len(responses) == 2
    keys = [record.key for response in responses for record in response.key_values]
    assert keys == [f"k{n}" for n in range(10)]
    (empty,) = await api.collect(
        f"{KEYS}/List", key_value_pb2.ListRequest(prefix="x"), key_value_pb2.ListResponse
    )
    assert empty.index == 7


async def test_a_key_watch_tells_puts_deletes_and_expiries(api: Api) -> None:
    events = (
        KeyEvent(KeyEventKind.PUT, "a/1", 4, b"v", 4, 1),
        KeyEvent(KeyEventKind.PUT, "b", 5, b"v", 5, 1),
        KeyEvent(KeyEventKind.DELETE, "a/1", 6),
        KeyEvent(KeyEventKind.EXPIRE, "a/2", 7),
    )
    api.node.entries = [Effects(8, EntryEffects(key_events=events))]
    request = key_value_pb2.KeyValueServiceWatchRequest(key="a/", is_prefix=True, after_index=7)
    call = api.stream(f"{KEYS}/Watch", request, key_value_pb2.KeyValueServiceWatchResponse)
    response = await call.read()
    assert response.index == 8
    assert [(event.kind, event.key_value.key) for event in response.events] == [
        (1, "a/1"),
        (2, "a/1"),
        (3, "a/2"),
    ]
    call.cancel()


async def test_status_has_every_field(api: Api) -> None:
    status = await api.call(
        f"{CLUSTER}/GetStatus", cluster_pb2.GetStatusRequest(), cluster_pb2.GetStatusResponse
    )
    unset = {field.name for field in status.DESCRIPTOR.fields} - {
        field.name for field, _ in status.ListFields()
    }
    assert not unset
    assert status.role == cluster_pb2.ROLE_LEADER
    assert not status.peers[0].HasField("heard_ms_ago")


async def test_members_are_the_replicated_ones_with_what_is_seen_of_them(api: Api) -> None:
    response = await api.call(
        f"{CLUSTER}/ListMembers", cluster_pb2.ListMembersRequest(), cluster_pb2.ListMembersResponse
    )
    own, other = response.members
    assert (own.name, own.number, own.connected, own.member_id) == ("node-1", 1, True, "0000000000000001")
    assert (other.name, other.match_index, other.voter) == ("node-2", 6, True)


async def transfer(api: Api, target: str) -> cluster_pb2.TransferLeadershipResponse:
    request = cluster_pb2.TransferLeadershipRequest(target=target)
    return await api.call(f"{CLUSTER}/TransferLeadership", request, cluster_pb2.TransferLeadershipResponse)


@pytest.mark.parametrize("target", ["node-2", "2", "0000000000000002", ""])
async def test_leadership_is_handed_over_to_a_named_member(api: Api, target: str) -> None:
    response = await transfer(api, target)
    assert (response.leader, response.term) == ("node-2", 3)


async def test_leadership_is_asked_for_nobody_but_a_voter(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        aio.AioRpcError, match="node-9 is no member of this cluster; its members are"
    ) as raised:
        await transfer(api, "node-9")
    assert raised.value.code() is StatusCode.NOT_FOUND
    first, second = api.node.state.member_list
    monkeypatch.setattr(api.node.state, "member_list", [first, replace(second, is_voter=False)])
    with pytest.raises(aio.AioRpcError, match="node-2 is a learner and can't lead: nothing was") as raised:
        await transfer(api, "node-2")
    assert raised.value.code() is StatusCode.FAILED_PRECONDITION
    monkeypatch.setattr(api.node.state, "member_list", [])
    with pytest.raises(aio.AioRpcError, match=r"knows no members of a cluster: .*clock is not") as raised:
        await transfer(api, "node-2")
    assert raised.value.code() is StatusCode.UNAVAILABLE


async def test_a_transfer_and_a_change_of_members_are_given_up_before_the_caller_gives_up(api: Api) -> None:
    """Else it sees its own timeout, and not the reason."""
    begun_ns = time.monotonic_ns()
    await transfer(api, "node-2")
    remove = cluster_pb2.RemoveMemberRequest(member="node-2")
    await api.call(f"{CLUSTER}/RemoveMember", remove, cluster_pb2.RemoveMemberResponse)
    for given_ns in api.node.deadlines:
        assert given_ns is not None
        left_ns = time.monotonic_ns() + UNARY_DEADLINE_DEFAULT_NS - given_ns
        assert ANSWER_NS <= left_ns < ANSWER_NS + time.monotonic_ns() - begun_ns


async def test_events_come_with_what_was_missed(api: Api) -> None:
    api.node.subscription = Events([[Event(number=n, attributes={"votes": "2"}) for n in range(600)]])
    responses = await api.collect(
        f"{CLUSTER}/WatchEvents", cluster_pb2.WatchEventsRequest(), cluster_pb2.WatchEventsResponse
    )
    assert [len(response.events) for response in responses] == [512, 88]
    assert responses[0].missed_count == 3
    assert responses[0].events[1].attributes["votes"] == "2"
    assert api.node.subscription.is_closed


async def test_an_event_is_told_before_there_is_another(api: Api) -> None:
    class Endless(Events):
        async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
            yield [Event(number=1)]
            await asyncio.Event().wait()

    api.node.subscription = Endless([])
    call = api.stream(
        f"{CLUSTER}/WatchEvents", cluster_pb2.WatchEventsRequest(), cluster_pb2.WatchEventsResponse
    )
    assert [event.number for event in (await call.read()).events] == [1]
    call.cancel()


async def test_checkpoint_and_verify_answer_with_their_position(api: Api) -> None:
    service = "raftberry.v1.MaintenanceService"
    checkpoint = await api.call(
        f"{service}/Checkpoint", maintenance_pb2.CheckpointRequest(), maintenance_pb2.CheckpointResponse
    )
    verify = await api.call(
        f"{service}/Verify", maintenance_pb2.VerifyRequest(local=True), maintenance_pb2.VerifyResponse
    )
    assert (checkpoint.index, checkpoint.term) == (verify.index, verify.term) == (7, 2)
    assert verify.hash == b"\x01" * 32


async def test_verify_names_the_hash_of_every_member(api: Api) -> None:
    verify = await api.call(
        "raftberry.v1.MaintenanceService/Verify",
        maintenance_pb2.VerifyRequest(),
        maintenance_pb2.VerifyResponse,
    )
    assert [(member.name, member.hash) for member in verify.members] == [("node-1", b"1"), ("node-2", b"")]
    assert (verify.index, verify.hash, verify.equal) == (7, b"1", False)


async def test_a_backup_is_given_piece_by_piece_and_closed(api: Api) -> None:
    api.node.backup_result = Backup([b"first", b"second"])
    responses = await api.collect(
        "raftberry.v1.MaintenanceService/Backup",
        maintenance_pb2.BackupRequest(consistency=reading_pb2.CONSISTENCY_LOCAL),
        maintenance_pb2.BackupResponse,
    )
    assert [response.data for response in responses] == [b"first", b"second"]
    assert api.node.barriers == [reading_pb2.CONSISTENCY_LOCAL]
    assert api.node.backup_result.is_closed


async def test_the_samples_calls_set_and_get_a_number(api: Api) -> None:
    service = "api.v1.KeyValueService"
    empty = await api.call(f"{service}/Get", sample_pb2.GetValueRequest(), sample_pb2.GetValueResponse)
    assert empty.value == 0
    answer = await api.call(
        f"{service}/Set", sample_pb2.SetValueRequest(value=4_000_000_000), sample_pb2.SetValueResponse
    )
    assert answer.ok
    put = api.node.operations[0].put
    assert (put.key, put.value) == ("api.v1/value", (4_000_000_000).to_bytes(4, "little"))
    api.node.state.records[put.key] = KeyRecord(put.key, put.value, 1, 1, 1)
    got = await api.call(f"{service}/Get", sample_pb2.GetValueRequest(), sample_pb2.GetValueResponse)
    assert got.value == 4_000_000_000


async def test_the_samples_set_says_not_ok_only_when_nothing_happened(api: Api) -> None:
    service = "api.v1.KeyValueService"
    api.node.outcomes = [NoLeader("no leader is known"), OutcomeUnknown("late")]
    refused = await api.call(f"{service}/Set", sample_pb2.SetValueRequest(), sample_pb2.SetValueResponse)
    assert (refused.ok, refused.message) == (False, "no leader is known")
    with pytest.raises(aio.AioRpcError):
        await api.call(f"{service}/Set", sample_pb2.SetValueRequest(), sample_pb2.SetValueResponse)


async def test_the_samples_value_key_with_other_bytes_is_explained(api: Api) -> None:
    api.node.state.records["api.v1/value"] = KeyRecord("api.v1/value", b"12345", 1, 1, 1)
    with pytest.raises(aio.AioRpcError, match="holds 5 bytes"):
        await api.call(
            "api.v1.KeyValueService/Get", sample_pb2.GetValueRequest(), sample_pb2.GetValueResponse
        )


@pytest.mark.parametrize(
    ("method", "number", "words"),
    [
        ("Add", 9, "run `raftberry invite`"),
        ("Add", 2, "is node-2 and already a member"),
        ("Remove", 9, "no member has number 9; `raftberry members`"),
    ],
)
async def test_the_samples_membership_calls_say_what_to_run(
    api: Api, method: str, number: int, words: str
) -> None:
    answer = await api.call(
        f"api.v1.RaftService/{method}", raft_pb2.NodeRequest(id=number), raft_pb2.NodeResponse
    )
    assert not answer.ok
    assert words in answer.message


async def test_the_samples_remove_works_by_number(api: Api) -> None:
    request = raft_pb2.NodeRequest(id=2)
    answer = await api.call("api.v1.RaftService/Remove", request, raft_pb2.NodeResponse)
    assert (answer.ok, answer.message) == (True, "removed node-2; 1 members remain")
    answer = await api.call("api.v1.RaftService/Remove", raft_pb2.NodeRequest(id=1), raft_pb2.NodeResponse)
    assert not answer.ok
    assert "node-1 is the last voter" in answer.message


async def test_members_are_added_promoted_moved_and_removed(api: Api) -> None:
    added = await api.call(
        f"{CLUSTER}/AddMember",
        cluster_pb2.AddMemberRequest(
            name="pi-9", member_id="00000000000000Ff", peer_address="pi-9.local:7441"
        ),
        cluster_pb2.AddMemberResponse,
    )
    assert (added.member.name, added.member.voter, added.member.promote) == ("pi-9", False, True)
    assert (added.cluster_id, added.configuration_version) == ("00000000000000ff", 2)
    promote = cluster_pb2.PromoteMemberRequest(member="00000000000000ff")
    await api.call(f"{CLUSTER}/PromoteMember", promote, cluster_pb2.PromoteMemberResponse)
    update = cluster_pb2.UpdateMemberRequest(member="pi-9", peer_address="10.0.0.9:7441")
    await api.call(f"{CLUSTER}/UpdateMember", update, cluster_pb2.UpdateMemberResponse)
    remove = cluster_pb2.RemoveMemberRequest(member=str(added.member.number), force=True)
    await api.call(f"{CLUSTER}/RemoveMember", remove, cluster_pb2.RemoveMemberResponse)
    assert api.node.changes == [
        AddLearner(MemberId(0xFF), "pi-9", "pi-9.local:7441", promote=True),
        PromoteMember(MemberId(0xFF)),
        UpdateMember(MemberId(0xFF), "10.0.0.9:7441"),
        RemoveMember(MemberId(0xFF), force=True),
    ]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (cluster_pb2.AddMemberRequest(name="a", member_id="12", peer_address="h:1"), "member_id: '12' is no"),
        (cluster_pb2.AddMemberRequest(name="a", member_id="0" * 16, peer_address="h:1"), "is no member id"),
        (
            cluster_pb2.AddMemberRequest(name="a", member_id="1" * 16, peer_address="h"),
            "'h' is not HOST:PORT",
        ),
        (cluster_pb2.AddMemberRequest(name="a", member_id="1" * 16, peer_address="h:0"), "is not HOST:PORT"),
        (cluster_pb2.AddMemberRequest(name="", member_id="1" * 16, peer_address="h:1"), "name: empty"),
    ],
)
async def test_a_newcomer_that_can_not_be_is_named(
    api: Api, request_: cluster_pb2.AddMemberRequest, words: str
) -> None:
    with pytest.raises(aio.AioRpcError, match=words) as raised:
        await api.call(f"{CLUSTER}/AddMember", request_, cluster_pb2.AddMemberResponse)
    assert raised.value.code() is StatusCode.INVALID_ARGUMENT


async def test_a_member_that_is_none_is_not_found(api: Api) -> None:
    request = cluster_pb2.RemoveMemberRequest(member="pi-9")
    with pytest.raises(aio.AioRpcError, match="pi-9 is no member of this cluster; its members are") as raised:
        await api.call(f"{CLUSTER}/RemoveMember", request, cluster_pb2.RemoveMemberResponse)
    assert raised.value.code() is StatusCode.NOT_FOUND


async def health_of(api: Api, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    response = await api.call("grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse)
    return int(response.status)


async def test_health_of_the_readings_follows_the_node_and_that_of_the_process_does_not(api: Api) -> None:
    assert await health_of(api, "raftberry.v1.ReadingService") == health_pb2.HealthCheckResponse.SERVING
    api.node.on_serving_change[0](False)
    assert await health_of(api, "raftberry.v1.ReadingService") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await health_of(api, "raftberry.v1.KeyValueService") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await health_of(api, "") == health_pb2.HealthCheckResponse.SERVING
    api.node.on_serving_change[0](True)
    assert await health_of(api, "raftberry.v1.ReadingService") == health_pb2.HealthCheckResponse.SERVING


async def reflect(api: Api, **request: str) -> reflection_pb2.ServerReflectionResponse:
    call = api.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )(iter([reflection_pb2.ServerReflectionRequest(**request)]))  # type: ignore[arg-type]
    response: reflection_pb2.ServerReflectionResponse = await call.read()
    call.cancel()
    return response


async def test_reflection_lists_and_describes_every_service(api: Api) -> None:
    listed = await reflect(api, list_services="")
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        "raftberry.v1.ReadingService",
        "raftberry.v1.KeyValueService",
        "raftberry.v1.ClusterService",
        "raftberry.v1.PolicyService",
        "raftberry.v1.MaintenanceService",
        "raftberry.v1.AccessService",
        "api.v1.KeyValueService",
        "api.v1.RaftService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for name in names:
        described = await reflect(api, file_containing_symbol=name)
        (raw,) = described.file_descriptor_response.file_descriptor_proto[:1]
        service = FileDescriptorProto.FromString(raw).service
        assert name.rpartition(".")[2] in [each.name for each in service]


async def test_every_method_of_every_service_is_served(api: Api) -> None:
    for name in ("raftberry.v1.ReadingService", KEYS, CLUSTER, "raftberry.v1.MaintenanceService"):
        described = await reflect(api, file_containing_symbol=name)
        proto = FileDescriptorProto.FromString(described.file_descriptor_response.file_descriptor_proto[0])
        for method in proto.service[0].method:
            call = api.channel.stream_stream(f"/{name}/{method.name}")(iter([b"\xff"]))
            try:
                answers = [answer async for answer in call]
                assert (method.name, len(answers)) == ("StreamWrite", 1)
            except aio.AioRpcError as error:
                assert error.code() is StatusCode.INVALID_ARGUMENT, method.name


async def test_a_port_in_use_is_an_error_that_names_the_address() -> None:
    """With SO_REUSEPORT, grpc's default, the second server would take half of the first one's connections."""
    first, node = ClientServer(FakeNode(), "127.0.0.1:0"), FakeNode()
    await first.start()
    try:
        with pytest.raises(
            ConfigurationError, match=f"127.0.0.1:{first.port} cannot be opened.*--client-address"
        ):
            await ClientServer(node, f"127.0.0.1:{first.port}").start()
        assert node.on_serving_change == []
    finally:
        await first.stop(0)


async def test_stopping_closes_the_socket_and_forgets_the_node(tmp_path: Path) -> None:
    node = FakeNode()
    server = ClientServer(node, f"unix:{tmp_path}/s.sock")
    await server.start()
    await server.stop(0)
    await server.stop(0)
    assert node.on_serving_change == []
    assert [task for task in asyncio.all_tasks() if task.get_name() == "api-health"] == []


async def test_key_watchers_who_want_the_same_are_sent_the_same_bytes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(
        applied: AppliedEffects, is_wanted: KeyFilter
    ) -> list[key_value_pb2.KeyValueServiceWatchResponse]:
        made.append(applied.index)
        return key_messages(applied, is_wanted)

    monkeypatch.setattr("appliance.api.key_value.key_messages", counted)
    put = KeyEvent(KeyEventKind.PUT, "a/1", 4, b"v", 4, 1)
    api.node.entries = [Effects(8, EntryEffects(key_events=(put,)))]
    for key, is_prefix in (("a/", True), ("a/", True), ("a/1", False), ("", True)):
        request = key_value_pb2.KeyValueServiceWatchRequest(key=key, is_prefix=is_prefix, after_index=7)
        call = api.stream(f"{KEYS}/Watch", request, key_value_pb2.KeyValueServiceWatchResponse)
        response = await call.read()
        assert (response.index, [event.key_value.key for event in response.events]) == (8, ["a/1"])
        call.cancel()
    assert made == [8, 8, 8]
