"""The client port on a Unix socket in front of a fake node: no network, no port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import aio

from appliance.api.server import ClientServer
from tests.api.fake_node import FakeNode
from tests.api.harness import Api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    node = FakeNode()
    address = f"unix:{tmp_path}/client.sock"
    server = ClientServer(node, address)
    await server.start()
    async with aio.insecure_channel(address) as channel:
        yield Api(node, server, channel, address)
    await server.stop(0)
