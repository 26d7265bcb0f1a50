"""/healthz and /readyz: the process answers; the cluster takes writes through this node.

Invariant: neither asks another node or a disk, and neither tells a secret: both are for everybody.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from appliance.model import Role
from appliance.web.port import Node


def unready_reason(node: Node) -> str:
    """Why writes through this node are not taken now; empty: they are."""
    status = node.status()
    if status.role in (Role.QUARANTINED, Role.FOUNDING, Role.REMOVED):
        return f"this node is {status.role.value}: {'; '.join(status.alarms)}"
    if not node.is_serving():
        return "no majority has confirmed a leader within two election timeouts"
    return node.figures().write_refusal


async def healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    reason = unready_reason(request.app.state.node)
    return PlainTextResponse(f"not ready: {reason}\n", 503) if reason else PlainTextResponse("ready\n")
