"""A peer as a process of its own: answers each frame with its number; run by test_peer_process.

Arguments: own member id, own port, the other's member id, the other's port. Prints `ready` once it listens.
"""

from __future__ import annotations

import asyncio
import random
import sys

from appliance.model import MemberId
from appliance.peers import PeerLinks
from raftberry.internal.v1 import peer_pb2
from tests.peers.harness import RecordingNode, address, numbered, serve


class Echo(RecordingNode):
    """Sends back the number of every frame."""

    links: PeerLinks

    def on_frame(self, member_id: MemberId, frame: peer_pb2.Frame) -> None:
        self.links.send(member_id, numbered(self.member_id, frame.term))


async def main(own: int, own_port: int, other: int, other_port: int) -> None:
    node = Echo(own)
    server = await serve(own, own_port)
    node.links = PeerLinks(server, [address(other, other_port)], node, rng=random.Random(own))
    await node.links.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*(int(argument) for argument in sys.argv[1:5])))
