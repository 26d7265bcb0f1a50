"""Links between two processes, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from appliance.model import MemberId
from appliance.peers import PeerLinks
from tests.peers.harness import RecordingNode, address, numbered, serve

TWO = MemberId(2)
SCRIPT = Path(__file__).with_name("peer_process.py")
PORT = 17_690


async def _peer(own_port: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), "2", str(PORT), "1", str(own_port),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_a_killed_peer_is_down_at_once_and_up_again_when_it_is_restarted() -> None:
    # Keepalive is out of reach in these options: what is noticed, the end of the connection told.
    server = await serve(1)
    node = RecordingNode(1)
    links = PeerLinks(server, [address(2, PORT)], node, rng=random.Random(1))
    await links.start()
    for life in range(1, 3):
        process = await _peer(server.port)
        await node.until(lambda life=life: node.count("up") == life)  # type: ignore[misc]
        assert links.send(TWO, numbered(1, life))
        await node.until(lambda life=life: node.terms()[-1:] == [life])  # type: ignore[misc]
        process.kill()
        await node.until(lambda life=life: node.count("down") == life)  # type: ignore[misc]
        await process.wait()
    assert node.states() == ["up", "down"] * 2
    await links.stop()
    await server.stop()
