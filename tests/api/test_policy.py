"""PolicyService as a client sees it."""

from __future__ import annotations

import pytest
from grpc import StatusCode, aio

from appliance.state.retention import Policy, RollUp, policy_of
from raftberry.v1 import policy_pb2
from tests.api.harness import Api, reason_of

SERVICE = "raftberry.v1.PolicyService"


async def test_a_policy_is_set_listed_and_deleted(api: Api) -> None:
    roll_ups = [policy_pb2.RollUp(width_nano=5, keep_nano=6), policy_pb2.RollUp(width_nano=3)]
    wanted = policy_pb2.Policy(sensor="greenhouse", metric="*", keep_nano=90, roll_ups=roll_ups)
    request = policy_pb2.SetPolicyRequest(policy=wanted)
    answer = await api.call(f"{SERVICE}/SetPolicy", request, policy_pb2.SetPolicyResponse)
    assert (answer.index, answer.term) == (7, 2)
    (operation,) = api.node.operations
    expected = Policy("greenhouse", "*", 90, (RollUp(3, 0), RollUp(5, 6)))
    assert policy_of(operation.set_policy.policy) == expected

    table = api.node.state.retention.policies.policies
    table["greenhouse", "*"] = expected
    table["*", "*"] = Policy("*", "*", 60)
    api.node.doubt = "clocks"
    listed = await api.call(
        f"{SERVICE}/ListPolicies", policy_pb2.ListPoliciesRequest(), policy_pb2.ListPoliciesResponse
    )
    assert [(one.sensor, one.keep_nano, len(one.roll_ups)) for one in listed.policies] == [
        ("*", 60, 0),
        ("greenhouse", 90, 2),
    ]
    assert (listed.held, listed.index) == ("clocks", 7)

    deleting = policy_pb2.DeletePolicyRequest(sensor="greenhouse", metric="*")
    await api.call(f"{SERVICE}/DeletePolicy", deleting, policy_pb2.DeletePolicyResponse)
    assert api.node.operations[-1].delete_policy.sensor == "greenhouse"


async def test_a_policy_names_its_globs(api: Api) -> None:
    request = policy_pb2.SetPolicyRequest(policy=policy_pb2.Policy(sensor="a", keep_nano=1))
    with pytest.raises(aio.AioRpcError) as caught:
        await api.call(f"{SERVICE}/SetPolicy", request, policy_pb2.SetPolicyResponse)
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert "policy.metric" in str(caught.value.details())
    assert reason_of(caught.value)[0]
