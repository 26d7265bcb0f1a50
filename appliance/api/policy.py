"""raftberry.v1.PolicyService: how long readings are kept. For operators. Loop thread."""

from __future__ import annotations

from typing import Final

from appliance.api import validate
from appliance.api.calls import Context, Handlers, deadline_ns, unary
from appliance.api.port import Node
from appliance.model import Position
from appliance.state.retention import Policy, RollUp, delete_policy, set_policy
from raftberry.v1 import policy_pb2, reading_pb2

SERVICE: Final = policy_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name


class PolicyService:
    """One instance serves all calls. What makes no sense is refused where the policy is applied."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> Handlers:
        return {
            "SetPolicy": unary(self.SetPolicy, policy_pb2.SetPolicyRequest),
            "ListPolicies": unary(self.ListPolicies, policy_pb2.ListPoliciesRequest),
            "DeletePolicy": unary(self.DeletePolicy, policy_pb2.DeletePolicyRequest),
        }

    async def SetPolicy(
        self, request: policy_pb2.SetPolicyRequest, context: Context
    ) -> policy_pb2.SetPolicyResponse:
        wanted = request.policy
        roll_ups = sorted((one.width_nano, one.keep_nano) for one in wanted.roll_ups)
        policy = Policy(
            validate.required_pattern("policy.sensor", wanted.sensor),
            validate.required_pattern("policy.metric", wanted.metric),
            wanted.keep_nano,
            tuple(RollUp(width_ns, keep_ns) for width_ns, keep_ns in roll_ups),
        )
        outcome = await self._node.write(set_policy(policy), deadline_ns=deadline_ns(context))
        return policy_pb2.SetPolicyResponse(index=outcome.index, term=outcome.term)

    async def ListPolicies(
        self, request: policy_pb2.ListPoliciesRequest, context: Context
    ) -> policy_pb2.ListPoliciesResponse:
        linearizable = reading_pb2.CONSISTENCY_LINEARIZABLE
        await self._node.read_barrier(linearizable, deadline_ns=deadline_ns(context))
        state = self._node.state
        position: Position = state.position
        return policy_pb2.ListPoliciesResponse(
            policies=[_message(policy) for _, policy in sorted(state.retention.policies.policies.items())],
            index=position.index,
            term=position.term,
            held=self._node.retention_doubt(),
        )

    async def DeletePolicy(
        self, request: policy_pb2.DeletePolicyRequest, context: Context
    ) -> policy_pb2.DeletePolicyResponse:
        sensor = validate.required_pattern("sensor", request.sensor)
        metric = validate.required_pattern("metric", request.metric)
        outcome = await self._node.write(delete_policy(sensor, metric), deadline_ns=deadline_ns(context))
        return policy_pb2.DeletePolicyResponse(index=outcome.index, term=outcome.term)


def _message(policy: Policy) -> policy_pb2.Policy:
    roll_ups = [policy_pb2.RollUp(width_nano=one.width_ns, keep_nano=one.keep_ns) for one in policy.roll_ups]
    return policy_pb2.Policy(
        sensor=policy.sensor, metric=policy.metric, keep_nano=policy.keep_ns, roll_ups=roll_ups
    )
